// Making the int8 form of an expert of the shape of Qwen3-30B-A3B, one thread, experts in turn that
// no cache holds: bytes of bf16 read per second, against what one thread reads at most.
#include <benchmark/benchmark.h>

#include "bench/cpu_peak.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/worker_pool.h"

namespace augur {
namespace {

constexpr int64_t kNumExperts = 16;  // 150 MB of bf16

void quantize_bench(benchmark::State& state) {
  const auto ops = make_cpu_ops(/*num_threads=*/1);
  const ExpertLayout bf16 = expert_layout(*ops, 2048, 768);
  const ExpertLayout int8 = expert_layout(*ops, 2048, 768, ExpertFormat::kInt8);
  Buffer from = ops->allocate(kNumExperts * bf16.block_bytes);
  Buffer to = ops->allocate(kNumExperts * int8.block_bytes);
  ops->fill_random(from.data(), from.num_bytes(), 0.02f, 1);
  cpu::WorkerPool alone(1);
  const double bandwidth = cpu::read_bandwidth(alone);
  const auto quantize = [&](int64_t expert) {
    ops->quantize_expert(bf16, from.data() + expert * bf16.block_bytes, int8,
                         to.data() + expert * int8.block_bytes);
  };
  // The first touch of fresh memory is the kernel's work.
  for (int64_t expert = 0; expert < kNumExperts; ++expert) quantize(expert);
  int64_t expert = 0;
  for (auto _ : state) quantize(expert++ % kNumExperts);
  using benchmark::Counter;
  const auto bytes = static_cast<double>(bf16.block_bytes);
  state.counters["bytes_per_second"] = Counter(bytes, Counter::kIsIterationInvariantRate);
  state.counters["of_read_bandwidth"] =
      Counter(bytes / bandwidth, Counter::kIsIterationInvariantRate);
}
BENCHMARK(quantize_bench)->Name("quantize/qwen3_30b")->UseRealTime()->MinTime(0.2);

}  // namespace
}  // namespace augur
