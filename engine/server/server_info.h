// What /server_info and /model_info tell of the server.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "configs/load_config.h"
#include "engine/server/engine_loop.h"
#include "engine/server/served_model.h"

namespace augur::server {

/// JSON: version, model, limits, memory plan, start-up phases, lossy modes, and the configuration
/// in effect (nothing of it is secret: keys are in a file of their own).
std::string server_info_body(const EffectiveConfig& effective,
                             const ServedModel& model,
                             const EngineFigures& figures);

/// Settings that tell servers apart, as labels of a metric.
std::vector<std::pair<std::string, std::string>> config_info(const EffectiveConfig& effective,
                                                             const ServedModel& model);

/// JSON: what clients of SGLang ask for before they begin.
std::string model_info_body(const ServedModel& model);

}  // namespace augur::server
