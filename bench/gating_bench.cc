// The gate at the shapes of known models: its scores, the choice of the best, and both.
//
// Scores of few rows are bound by reading the router's float32 weights: `of_read` is the share of
// the rate at which the same threads read memory, measured at start. Weights rotate through more
// memory than the caches hold, as a model's layers do; `warm` repeats one layer, whose weights then
// lie in a cache. Many rows are bound by arithmetic: `of_peak` is the share of the float32 products
// that the cores can do. The choice reads what fits the nearest cache and has no bound of the
// machine; `per_row` says what it costs.
#include <benchmark/benchmark.h>
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/cpu_peak.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/router.h"
#include "kernels/cpu/token_kernels.h"

namespace augur::cpu {
namespace {

struct Shape {
  const char* name;
  int64_t hidden_size;
  int num_experts;
  int top_k;
  int num_groups = 1;
  int top_groups = 1;
  RouterScoring scoring = RouterScoring::kSoftmax;
};
constexpr Shape kShapes[] = {
    {"qwen3_30b", 2048, 128, 8},
    {"glm_4.5_air", 4096, 128, 8, 1, 1, RouterScoring::kSigmoid},
    {"deepseek_v3", 7168, 256, 8, 8, 4, RouterScoring::kSigmoid},
    {"mixtral", 4096, 8, 2},
    {"demo", 256, 32, 4, 1, 1, RouterScoring::kSigmoid},
};
constexpr int64_t kRows[] = {1, 8, 64};
constexpr int64_t kColdBytes = int64_t{256} << 20;  // several times the last cache

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

/// Of the machine, with as many threads.
struct Bounds {
  double read_rate = 0;     // bytes a second
  double product_rate = 0;  // float32 operations a second; 0: not known
};

/// Random values that the routers of all shapes are taken from.
const float* weights() {
  static const Buffer buffer = [] {
    Buffer made = allocate_host(kColdBytes);
    std::mt19937 random(3);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    // A megabyte of them over and over: what the values are does not matter for time.
    constexpr int64_t kPieceBytes = 1 << 20;
    std::vector<float> piece(kPieceBytes / sizeof(float));
    for (float& value : piece) value = uniform(random);
    for (int64_t at = 0; at < kColdBytes; at += kPieceBytes) {
      std::memcpy(made.data() + at, piece.data(), kPieceBytes);
    }
    return made;
  }();
  return buffer.as<float>();
}

class Gate {
 public:
  Gate(const Shape& shape, int64_t num_rows, int num_threads)
      : shape_(shape),
        pool_(num_threads),
        x_(num_rows * shape.hidden_size),
        correction_(shape.num_experts),
        logits_(num_rows * shape.num_experts),
        experts_(num_rows * shape.top_k),
        weights_of_choice_(num_rows * shape.top_k) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal;
    for (float& value : x_) value = normal(random);
    for (float& value : correction_) value = 0.1f * normal(random);
    for (float& value : logits_) value = normal(random);
    StepLimits limits;
    limits.num_experts = shape.num_experts;
    scratch_ = allocate_host(router_scratch_bytes(limits, num_threads));
    num_layers_ = std::max<int64_t>(1, kColdBytes / weight_bytes());
  }

  int64_t weight_bytes() const { return shape_.num_experts * shape_.hidden_size * 4; }
  int64_t num_rows() const { return std::ssize(x_) / shape_.hidden_size; }

  /// The whole gate. Every call takes another layer's weights, unless warm.
  void route(bool is_warm) {
    if (!is_warm) layer_ = (layer_ + 1) % num_layers_;
    RouterArgs args;
    args.x = dense(x_.data(), DType::kF32, num_rows(), shape_.hidden_size);
    args.weight = weights() + layer_ * shape_.num_experts * shape_.hidden_size;
    args.correction = correction();
    args.scoring = shape_.scoring;
    args.num_experts = shape_.num_experts;
    args.top_k = shape_.top_k;
    args.num_groups = shape_.num_groups;
    args.top_groups = shape_.top_groups;
    args.experts = experts_.data();
    args.weights = weights_of_choice_.data();
    router(args, best_isa(), pool_, scratch_.data());
  }
  /// Scores of all rows on one core.
  void score() {
    layer_ = (layer_ + 1) % num_layers_;
    RouterTile tile = {};
    tile.x = x_.data();
    tile.x_stride = shape_.hidden_size;
    tile.weight = weights() + layer_ * shape_.num_experts * shape_.hidden_size;
    tile.hidden_size = shape_.hidden_size;
    tile.num_tokens = static_cast<int>(num_rows());
    tile.num_experts = shape_.num_experts;
    tile.logits = logits_.data();
    tile.logits_stride = shape_.num_experts;
    token_kernels(best_isa()).router_logits(tile);
  }
  /// The choice of all rows on one core.
  void choose() {
    RouterChoice choice = {};
    choice.correction = correction();
    choice.is_sigmoid = shape_.scoring == RouterScoring::kSigmoid;
    choice.num_experts = shape_.num_experts;
    choice.top_k = shape_.top_k;
    choice.num_groups = shape_.num_groups;
    choice.top_groups = shape_.top_groups;
    choice.normalise_top_k = true;
    choice.scaling_factor = 1;
    choice.scores = scratch_.as<float>();
    choice.choice = choice.scores + (shape_.num_experts + 15) / 16 * 16;
    for (int64_t row = 0; row < num_rows(); ++row) {
      choice.logits = logits_.data() + row * shape_.num_experts;
      choice.experts = experts_.data() + row * shape_.top_k;
      choice.weights = weights_of_choice_.data() + row * shape_.top_k;
      token_kernels(best_isa()).router_choose(choice);
    }
  }

