#include "engine/schedule/step_builder.h"

#include <algorithm>

namespace augur {
namespace {

void add_prompt_scores(const ScheduledRows& rows,
                       int32_t first_row,
                       StepBatch& batch,
                       std::vector<LogitOwner>& owners) {
  Sequence& sequence = *rows.sequence;
  const ActiveRequest& active = *sequence.request;
  const Request& request = active.request;
  const int64_t first_position = rows.first_position;
  const int64_t num_prompt = static_cast<int64_t>(request.prompt_ids.size());
  // The row before a token scores it. What was scored before a preemption is not scored again.
  const int64_t end = std::min(first_position + rows.num_rows, num_prompt - 1);
  for (int64_t position = std::max(first_position, active.next_scored() - 1); position < end;
       ++position) {
    LogitRow& row = batch.logit_rows.emplace_back();
    row.row_idx = first_row + static_cast<int32_t>(position - first_position);
    row.target_id = request.prompt_ids[position + 1];
    row.top_n = request.prompt_top_logprobs;
    row.wants_logprob = true;
    owners.push_back({&sequence, /*is_prompt_score=*/true});
  }
}

void add_sample(const ScheduledRows& rows,
                int32_t row_idx,
                StepBatch& batch,
                std::vector<LogitOwner>& owners) {
  Sequence& sequence = *rows.sequence;
  const ActiveRequest& active = *sequence.request;
  const SamplingParams& params = active.request.sampling;
  const std::vector<int32_t>& output_ids = sequence.completion.output_ids;
  const int64_t num_output = static_cast<int64_t>(output_ids.size()) + (rows.sampled_row >= 0);
  LogitRow& row = batch.logit_rows.emplace_back();
  row.row_idx = row_idx;
  row.top_n = std::max(params.logprobs, 0);
  row.wants_sample = true;
  row.wants_logprob = params.logprobs >= 0;
  row.sampling = sequence.sampling;
  row.sampling.draw_idx = static_cast<uint64_t>(num_output);
  row.sampling.output_ids = output_ids;
  row.sampling.logit_bias =
      num_output < params.min_tokens ? active.min_tokens_bias : params.logit_bias;
  owners.push_back({&sequence, /*is_prompt_score=*/false});
}

}  // namespace

bool samples(const ScheduledRows& rows) {
  const Sequence& sequence = *rows.sequence;
  return sequence.generates && rows.end() == sequence.num_known() + (rows.sampled_row >= 0);
}

void build_step(std::span<const ScheduledRows> plan,
                int block_size,
                StepBatch& batch,
                std::vector<LogitOwner>& owners) {
  size_t num_rows = 0;
  size_t stride = 0;
  for (const ScheduledRows& rows : plan) {
    num_rows += rows.num_rows;
    stride = std::max(stride, rows.sequence->blocks.size());
  }
  batch.token_ids.resize(num_rows);
  batch.positions.resize(num_rows);
  batch.kv_slots.resize(num_rows);
  batch.query_start.resize(plan.size() + 1);
  batch.context_len.resize(plan.size());
  batch.sequence_ids.resize(plan.size());
  batch.block_table.resize(plan.size() * stride);
  batch.block_table_stride = static_cast<int64_t>(stride);
  batch.logit_rows.clear();
  owners.clear();

  const auto first_prefill = std::find_if(
      plan.begin(), plan.end(), [](const ScheduledRows& rows) { return rows.num_rows > 1; });
  batch.num_decode_seqs = static_cast<int>(first_prefill - plan.begin());

  int32_t row_idx = 0;
  batch.query_start[0] = 0;
  for (size_t s = 0; s < plan.size(); ++s) {
    Sequence& sequence = *plan[s].sequence;
    const int32_t first_row = row_idx;
    const int64_t end = plan[s].end();
    const int32_t sampled_row = plan[s].sampled_row;
    for (int64_t position = plan[s].first_position; position < end; ++position, ++row_idx) {
      batch.token_ids[row_idx] = sampled_row >= 0 ? ~sampled_row : sequence.token_at(position);
      batch.positions[row_idx] = static_cast<int32_t>(position);
      batch.kv_slots[row_idx] =
          int64_t{sequence.blocks[position / block_size]} * block_size + position % block_size;
    }
    batch.query_start[s + 1] = row_idx;
    batch.context_len[s] = static_cast<int32_t>(end);
    batch.sequence_ids[s] = sequence.age;
    const auto table = batch.block_table.begin() + static_cast<int64_t>(s * stride);
    const auto padding = std::copy(sequence.blocks.begin(), sequence.blocks.end(), table);
    std::fill(padding, table + static_cast<int64_t>(stride), -1);

    if (sequence.scores_prompt()) add_prompt_scores(plan[s], first_row, batch, owners);
    if (samples(plan[s])) add_sample(plan[s], row_idx - 1, batch, owners);
  }
}

}  // namespace augur
