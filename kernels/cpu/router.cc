#include "kernels/cpu/router.h"

#include <algorithm>
#include <string>

#include "kernels/cpu/token_kernels.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

// Tokens of one chunk when there are many: four passes over the weights, from the nearest cache.
constexpr int kChunkTokens = 16;
// Fewer tokens than this a thread are shared out by experts instead.
constexpr int kFewTokens = 2 * kChunkTokens;
// Experts of one chunk when there are few tokens: 128 KiB of weights at hidden size 2048.
constexpr int kChunkExperts = 16;

int64_t padded(int64_t num_experts) {
  return (num_experts + 15) / 16 * 16;
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

void check(const RouterArgs& args) {
  AUGUR_REQUIRE(args.num_valid == nullptr, "steps are not padded here");
  AUGUR_REQUIRE(args.x.dtype == DType::kF32, "x is float32");
  AUGUR_REQUIRE(args.num_experts > 0 && args.num_groups > 0 &&
                    args.num_groups <= kMaxRouterGroups && args.num_experts % args.num_groups == 0,
                std::to_string(args.num_experts) + " experts in " +
                    std::to_string(args.num_groups) + " groups");
  AUGUR_REQUIRE(
      args.top_groups >= 1 && args.top_groups <= args.num_groups,
      std::to_string(args.top_groups) + " of " + std::to_string(args.num_groups) + " groups");
  const int num_candidates = args.num_experts / args.num_groups * args.top_groups;
  AUGUR_REQUIRE(args.top_k >= 1 && args.top_k <= num_candidates,
                "top_k is " + std::to_string(args.top_k) + " of " + std::to_string(num_candidates) +
                    " experts in the running");
  AUGUR_REQUIRE(args.logits.data == nullptr ||
                    (args.logits.dtype == DType::kF32 && args.logits.num_rows == args.x.num_rows &&
                     args.logits.num_cols == args.num_experts),
                "logits are float32 [num_tokens, num_experts]");
}

RouterTile make_tile(const RouterArgs& args, int64_t token, int64_t num_tokens) {
  RouterTile tile = {};
  tile.x = args.x.row<float>(token);
  tile.x_stride = args.x.row_stride;
  tile.weight = args.weight;
  tile.hidden_size = args.x.num_cols;
  tile.num_tokens = static_cast<int>(num_tokens);
  tile.num_experts = args.num_experts;
  return tile;
}

/// Chooses for `num_tokens` tokens whose logits are given.
void choose(const RouterArgs& args,
            const TokenKernels& kernels,
            int64_t first_token,
            int64_t num_tokens,
            const float* logits,
            int64_t logits_stride,
            float* scores) {
  RouterChoice choice = {};
  choice.correction = args.correction;
  choice.is_sigmoid = args.scoring == RouterScoring::kSigmoid;
  choice.num_experts = args.num_experts;
  choice.top_k = args.top_k;
  choice.num_groups = args.num_groups;
  choice.top_groups = args.top_groups;
  choice.normalise_top_k = args.normalise_top_k;
  choice.scaling_factor = args.scaling_factor;
  choice.scores = scores;
  choice.choice = scores + padded(args.num_experts);
  for (int64_t i = 0; i < num_tokens; ++i) {
    choice.logits = logits + i * logits_stride;
    choice.experts = args.experts + (first_token + i) * args.top_k;
    choice.forced =
        args.forced != nullptr ? args.forced + (first_token + i) * args.top_k : nullptr;
    choice.weights = args.weights + (first_token + i) * args.top_k;
    kernels.router_choose(choice);
    if (args.logits.data != nullptr) {
      std::copy_n(choice.logits, args.num_experts, args.logits.row<float>(first_token + i));
    }
  }
}

}  // namespace

int64_t router_scratch_bytes(const StepLimits& limits, int num_threads) {
  // A thread's share of the logits, and its scores and choice scores.
  return num_threads * padded(limits.num_experts) * (kFewTokens + 2) *
         static_cast<int64_t>(sizeof(float));
}

void router(const RouterArgs& args, Isa isa, WorkerPool& pool, std::byte* scratch) {
  check(args);
  const TokenKernels& kernels = token_kernels(isa);
  const int64_t num_tokens = args.x.num_rows;
  const int64_t stride = padded(args.num_experts);
  const auto scores_of = [&](int worker_idx) {
    return reinterpret_cast<float*>(scratch) + worker_idx * 2 * stride;
  };
  float* logits = scores_of(pool.num_threads());

  if (num_tokens > kFewTokens * int64_t{pool.num_threads()} || pool.num_threads() == 1) {
    const int64_t num_chunks = ceil_div(num_tokens, kChunkTokens);
    pool.parallel_for(num_chunks, [&](int64_t chunk, int worker_idx) {
      const int64_t first = chunk * kChunkTokens;
      const int64_t count = std::min<int64_t>(kChunkTokens, num_tokens - first);
      RouterTile tile = make_tile(args, first, count);
      tile.logits = logits + worker_idx * kChunkTokens * stride;
      tile.logits_stride = stride;
      kernels.router_logits(tile);
      choose(args, kernels, first, count, tile.logits, stride, scores_of(worker_idx));
    });
    return;
  }

  const int64_t num_ranges = ceil_div(args.num_experts, kChunkExperts);
  const int64_t num_chunks = ceil_div(num_tokens, kChunkTokens);
  pool.parallel_for(num_ranges * num_chunks, [&](int64_t unit, int) {
    const int64_t first = unit / num_ranges * kChunkTokens;
    const int64_t expert = unit % num_ranges * kChunkExperts;
    RouterTile tile = make_tile(args, first, std::min<int64_t>(kChunkTokens, num_tokens - first));
    tile.weight += expert * tile.hidden_size;
    tile.num_experts =
        static_cast<int>(std::min<int64_t>(kChunkExperts, args.num_experts - expert));
    tile.logits = logits + first * stride + expert;
    tile.logits_stride = stride;
    kernels.router_logits(tile);
  });
  pool.parallel_for(ceil_div(num_tokens, 4), [&](int64_t chunk, int worker_idx) {
    const int64_t first = chunk * 4;
    choose(args, kernels, first, std::min<int64_t>(4, num_tokens - first), logits + first * stride,
           stride, scores_of(worker_idx));
  });
}

}  // namespace augur::cpu
