// The whole engine: start-up, single-stream decode and scoring of one model, each beside its bound.
//
// AUGUR_BENCH_MODEL names the model's folder (default: the demo model), AUGUR_BENCH_TEXT the JSONL
// file to score (default: tests/data/eval.jsonl). Bandwidth and arithmetic peak are measured in the
// same run, right before what they bound: on a shared machine they move.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/cpu_peak.h"
#include "engine/model/model_loader.h"
#include "engine/schedule/engine.h"
#include "kernels/cpu/worker_pool.h"

namespace augur {
namespace {

std::string environment_or(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : fallback;
}

EngineConfig bench_config() {
  EngineConfig config;
  config.model.path = environment_or("AUGUR_BENCH_MODEL", demo_model_folder().string());
  config.kv_cache.bytes = int64_t{256} << 20;
  return config;
}

LoadedModel& bench_model() {
  static const std::unique_ptr<LoadedModel> model = load_model(bench_config(), {});
  return *model;
}

int num_threads() {
  return static_cast<int>(std::thread::hardware_concurrency());
}

// Weights that one token of a single stream reads, as bf16: all but the embedding's other rows and
// the experts that were not chosen.
int64_t weight_values_per_token(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const AttentionConfig& attention = config.attention;
  const int64_t attention_values =
      hidden * attention.head_dim * (2 * attention.num_heads + 2 * attention.num_kv_heads);
  int64_t values = config.vocab_size * hidden;
  for (const LayerKind kind : config.layers) {
    const int64_t width =
        kind == LayerKind::kDense
            ? config.dense_intermediate_size
            : config.moe.top_k * config.moe.intermediate_size + config.moe.shared_intermediate_size;
    values += attention_values + 3 * hidden * width;
  }
  return values;
}

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void BM_Start(benchmark::State& state) {
  int64_t stored_bytes = 0;
  for (auto _ : state) {
    LoadListener listener;
    listener.on_progress = [&](int64_t, int64_t total) { stored_bytes = total; };
    const auto model = load_model(bench_config(), listener);
    benchmark::DoNotOptimize(model.get());
  }
  state.SetBytesProcessed(state.iterations() * stored_bytes);
}
BENCHMARK(BM_Start)->Unit(benchmark::kMillisecond)->UseRealTime();

void BM_Decode(benchmark::State& state) {
  LoadedModel& model = bench_model();
  cpu::WorkerPool pool(num_threads());
  const double bandwidth = cpu::read_bandwidth(pool);
  Engine engine({.max_batch_size = 1}, *model.decoder, /*tokenizer=*/nullptr);
  int64_t num_requests = 0;
  const auto submit = [&] {
    Request request;
    request.id = std::to_string(num_requests++);
    request.prompt_ids = {1, 2, 3, 4, 5, 6, 7, 8};
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.sampling.max_tokens = 256;
    engine.submit(std::move(request));
    engine.step();  // the prompt
  };
  submit();
  double seconds = 0;
  for (auto _ : state) {
    if (engine.num_running() == 0) {
      state.PauseTiming();
      submit();
      state.ResumeTiming();
    }
    const Clock::time_point start = Clock::now();
    engine.step();
    seconds += seconds_since(start);
  }
  const auto bytes = static_cast<double>(2 * weight_values_per_token(model.config()));
  const double rate = static_cast<double>(state.iterations()) / seconds;
  state.counters["tokens/s"] = rate;
  state.counters["GB/token"] = bytes * 1e-9;
  state.counters["GB/s_bound"] = bandwidth * 1e-9;
  state.counters["share"] = rate * bytes / bandwidth;
}
BENCHMARK(BM_Decode)->Unit(benchmark::kMillisecond)->UseRealTime();

std::vector<std::vector<int32_t>> documents_to_score(const LoadedModel& model) {
  std::ifstream lines(
      environment_or("AUGUR_BENCH_TEXT", AUGUR_SOURCE_DIR "/tests/data/eval.jsonl"));
  std::vector<std::vector<int32_t>> documents;
  for (std::string line; std::getline(lines, line);) {
    documents.push_back(model.tokenizer->encode(boost::json::parse(line).at("text").as_string()));
    documents.back().resize(std::min<size_t>(documents.back().size(), 1024));
  }
  // As augur-score does: documents of like length together.
  std::stable_sort(documents.begin(), documents.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  return documents;
}

void BM_Score(benchmark::State& state) {
  LoadedModel& model = bench_model();
  if (!model.tokenizer) {
    state.SkipWithError("the model has no tokenizer");
    return;
  }
  const auto documents = documents_to_score(model);
  cpu::WorkerPool pool(num_threads());
  const double peak = cpu::peak_flops(cpu::best_isa(), pool);
  int64_t num_tokens = 0;
  const Clock::time_point start = Clock::now();
  for (auto _ : state) {
    const auto& limits = model.decoder->limits();
    Engine engine({.max_batch_size = limits.max_seqs, .max_tokens_per_step = limits.max_tokens},
                  *model.decoder, /*tokenizer=*/nullptr);
    for (size_t i = 0; i < documents.size(); ++i) {
      Request request;
      request.id = std::to_string(i);
      request.prompt_ids = documents[i];
      request.sampling.max_tokens = 0;
      request.score_prompt = true;
      num_tokens += static_cast<int64_t>(documents[i].size());
      engine.submit(std::move(request));
    }
    while (engine.step()) {
    }
  }
  const double rate = static_cast<double>(num_tokens) / seconds_since(start);
  const auto flops = static_cast<double>(2 * weight_values_per_token(model.config()));
  state.counters["tokens/s"] = rate;
  state.counters["MFLOP/token"] = flops * 1e-6;  // products with weights; attention comes on top
  state.counters["GFLOP/s_bound"] = peak * 1e-9;
  state.counters["share"] = rate * flops / peak;
}
BENCHMARK(BM_Score)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace augur

BENCHMARK_MAIN();
