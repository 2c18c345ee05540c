// The rows of a step, as those see them who watch routing.
#pragma once

#include <cstdint>
#include <span>

namespace augur {

/// Rows are those of the step, sequence after sequence; each sequence's rows are consecutive
/// positions. Sequences of one row that continue a text come first: they decode.
/// Host memory, valid during the step.
struct StepRows {
  int64_t num_tokens = 0;
  int64_t num_decode_tokens = 0;             // the first so many rows
  std::span<const int32_t> token_ids;        // [num_tokens]
  std::span<const int32_t> positions;        // [num_tokens]
  std::span<const int32_t> sequence_of_row;  // [num_tokens], index of the sequence in the step
  // [num_sequences]; the same number whenever the same sequence runs, and no other's. A sequence
  // that was preempted begins again at position 0 under its number.
  std::span<const int64_t> sequence_ids;
};

}  // namespace augur
