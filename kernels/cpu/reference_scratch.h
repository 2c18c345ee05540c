// Scratch memory of the reference operations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/buffer.h"
#include "kernels/ops.h"

namespace augur::cpu {

/// Rows an MLP or expert layer takes at a time: bounds the scratch, and converts each weight
/// often enough only.
inline constexpr int64_t kSlabRows = 256;

/// One allocation, cut up by the limits of a step.
class ReferenceScratch {
 public:
  ReferenceScratch() = default;
  /// Throws OutOfMemory.
  ReferenceScratch(const StepLimits& limits, int num_threads);

  static int64_t num_bytes(const StepLimits& limits, int num_threads);

  const StepLimits& limits() const { return limits_; }
  /// A converted panel of weights of up to max_cols() columns.
  float* panel(int worker_idx) const { return panels_ + worker_idx * panel_stride_; }
  int64_t max_cols() const { return max_cols_; }
  /// One attention score per position.
  float* scores(int worker_idx) const { return scores_ + worker_idx * scores_stride_; }
  /// [kSlabRows, mlp_intermediate_size] or [kSlabRows * top_k, expert_intermediate_size].
  float* intermediate() const { return intermediate_; }
  /// [kSlabRows * top_k, hidden_size].
  float* expert_outputs() const { return expert_outputs_; }
  /// kSlabRows * top_k numbers each.
  int32_t* sorted_tokens() const { return sorted_tokens_; }
  int32_t* sorted_choices() const { return sorted_choices_; }
  /// One more number than there are experts of both forms, and as many.
  int32_t* expert_starts() const { return expert_starts_; }
  int32_t* active_experts() const { return active_experts_; }
  /// For sample() and logprobs().
  std::span<std::byte> row_scratch() const { return row_scratch_; }

 private:
  int64_t lay_out(const StepLimits& limits, int num_threads, std::byte* base);

  StepLimits limits_;
  Buffer memory_;
  int64_t max_cols_ = 0;
  int64_t panel_stride_ = 0;
  int64_t scores_stride_ = 0;
  float* panels_ = nullptr;
  float* scores_ = nullptr;
  float* intermediate_ = nullptr;
  float* expert_outputs_ = nullptr;
  int32_t* sorted_tokens_ = nullptr;
  int32_t* sorted_choices_ = nullptr;
  int32_t* expert_starts_ = nullptr;
  int32_t* active_experts_ = nullptr;
  std::span<std::byte> row_scratch_;
};

}  // namespace augur::cpu
