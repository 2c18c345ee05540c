// The lines of output: what was found of a document, as JSON.
//
// Numbers are written with the fewest digits that read back as the same float (the same double
// for sums). A number that JSON cannot hold is null.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/schedule/request.h"
#include "tools/score/encode.h"
#include "tools/score/totals.h"

namespace augur::score {

struct RowSettings {
  bool token_logprobs = false;
  bool top_logprobs = false;
};

struct ResultRow {
  std::string text;  // ends with a line break
  Totals totals;
};

/// id, num_tokens, logprob_sum, perplexity (null when nothing was scored), for a prompt with a
/// completion num_scored_tokens, and the lists asked for: token_logprobs, one number for each
/// scored token, and top_logprobs, for each scored token a list of [token id, log-probability].
/// Throws BadLine when the model gave a log-probability that is not finite.
ResultRow score_row(const std::string& id_json,
                    const EncodedDocument& document,
                    std::span<const ScoredToken> scored,
                    const RowSettings& settings);

/// id, text, output_ids, finish_reason, matched_stop (when a stop string ended it), the lists
/// asked for, and usage. More than one completion stand in a list, choices, each with its index.
ResultRow generate_row(const std::string& id_json,
                       const RequestResult& result,
                       const RowSettings& settings);

/// line, id (when known) and error.
std::string error_row(int64_t line_number, const std::string& id_json, std::string_view reason);

}  // namespace augur::score
