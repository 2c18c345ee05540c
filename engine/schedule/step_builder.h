// From what the scheduler chose to what the model reads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/step_batch.h"
#include "engine/schedule/scheduler.h"

namespace augur {

/// Whom a logit row is for.
struct LogitOwner {
  Sequence* sequence = nullptr;
  bool is_prompt_score = false;  // of the next prompt token to score; else a sampled output token
};

/// Whether the last of these rows is followed by a token that is to be sampled.
bool samples(const ScheduledRows& rows);

/// Fills `batch` and, entry for entry with batch.logit_rows, `owners`; both keep their memory from
/// step to step. A row gets logits when the token after it is a prompt token still to be scored, or
/// is not known yet. Entries of the block table past a sequence's blocks are -1.
/// The batch points into the sequences: they stay as they are until the step has been launched.
void build_step(std::span<const ScheduledRows> plan,
                int block_size,
                StepBatch& batch,
                std::vector<LogitOwner>& owners);

}  // namespace augur
