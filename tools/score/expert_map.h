// A picture of expert memory: where each expert was, and how well that served.
#pragma once

#include <string>

#include "engine/model/expert_metrics.h"

namespace augur::score {

/// An SVG file that stands alone: layers are rows and experts columns, in two panels. The upper
/// one shows the share of steps at whose end an expert lay in the pool, the lower one the share of
/// its uses that found it there. Follows the reader's light or dark scheme; a cell tells its
/// figures under the pointer. `model` is its name, any text in UTF-8.
std::string expert_map_svg(const ExpertView& view, const std::string& model);

}  // namespace augur::score
