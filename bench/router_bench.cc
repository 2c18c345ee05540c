// The gate. `core_time_per_token` is what one core needs; `of_bound` is the share of the float32
// products that a core can do, measured at start. With one token the bytes a second tell more: they
// are those of the weights, which lie in a cache here.
#include <benchmark/benchmark.h>
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "kernels/cpu/router.h"

namespace augur::cpu {
namespace {

/// float32 operations a second of one core: independent fused products, 32 operations each.
__attribute__((target("avx512f"))) double product_rate() {
  constexpr int kSums = 16;
  constexpr int kRounds = 100'000;
  __m512 sums[kSums];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  const __m512 ones = _mm512_set1_ps(1.0f);
  double best = 0;
  for (int repeat = 0; repeat < 50; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 16
      for (int i = 0; i < kSums; ++i) {
        sums[i] = _mm512_fmadd_ps(ones, ones, sums[i]);
        asm volatile("" : "+v"(sums[i]));
      }
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, 32.0 * kSums * kRounds / seconds.count());
  }
  return best;
}

void BM_Router(benchmark::State& state) {
  const int64_t num_tokens = state.range(0);
  const int64_t hidden_size = state.range(1);
  const int num_experts = static_cast<int>(state.range(2));
  const int top_k = static_cast<int>(state.range(3));
  const int num_threads = static_cast<int>(state.range(4));
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> x(num_tokens * hidden_size), weight(num_experts * hidden_size);
  for (float& value : x) value = uniform(random);
  for (float& value : weight) value = uniform(random);
  std::vector<int32_t> experts(num_tokens * top_k);
  std::vector<float> weights(num_tokens * top_k);
  RouterArgs args;
  args.x = dense(x.data(), DType::kF32, num_tokens, hidden_size);
  args.weight = weight.data();
  args.num_experts = num_experts;
  args.top_k = top_k;
  args.experts = experts.data();
  args.weights = weights.data();
  StepLimits limits;
  limits.num_experts = num_experts;
  std::vector<std::byte> scratch(router_scratch_bytes(limits, num_threads) + 64);
  std::byte* aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
  WorkerPool pool(num_threads);
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) router(args, best_isa(), pool, aligned);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;

  const double rounds = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["core_time_per_token"] = Counter(
      rounds * static_cast<double>(num_tokens) / num_threads, Counter::kIsRate | Counter::kInvert);
  state.SetBytesProcessed(state.iterations() * num_experts * hidden_size * 4);
  if (has_isa(Isa::kAvx512)) {
    static const double operations_a_second = product_rate();
    const double operations =
        2.0 * static_cast<double>(num_tokens * num_experts) * static_cast<double>(hidden_size);
    state.counters["of_bound"] =
        rounds * operations / operations_a_second / num_threads / elapsed.count();
  }
}
BENCHMARK(BM_Router)
    ->ArgNames({"tokens", "hidden", "experts", "top_k", "threads"})
    ->Args({512, 256, 32, 4, 1})
    ->Args({512, 256, 32, 4, 2})
    ->Args({256, 2048, 128, 8, 1})
    ->Args({1, 256, 32, 4, 1})
    ->Args({1, 2048, 128, 8, 1})
    ->Args({1, 2048, 128, 8, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace augur::cpu
