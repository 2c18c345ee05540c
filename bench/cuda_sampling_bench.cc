// Drawing tokens and log-probabilities of rows of 151,936 logits, against reading them once.
#include <algorithm>
#include <random>
#include <vector>

#include "bench/gpu_timer.h"
#include "bench/l2_flush.h"
#include "kernels/cuda/logprobs.h"
#include "kernels/cuda/sampler.h"

namespace augur::bench {
namespace {

constexpr int64_t kVocab = 151936;

// Normal logits with a deviation of 3: at temperature 1 half of the probability lies on some
// hundred tokens.
class Rows {
 public:
  explicit Rows(int64_t num_rows) : memory_(cuda::allocate_device(num_rows * kVocab * 4)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0f, 3.0f);
    std::vector<float> row(kVocab);
    for (int64_t i = 0; i < num_rows; ++i) {
      for (float& logit : row) logit = i < 8 ? normal(random) : logit;  // eight different rows
      AUGUR_CUDA(cudaMemcpy(memory_.as<float>() + i * kVocab, row.data(), kVocab * 4,
                            cudaMemcpyHostToDevice));
    }
    logits = dense(memory_.data(), DType::kF32, num_rows, kVocab);
  }
  Tensor logits;

 private:
  Buffer memory_;
};

// Draws are queued one after the other behind a read that clears L2, each from rows not read
// since, and timed together: the sampler's own events keep it out of a graph.
double seconds_of_draw(cuda::DeviceSampler& sampler,
                       const Rows& rows,
                       std::vector<SamplingRow>& settings,
                       int32_t* token_ids) {
  constexpr int kRuns = 7;
  constexpr int kDraws = 20;
  constexpr int64_t kFlushBytes = int64_t{256} << 20;
  const auto num_rows = static_cast<int64_t>(settings.size());
  const cuda::Stream stream = cuda::make_stream();
  const cuda::Event start = cuda::make_event();
  const cuda::Event stop = cuda::make_event();
  const Buffer flush = cuda::allocate_device(kFlushBytes);
  std::vector<float> run_ms(kRuns);
  for (float& ms : run_ms) {
    read_all(flush.data(), kFlushBytes, stream.get());
    AUGUR_CUDA(cudaEventRecord(start.get(), stream.get()));
    for (int draw = 0; draw < kDraws; ++draw) {
      const int64_t first = draw * num_rows % (rows.logits.num_rows - num_rows + 1);
      sampler.sample({rows.logits.rows(first, num_rows), settings, token_ids}, stream.get());
    }
    AUGUR_CUDA(cudaEventRecord(stop.get(), stream.get()));
    AUGUR_CUDA(cudaEventSynchronize(stop.get()));
    AUGUR_CUDA(cudaEventElapsedTime(&ms, start.get(), stop.get()));
  }
  std::sort(run_ms.begin(), run_ms.end());
  return 1e-3 * run_ms[kRuns / 2] / kDraws;
}

void run_sample(benchmark::State& state, const SamplingRow& settings) {
  if (!has_gpu()) return;
  const int64_t num_rows = state.range(0);
  const Rows rows(num_rows <= 32 ? 20 * num_rows : 3 * num_rows);
  cuda::DeviceSampler sampler({num_rows, kVocab, 1 << 20});
  const Buffer ids = cuda::allocate_device(num_rows * 4);
  std::vector<SamplingRow> all(num_rows, settings);
  for (int64_t i = 0; i < num_rows; ++i) all[i].draw_idx = i;
  double seconds = 0;
  for (auto _ : state) {
    seconds = seconds_of_draw(sampler, rows, all, ids.as<int32_t>());
    state.SetIterationTime(seconds);
  }
  const auto num_bytes = static_cast<double>(
      cuda::bytes_moved(SampleArgs{rows.logits.rows(0, num_rows), all, nullptr}));
  const double bound = num_bytes / gpu_peak().bytes_per_second;
  state.counters["us"] = seconds * 1e6;
  state.counters["bound_us"] = bound * 1e6;
  state.counters["TB/s"] = num_bytes / seconds * 1e-12;
  state.counters["%bound"] = 100 * bound / seconds;
}

void BM_Greedy(benchmark::State& state) {
  run_sample(state, {.temperature = 0});
}
void BM_Temperature(benchmark::State& state) {
  run_sample(state, {.temperature = 0.8f});
}
void BM_TopKTopP(benchmark::State& state) {
  run_sample(state, {.top_k = 50, .top_p = 0.9f});
}
// 0.9 of the probability lies on a few tokens, on some thousands, and on most.
void BM_TopPNarrow(benchmark::State& state) {
  run_sample(state, {.temperature = 0.5f, .top_p = 0.9f});
}
void BM_TopPWide(benchmark::State& state) {
  run_sample(state, {.top_p = 0.9f});
}
void BM_TopPFlat(benchmark::State& state) {
  run_sample(state, {.temperature = 3, .top_p = 0.9f});
}
void BM_MinP(benchmark::State& state) {
  run_sample(state, {.min_p = 0.05f});
}
void BM_Penalties(benchmark::State& state) {
  std::vector<int32_t> output(2000);
  for (size_t i = 0; i < output.size(); ++i) output[i] = static_cast<int32_t>(i * 977 % kVocab);
  run_sample(state, {.top_k = 50, .top_p = 0.9f, .frequency_penalty = 0.5f, .output_ids = output});
}

void BM_Logprobs(benchmark::State& state) {
  if (!has_gpu()) return;
  const int64_t num_rows = state.range(0);
  const Rows rows(num_rows);
  const auto top_n = static_cast<int>(state.range(1));
  const Buffer ids = cuda::allocate_device(num_rows * 4);
  AUGUR_CUDA(cudaMemset(ids.data(), 0, num_rows * 4));
  const Buffer target_logprob = cuda::allocate_device(num_rows * 4);
  const Buffer top_ids = cuda::allocate_device(num_rows * top_n * 4);
  const Buffer top_logprobs = cuda::allocate_device(num_rows * top_n * 4);
  const LogprobsArgs args = {rows.logits, ids.as<int32_t>(),     target_logprob.as<float>(),
                             top_n,       top_ids.as<int32_t>(), top_logprobs.as<float>()};
  run_gpu_benchmark(state, static_cast<double>(cuda::bytes_moved(args)), 0,
                    [&](cudaStream_t stream, int) { cuda::logprobs(args, stream); });
}

#define AUGUR_SAMPLING_BENCH(name) \
  BENCHMARK(name)->ArgName("rows")->Arg(1)->Arg(32)->Arg(256)->UseManualTime()->Iterations(1)
AUGUR_SAMPLING_BENCH(BM_Greedy);
AUGUR_SAMPLING_BENCH(BM_Temperature);
AUGUR_SAMPLING_BENCH(BM_TopKTopP);
AUGUR_SAMPLING_BENCH(BM_TopPNarrow);
AUGUR_SAMPLING_BENCH(BM_TopPWide);
AUGUR_SAMPLING_BENCH(BM_TopPFlat);
AUGUR_SAMPLING_BENCH(BM_MinP);
AUGUR_SAMPLING_BENCH(BM_Penalties);
BENCHMARK(BM_Logprobs)
    ->ArgNames({"rows", "top_n"})
    ->ArgsProduct({{1, 32, 256, 2048}, {0, 5}})
    ->UseManualTime()
    ->Iterations(1);

}  // namespace
}  // namespace augur::bench