 private:
  const float* correction() const {
    return shape_.scoring == RouterScoring::kSigmoid ? correction_.data() : nullptr;
  }

  const Shape shape_;
  WorkerPool pool_;
  std::vector<float> x_, correction_, logits_;
  std::vector<int32_t> experts_;
  std::vector<float> weights_of_choice_;
  Buffer scratch_;
  int64_t num_layers_ = 1;
  int64_t layer_ = 0;
};

/// Runs `call` once and then as often as asked, and counts.
template <typename Call>
void measure(benchmark::State& state,
             const Gate& gate,
             const Shape& shape,
             const Bounds& bounds,
             const Call& call) {
  call();
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) call();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const double seconds = elapsed.count() / static_cast<double>(state.iterations());
  const auto num_rows = static_cast<double>(gate.num_rows());
  using benchmark::Counter;
  state.counters["per_row"] = Counter(static_cast<double>(state.iterations()) * num_rows,
                                      Counter::kIsRate | Counter::kInvert);
  if (bounds.read_rate > 0) {
    state.counters["of_read"] =
        static_cast<double>(gate.weight_bytes()) / bounds.read_rate / seconds;
  }
  if (bounds.product_rate > 0) {
    const double operations =
        2.0 * num_rows * shape.num_experts * static_cast<double>(shape.hidden_size);
    state.counters["of_peak"] = operations / bounds.product_rate / seconds;
  }
}

void route_bench(
    benchmark::State& state, Shape shape, int num_threads, bool is_warm, Bounds bounds) {
  Gate gate(shape, state.range(0), num_threads);
  if (is_warm) bounds.read_rate = 0;
  measure(state, gate, shape, bounds, [&] { gate.route(is_warm); });
}

void score_bench(benchmark::State& state, Shape shape, Bounds bounds) {
  Gate gate(shape, state.range(0), /*num_threads=*/1);
  measure(state, gate, shape, bounds, [&] { gate.score(); });
}

void choose_bench(benchmark::State& state, Shape shape) {
  Gate gate(shape, state.range(0), /*num_threads=*/1);
  measure(state, gate, shape, {}, [&] { gate.choose(); });
}

benchmark::internal::Benchmark* with_rows(benchmark::internal::Benchmark* bench) {
  bench->ArgName("rows")->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int64_t num_rows : kRows) bench->Arg(num_rows);
  return bench;
}

void add_benches(const std::vector<Bounds>& bounds) {
  for (const Shape& shape : kShapes) {
    const std::string name = shape.name;
    const char* kind = shape.num_groups > 1 ? "grouped_top_k/" : "top_k/";
    with_rows(benchmark::RegisterBenchmark(("scores/" + name).c_str(), score_bench, shape,
                                           bounds.front()));
    with_rows(benchmark::RegisterBenchmark((kind + name).c_str(), choose_bench, shape));
    for (size_t i = 0; i < bounds.size(); ++i) {
      const auto num_threads = static_cast<int>(i) + 1;
      const std::string threads = "/threads:" + std::to_string(num_threads);
      with_rows(benchmark::RegisterBenchmark(("gate/" + name + threads).c_str(), route_bench, shape,
                                             num_threads, /*is_warm=*/false, bounds[i]));
    }
    with_rows(benchmark::RegisterBenchmark(("gate_warm/" + name + "/threads:1").c_str(),
                                           route_bench, shape, /*num_threads=*/1, /*is_warm=*/true,
                                           bounds.front()));
  }
}

}  // namespace
}  // namespace augur::cpu

int main(int argc, char** argv) {
  using namespace augur::cpu;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  // With one thread and with two: a gate is too small for more.
  const double products = has_isa(Isa::kAvx512) ? product_rate() : 0;
  std::vector<Bounds> bounds;
  for (const int num_threads : {1, 2}) {
    augur::cpu::WorkerPool pool(num_threads);
    bounds.push_back({read_bandwidth(pool), products * num_threads});
    std::printf("%d threads: reading %.1f GB/s, float32 products %.0f GFLOP/s\n", num_threads,
                1e-9 * bounds.back().read_rate, 1e-9 * bounds.back().product_rate);
  }
  add_benches(bounds);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
