#include "kernels/cuda/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/cpu/philox.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sample_kernels.h"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

bool is_greedy(const SamplingRow& row) {
  return row.temperature == 0 || row.top_k == 1;
}
int64_t num_list_words(const SamplingRow& row) {
  size_t num_words = 2 * row.logit_bias.size();
  if (row.penalises_repetition()) num_words += row.prompt_ids.size();
  if (row.penalises_repetition() || row.counts_output()) num_words += row.output_ids.size();
  return static_cast<int64_t>(num_words);
}

// Writes the row's lists from `words` on; returns their number.
int64_t write_lists(const SamplingRow& row, RowPlan& plan, int32_t* words) {
  int32_t* next = words;
  if (!row.logit_bias.empty()) {
    // By id, those of one token in their order: they are added up in it.
    static_assert(sizeof(LogitBias) == 8);
    auto* const biases = reinterpret_cast<LogitBias*>(next);
    std::copy(row.logit_bias.begin(), row.logit_bias.end(), biases);
    const auto by_id = [](const LogitBias& a, const LogitBias& b) {
      return a.token_id < b.token_id;
    };
    const auto end = biases + row.logit_bias.size();
    if (!std::is_sorted(biases, end, by_id)) std::stable_sort(biases, end, by_id);
    plan.num_biases = static_cast<int32_t>(row.logit_bias.size());
    next += 2 * row.logit_bias.size();
  }
  const auto append = [&](std::span<const int32_t> ids) {
    next = std::copy(ids.begin(), ids.end(), next);
    return static_cast<int32_t>(ids.size());
  };
  if (row.penalises_repetition()) plan.num_prompt_ids = append(row.prompt_ids);
  if (row.penalises_repetition() || row.counts_output()) {
    plan.num_output_ids = append(row.output_ids);
  }
  return next - words;
}

RowPlan make_plan(const SamplingRow& row, int64_t vocab_size) {
  RowPlan plan;
  plan.repetition_penalty = row.repetition_penalty;
  plan.presence_penalty = row.presence_penalty;
  plan.frequency_penalty = row.frequency_penalty;
  if (is_greedy(row)) {
    plan.top_k = 1;
    return plan;
  }
  plan.uniform = cpu::uniform_draw(row.seed, row.draw_idx);
  plan.min_p_offset = row.min_p > 0 ? std::log(double{row.min_p}) * row.temperature
                                    : -std::numeric_limits<double>::infinity();
  // The reciprocal of a tiny temperature must stay finite: 0 times it is the best token's 0.
  plan.scale = static_cast<float>(
      std::min<double>(1.0 / row.temperature, std::numeric_limits<float>::max()));
  plan.top_p = row.top_p;
  plan.top_k = row.top_k < vocab_size ? row.top_k : 0;
  return plan;
}

int64_t plans_bytes(int64_t max_rows) {
  return ceil_div<int64_t>(max_rows * static_cast<int64_t>(sizeof(RowPlan)), 256) * 256;
}
int64_t stage_bytes(const DeviceSampler::Limits& limits) {
  // A word more: each row's lists begin at an even word.
  return plans_bytes(limits.max_rows) + (limits.max_list_words + limits.max_rows) * 4;
}
bool uses_cluster(const DeviceSampler::Limits& limits) {
  return limits.blocks == RowBlocks::kFastest && fits_cluster(limits.vocab_size);
}
int64_t num_blocks(const DeviceSampler::Limits& limits) {
  return std::min<int64_t>(limits.max_rows, device_traits().num_sms);
}
int64_t adjusted_bytes(const DeviceSampler::Limits& limits) {
  // Rows that start at multiples of 16 bytes.
  return uses_cluster(limits) ? 0
                              : num_blocks(limits) * ceil_div<int64_t>(limits.vocab_size, 4) * 16;
}

}  // namespace

int64_t DeviceSampler::device_bytes(const Limits& limits) {
  return stage_bytes(limits) + adjusted_bytes(limits);
}

DeviceSampler::DeviceSampler(const Limits& limits)
    : limits_(limits),
      uses_cluster_(uses_cluster(limits)),
      device_(allocate_device(stage_bytes(limits))),
      adjusted_rows_(allocate_device(adjusted_bytes(limits))) {
  AUGUR_REQUIRE(limits.vocab_size >= 1 && limits.vocab_size <= 1 << 30,
                std::to_string(limits.vocab_size));
  for (Stage& stage : stages_) {
    stage.pinned = allocate_pinned(stage_bytes(limits));
    stage.is_read = make_order_event();
  }
}

