#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

void require_ids(std::span<const int32_t> ids, int64_t vocab_size, size_t row_idx) {
  // Long lists: first without branches. A negative id is a large one here.
  uint32_t largest = 0;
  for (const int32_t id : ids) largest = std::max(largest, static_cast<uint32_t>(id));
  if (largest < vocab_size) return;
  for (const int32_t id : ids) {
    AUGUR_REQUIRE(id >= 0 && id < vocab_size, "token id " + std::to_string(id) + " of row " +
                                                  std::to_string(row_idx) + ", vocabulary of " +
                                                  std::to_string(vocab_size));
  }
}

}  // namespace

void require_valid(const SamplingRow& row, int64_t vocab_size, size_t row_idx) {
  const std::string where = "row " + std::to_string(row_idx);
  AUGUR_REQUIRE(std::isfinite(row.temperature) && row.temperature >= 0, where);
  AUGUR_REQUIRE(row.top_k >= 0, where);
  AUGUR_REQUIRE(row.top_p > 0 && row.top_p <= 1, where);
  AUGUR_REQUIRE(row.min_p >= 0 && row.min_p <= 1, where);
  AUGUR_REQUIRE(std::isfinite(row.repetition_penalty) && row.repetition_penalty > 0, where);
  AUGUR_REQUIRE(std::isfinite(row.presence_penalty) && std::isfinite(row.frequency_penalty), where);
  for (const LogitBias& bias : row.logit_bias) {
    require_ids({&bias.token_id, 1}, vocab_size, row_idx);
  }
  if (row.penalises_repetition()) require_ids(row.prompt_ids, vocab_size, row_idx);
  if (row.penalises_repetition() || row.counts_output()) {
    require_ids(row.output_ids, vocab_size, row_idx);
  }
}

}  // namespace augur
