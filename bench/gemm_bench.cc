// Products with one weight matrix: arithmetic rate against a peak measured in the same run, and
// for few tokens the rate at which weights are read against the measured bandwidth of memory.
//
// Weights rotate through copies that together exceed the caches ("cold"), as in a model larger
// than they are, or stay the same ("warm"), as in the demo model. One thread, and all.
#include <benchmark/benchmark.h>

#include <cstring>
#include <map>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "bench/cpu_peak.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/tile_layout.h"

namespace augur::cpu {
namespace {

constexpr int64_t kColdBytes = int64_t{256} << 20;

WorkerPool& pool_of(int num_threads) {
  static std::map<int, WorkerPool> pools;
  return pools.try_emplace(num_threads, num_threads).first->second;
}

double cached_peak(Isa isa, int num_threads) {
  static std::map<std::pair<Isa, int>, double> peaks;
  const auto [it, is_new] = peaks.try_emplace({isa, num_threads}, 0);
  if (is_new) it->second = peak_flops(isa, pool_of(num_threads));
  return it->second;
}

double cached_bandwidth(int num_threads) {
  static std::map<int, double> rates;
  const auto [it, is_new] = rates.try_emplace(num_threads, 0);
  if (is_new) it->second = read_bandwidth(pool_of(num_threads));
  return it->second;
}

void fill(Buffer& buffer) {
  auto* const values = buffer.as<uint16_t>();
  // Small normal numbers of either sign.
  for (int64_t i = 0; i < buffer.num_bytes() / 2; ++i) {
    values[i] = static_cast<uint16_t>(0x3c00 | (i * 40503 & 0x807f));
  }
}

void linear_bench(benchmark::State& state,
                  Isa isa,
                  int num_threads,
                  int64_t num_tokens,
                  int64_t num_rows,
                  int64_t num_cols,
                  bool is_cold) {
  WorkerPool& pool = pool_of(num_threads);
  const double peak = cached_peak(isa, num_threads);
  const double bandwidth = cached_bandwidth(num_threads);
  const int64_t weight_bytes = tiled_bytes(num_rows, num_cols);
  const int64_t num_copies = is_cold ? std::max<int64_t>(1, kColdBytes / weight_bytes) : 1;
  Buffer weights = allocate_host(weight_bytes * num_copies);
  fill(weights);
  Buffer x = allocate_host(num_tokens * num_cols * 2);
  fill(x);
  Buffer out = allocate_host(num_tokens * num_rows * 4);
  Buffer scratch = allocate_host(linear_scratch_bytes(num_tokens, num_cols, isa));
  LinearArgs args;
  args.x = dense(x.data(), DType::kBF16, num_tokens, num_cols);
  args.out = dense(out.data(), DType::kF32, num_tokens, num_rows);
  args.weight = {weights.data(), num_rows, num_cols};
  const std::span<std::byte> scratch_span = {scratch.data(),
                                             static_cast<size_t>(scratch.num_bytes())};
  linear(args, isa, pool, scratch_span);  // the first touch of fresh memory is the kernel's work
  int64_t copy_idx = 0;
  for (auto _ : state) {
    args.weight.data = weights.data() + copy_idx * weight_bytes;
    copy_idx = (copy_idx + 1) % num_copies;
    linear(args, isa, pool, scratch_span);
  }
  using benchmark::Counter;
  const double flops = 2.0 * static_cast<double>(num_tokens * num_rows * num_cols);
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  if (peak > 0) {
    state.counters["of_peak"] = Counter(flops / peak, Counter::kIsIterationInvariantRate);
  }
  if (is_cold && num_tokens <= 16) {
    state.counters["of_read_bandwidth"] =
        Counter(static_cast<double>(weight_bytes) / bandwidth, Counter::kIsIterationInvariantRate);
  }
}

struct Shape {
  const char* name;
  int64_t num_rows;
  int64_t num_cols;
  bool is_cold;
};

void register_all() {
  const int max_threads = static_cast<int>(std::thread::hardware_concurrency());
  const Shape shapes[] = {{"2048x2048", 2048, 2048, true},
                          {"2048x2048", 2048, 2048, false},
                          {"demo_qkv_512x256", 512, 256, false},
                          {"demo_lm_head_8192x256", 8192, 256, false},
                          {"demo_down_256x64", 256, 64, false}};
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (!has_isa(isa)) continue;
    for (const Shape& shape : shapes) {
      for (int num_threads : {1, max_threads}) {
        for (int64_t num_tokens : {1, 4, 16, 64, 256, 2048}) {
          const std::string name = "linear/" + std::string(isa_name(isa)) + "/" + shape.name +
                                   (shape.is_cold ? "/cold" : "/warm") +
                                   "/threads:" + std::to_string(num_threads) +
                                   "/tokens:" + std::to_string(num_tokens);
          benchmark::RegisterBenchmark(name.c_str(), linear_bench, isa, num_threads, num_tokens,
                                       shape.num_rows, shape.num_cols, shape.is_cold)
              ->UseRealTime()
              ->MinTime(0.1);
        }
        if (max_threads == 1) break;
      }
    }
  }
}

}  // namespace
}  // namespace augur::cpu

int main(int argc, char** argv) {
  augur::cpu::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (int num_threads : {1, static_cast<int>(std::thread::hardware_concurrency())}) {
    for (augur::cpu::Isa isa :
         {augur::cpu::Isa::kAvx2, augur::cpu::Isa::kAvx512, augur::cpu::Isa::kAmx}) {
      if (!augur::cpu::has_isa(isa)) continue;
      benchmark::AddCustomContext("peak GFLOP/s, " + std::string(augur::cpu::isa_name(isa)) + ", " +
                                      std::to_string(num_threads) + " threads",
                                  std::to_string(augur::cpu::cached_peak(isa, num_threads) * 1e-9));
    }
    benchmark::AddCustomContext("read GB/s, " + std::to_string(num_threads) + " threads",
                                std::to_string(augur::cpu::cached_bandwidth(num_threads) * 1e-9));
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