void DeviceSampler::sample(const SampleArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("sample");
  const Tensor& logits = args.logits;
  const auto num_rows = static_cast<int64_t>(args.rows.size());
  AUGUR_REQUIRE(num_rows == logits.num_rows, std::to_string(num_rows) + " settings for " +
                                                 std::to_string(logits.num_rows) +
                                                 " rows of logits");
  if (num_rows == 0) return;
  AUGUR_REQUIRE(logits.dtype == DType::kF32 && logits.data != nullptr, "logits must be float32");
  AUGUR_REQUIRE(num_rows <= limits_.max_rows && logits.num_cols <= limits_.vocab_size,
                std::to_string(num_rows) + " rows of " + std::to_string(logits.num_cols));
  bool is_plain_argmax = true;
  bool has_lists = false;
  bool has_filters = false;
  for (size_t i = 0; i < args.rows.size(); ++i) {
    require_valid(args.rows[i], logits.num_cols, i);
    AUGUR_REQUIRE(num_list_words(args.rows[i]) <= limits_.max_list_words,
                  "the lists of row " + std::to_string(i) + " have " +
                      std::to_string(num_list_words(args.rows[i])) + " words");
    has_filters = has_filters || args.rows[i].top_k > 1 || args.rows[i].top_p < 1;
    has_lists = has_lists || num_list_words(args.rows[i]) > 0;
    is_plain_argmax = is_plain_argmax && is_greedy(args.rows[i]);
  }
  const int vocab_size = static_cast<int>(logits.num_cols);
  if (is_plain_argmax && !has_lists) {
    argmax_rows({logits.row<float>(0), logits.row_stride, vocab_size, static_cast<int>(num_rows),
                 args.token_ids},
                uses_cluster_, stream);
    return;
  }
  SampleParams params;
  params.row_stride = logits.row_stride;
  params.vocab_size = vocab_size;
  params.has_filters = has_filters;
  params.adjusted_rows = adjusted_rows_.as<float>();
  const auto launch_rows = [&](int64_t first_row, int64_t end) {
    params.logits = logits.row<float>(first_row);
    params.num_rows = static_cast<int>(end - first_row);
    params.token_ids = args.token_ids + first_row;
    sample_rows(params, uses_cluster_, static_cast<int>(num_blocks(limits_)), stream);
  };
  if (!has_lists && num_rows <= kMaxOwnPlans) {
    for (int64_t i = 0; i < num_rows; ++i) {
      params.own_plans[i] = make_plan(args.rows[i], logits.num_cols);
    }
    launch_rows(0, num_rows);
    return;
  }

  int64_t first_row = 0;
  while (first_row < num_rows) {
    Stage& stage = stages_[next_stage_];
    next_stage_ = (next_stage_ + 1) % kNumStages;
    AUGUR_CUDA(cudaEventSynchronize(stage.is_read.get()));
    auto* const plans = stage.pinned.as<RowPlan>();
    const int64_t lists_offset = plans_bytes(limits_.max_rows);
    auto* const lists = reinterpret_cast<int32_t*>(stage.pinned.data() + lists_offset);
    int64_t num_words = 0;
    int64_t end = first_row;
    for (; end < num_rows; ++end) {
      const SamplingRow& row = args.rows[end];
      if (end > first_row && num_words + num_list_words(row) > limits_.max_list_words) break;
      RowPlan plan = make_plan(row, logits.num_cols);
      plan.first_word = num_words;
      num_words += ceil_div<int64_t>(write_lists(row, plan, lists + num_words), 2) * 2;
      std::memcpy(&plans[end - first_row], &plan, sizeof(plan));
    }
    if (num_words == 0) {
      // Every block reads some words of its row's beside the logits: cheaper than a copy first.
      params.plans = plans;
      params.lists = nullptr;
    } else {
      AUGUR_CUDA(cudaMemcpyAsync(device_.data(), stage.pinned.data(), lists_offset + num_words * 4,
                                 cudaMemcpyHostToDevice, stream));
      params.plans = device_.as<RowPlan>();
      params.lists = reinterpret_cast<const int32_t*>(device_.data() + lists_offset);
    }
    launch_rows(first_row, end);
    AUGUR_CUDA(cudaEventRecord(stage.is_read.get(), stream));
    first_row = end;
  }
}

int64_t bytes_moved(const SampleArgs& args) {
  return args.logits.num_rows * (args.logits.num_cols * 4 + 4);
}

}  // namespace augur::cuda
