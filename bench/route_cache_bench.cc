// The route cache, beside the gate it foretells (BM_Gate, one core, as all here). A look-up
// projects (BM_Project) and searches (BM_Search): that is what serving saves the gate for, and what
// a hint costs on top of it. Bytes a second are those of the weights or keys, which lie in a cache
// here: the bound is that cache's.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "cache/pca.h"
#include "cache/route_cache.h"
#include "kernels/cpu/router.h"

namespace augur {
namespace {

std::vector<float> normal_values(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

void BM_Gate(benchmark::State& state) {
  const int64_t hidden_size = state.range(0);
  const int num_experts = static_cast<int>(state.range(1));
  constexpr int kTopK = 8;
  std::vector<float> x = normal_values(hidden_size, 1);
  const std::vector<float> weight = normal_values(num_experts * hidden_size, 2);
  std::vector<int32_t> experts(kTopK);
  std::vector<float> weights(kTopK);
  RouterArgs args;
  args.x = dense(x.data(), DType::kF32, 1, hidden_size);
  args.weight = weight.data();
  args.num_experts = num_experts;
  args.top_k = kTopK;
  args.experts = experts.data();
  args.weights = weights.data();
  StepLimits limits;
  limits.num_experts = num_experts;
  std::vector<std::byte> scratch(cpu::router_scratch_bytes(limits, /*num_threads=*/1) + 64);
  std::byte* aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
  cpu::WorkerPool pool(/*num_threads=*/1);
  for (auto _ : state) cpu::router(args, cpu::best_isa(), pool, aligned);
  state.SetBytesProcessed(state.iterations() * num_experts * hidden_size * 4);
}
BENCHMARK(BM_Gate)
    ->ArgNames({"hidden", "experts"})
    ->Args({2048, 128})
    ->Args({4096, 128})
    ->Unit(benchmark::kMicrosecond);

void BM_Project(benchmark::State& state) {
  const int64_t hidden_size = state.range(0);
  const int dims = static_cast<int>(state.range(1));
  const Projection projection = Projection::random(hidden_size, dims, /*seed=*/1);
  std::vector<float> x = normal_values(hidden_size, 1);
  std::vector<float> out(projection.num_padded_dims());
  const Tensor input = dense(x.data(), DType::kF32, 1, hidden_size);
  for (auto _ : state) {
    projection.project(input, out.data());
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * projection.num_padded_dims() * hidden_size * 4);
}
BENCHMARK(BM_Project)
    ->ArgNames({"hidden", "dims"})
    ->ArgsProduct({{2048, 4096}, {3, 16, 64}})
    ->Unit(benchmark::kMicrosecond);

void BM_Search(benchmark::State& state) {
  const int num_rows = static_cast<int>(state.range(0));
  const int dims = static_cast<int>(state.range(1));
  KeyRows rows(num_rows, dims);
  const std::vector<float> values = normal_values(int64_t{num_rows + 16} * dims, 1);
  std::vector<Key> keys;
  for (int row = 0; row < num_rows + 16; ++row) keys.push_back(Key::of(&values[row * dims], dims));
  for (int row = 0; row < num_rows; ++row) rows.set(row, keys[row]);
  int64_t look_up_idx = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(rows.nearest(keys[num_rows + look_up_idx++ % 16], num_rows));
  }
  state.SetBytesProcessed(state.iterations() * KeyRows::num_bytes(num_rows, dims));
}
BENCHMARK(BM_Search)
    ->ArgNames({"rows", "dims"})
    ->ArgsProduct({{256, 1024, 4096}, {3, 16, 64}})
    ->Unit(benchmark::kMicrosecond);

// A new entry in a full layer: the oldest makes room.
void BM_Insert(benchmark::State& state) {
  const int num_rows = static_cast<int>(state.range(0));
  const int dims = static_cast<int>(state.range(1));
  RouteLayer layer(num_rows, dims, /*top_k=*/8, /*entry_experts=*/24, ThresholdLimits());
  const std::vector<float> values = normal_values(int64_t{2 * num_rows} * dims, 1);
  std::vector<RouteMatch> matches;
  const std::vector<int32_t> experts(8);
  const std::vector<float> weights(8);
  for (int row = 0; row < 2 * num_rows; ++row) {
    RouteMatch match;
    match.key = Key::of(&values[row * dims], dims);
    if (row < num_rows) layer.store(match, experts.data(), weights.data());
    matches.push_back(match);
  }
  // As after a look-up with nothing stored since, so that the insert does not search again.
  uint64_t num_writes = num_rows;
  size_t next = num_rows;
  for (auto _ : state) {
    RouteMatch& match = matches[next];
    match.num_writes = num_writes++;
    benchmark::DoNotOptimize(layer.store(match, experts.data(), weights.data()));
    next = (next + 1) % matches.size();
  }
}
BENCHMARK(BM_Insert)
    ->ArgNames({"rows", "dims"})
    ->ArgsProduct({{1024}, {16, 64}})
    ->Unit(benchmark::kMicrosecond);

// A layer of a decode step in prefetch mode: look up, compare with the gate, store.
void BM_ObserveRow(benchmark::State& state) {
  constexpr int64_t kHidden = 2048;
  constexpr int kRows = 512;
  const int capacity = static_cast<int>(state.range(0));
  RouteCacheConfig config;
  config.capacity = capacity;
  config.projection = ProjectionKind::kRandom;
  config.dims = static_cast<int>(state.range(1));
  RouteCache cache({kHidden, /*num_experts=*/128, /*top_k=*/8, {0}}, config);
  std::vector<float> inputs = normal_values(kRows * kHidden, 1);
  const std::vector<int32_t> experts = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<float> weights(8, 0.125f);
  int64_t row = 0;
  const auto observe = [&] {
    const Tensor input = dense(&inputs[row * kHidden], DType::kF32, 1, kHidden);
    row = (row + 1) % kRows;
    cache.begin_step();
    cache.observe({0, 1, 8, experts.data(), weights.data(), input, {}});
  };
  for (auto _ : state) observe();
}
BENCHMARK(BM_ObserveRow)
    ->ArgNames({"capacity", "dims"})
    ->ArgsProduct({{256}, {3, 16, 64}})
    ->Unit(benchmark::kMicrosecond);

// A sample of falling variance by dimension, as of hidden states, is what the fit is for; noise
// without structure, as here, takes it all iterations it may.
void BM_FitPca(benchmark::State& state) {
  const int64_t hidden_size = state.range(0);
  const int64_t num_samples = state.range(1);
  const int dims = static_cast<int>(state.range(2));
  std::vector<float> samples = normal_values(num_samples * hidden_size, 1);
  const bool is_structured = state.range(3) != 0;
  for (int64_t i = 0; is_structured && i < std::ssize(samples); ++i) {
    samples[i] /= static_cast<float>(1 + i % hidden_size);
  }
  int num_iterations = 0;
  for (auto _ : state) {
    num_iterations = fit_pca(samples.data(), num_samples, hidden_size, dims).num_iterations;
  }
  state.counters["iterations"] = num_iterations;
}
BENCHMARK(BM_FitPca)
    ->ArgNames({"hidden", "samples", "dims", "structured"})
    ->Args({2048, 512, 64, 1})
    ->Args({2048, 1024, 64, 1})
    ->Args({2048, 1024, 64, 0})
    ->Args({4096, 1024, 64, 1})
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace augur
