// Choosing the next token from logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/tensor.h"

namespace augur {

struct LogitBias {
  int32_t token_id = 0;
  float bias = 0;  // -infinity forbids the token
};

/// How one row is sampled. The settings act in this order: logit_bias, repetition penalty,
/// presence and frequency penalties, temperature, min_p, top_k, top_p, draw.
struct SamplingRow {
  float temperature = 1;  // 0: the largest logit after bias and penalties, ties to the lower id
  int top_k = 0;          // 0: all
  float top_p = 1;        // (0, 1]; Holtzman et al. 2019, arXiv:1904.09751
  float min_p = 0;        // [0, 1]; Nguyen et al. 2024, arXiv:2407.01082
  float repetition_penalty =
      1;  // > 0; Keskar et al. 2019, arXiv:1909.05858; prompt and output tokens
  float presence_penalty = 0;   // output tokens only
  float frequency_penalty = 0;  // output tokens only
  uint64_t seed = 0;
  uint64_t draw_idx = 0;  // counts this request's draws; the draw depends on (seed, draw_idx) alone
  std::span<const LogitBias> logit_bias;
  std::span<const int32_t> prompt_ids;  // read only when repetition_penalty != 1
  std::span<const int32_t> output_ids;  // read only when some penalty is set

  bool penalises_repetition() const { return repetition_penalty != 1; }
  bool counts_output() const { return presence_penalty != 0 || frequency_penalty != 0; }
};

/// Fails where a setting is out of its range, or an id that would be read is outside the
/// vocabulary. `row_idx` is for the message.
void require_valid(const SamplingRow& row, int64_t vocab_size, size_t row_idx);

/// Draws one token per row. The logits are left as they are, so that Ops::logprobs can read the
/// model's own distribution afterwards, the drawn tokens as its targets.
///   logits     [num_rows, vocab]  f32
///   rows       [num_rows]         settings, host memory
///   token_ids  [num_rows]         i32 out
struct SampleArgs {
  Tensor logits;
  std::span<const SamplingRow> rows;
  int32_t* token_ids = nullptr;
};

}  // namespace augur
