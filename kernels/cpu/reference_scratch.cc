#include "kernels/cpu/reference_scratch.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "kernels/cpu/logprobs.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/reference_kernels.h"
#include "kernels/cpu/sampler.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

// No limit comes near this; below it, one limit times a small constant cannot overflow.
constexpr int64_t kLargestLimit = int64_t{1} << 40;

void require_limits(const StepLimits& limits) {
  for (const int64_t limit :
       {limits.max_tokens, limits.max_logit_rows, limits.max_context, limits.hidden_size,
        limits.vocab_size, limits.num_heads, limits.head_dim, limits.mlp_intermediate_size,
        limits.expert_intermediate_size, limits.num_experts, limits.top_k,
        limits.num_low_bit_experts}) {
    AUGUR_REQUIRE(limit >= 0 && limit <= kLargestLimit, "a step limit is " + std::to_string(limit));
  }
}

int64_t checked_product(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (int64_t factor : factors) {
    AUGUR_REQUIRE(!__builtin_mul_overflow(product, factor, &product), "scratch is too large");
  }
  return product;
}

// Hands out 64-byte aligned pieces of one block; with no block it only counts.
class Cutter {
 public:
  explicit Cutter(std::byte* base) : base_(base) {}

  template <typename T>
  T* take(int64_t count) {
    const int64_t offset = num_bytes_;
    const int64_t num_bytes = checked_product({count, static_cast<int64_t>(sizeof(T))});
    AUGUR_REQUIRE(num_bytes <= INT64_MAX - 64 - offset, "scratch is too large");
    num_bytes_ = (offset + num_bytes + 63) / 64 * 64;
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + offset);
  }
  int64_t num_bytes() const { return num_bytes_; }

 private:
  std::byte* const base_;
  int64_t num_bytes_ = 0;
};

}  // namespace

ReferenceScratch::ReferenceScratch(const StepLimits& limits, int num_threads)
    : limits_(limits), memory_(allocate_host(num_bytes(limits, num_threads))) {
  lay_out(limits, num_threads, memory_.data());
}

int64_t ReferenceScratch::num_bytes(const StepLimits& limits, int num_threads) {
  return ReferenceScratch().lay_out(limits, num_threads, nullptr);
}

int64_t ReferenceScratch::lay_out(const StepLimits& limits, int num_threads, std::byte* base) {
  require_limits(limits);
  Cutter cutter(base);
  const int64_t slab_rows = std::min(limits.max_tokens, kSlabRows);
  const int64_t slab_choices = checked_product({slab_rows, limits.top_k});
  max_cols_ = std::max({limits.hidden_size, checked_product({limits.num_heads, limits.head_dim}),
                        limits.mlp_intermediate_size, limits.expert_intermediate_size});
  panel_stride_ = panel_floats(max_cols_);
  scores_stride_ = limits.max_context;
  panels_ = cutter.take<float>(checked_product({panel_stride_, num_threads}));
  scores_ = cutter.take<float>(checked_product({scores_stride_, num_threads}));
  intermediate_ = cutter.take<float>(
      std::max(checked_product({slab_rows, limits.mlp_intermediate_size}),
               checked_product({slab_choices, limits.expert_intermediate_size})));
  expert_outputs_ = cutter.take<float>(checked_product({slab_choices, limits.hidden_size}));
  sorted_tokens_ = cutter.take<int32_t>(slab_choices);
  sorted_choices_ = cutter.take<int32_t>(slab_choices);
  const int64_t num_choosable = limits.num_experts + limits.num_low_bit_experts;
  expert_starts_ = cutter.take<int32_t>(num_choosable + 1);
  active_experts_ = cutter.take<int32_t>(num_choosable);
  const int64_t row_bytes = std::max(sample_scratch_bytes(limits.vocab_size, num_threads),
                                     logprobs_scratch_bytes(limits.vocab_size, num_threads));
  row_scratch_ = {cutter.take<std::byte>(row_bytes), static_cast<size_t>(row_bytes)};
  return cutter.num_bytes();
}

}  // namespace augur::cpu
