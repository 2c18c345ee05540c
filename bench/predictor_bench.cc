// What predictors cost per layer, at the shape of Qwen3-30B-A3B: 48 layers, 128 experts, top-8,
// hidden size 2048. One iteration is one layer: its routing is observed and `distances` later
// layers are asked about. The gate's bound is reading the gates from memory, whose rate is measured
// at start.
//
// With --trace FILE (docs/augur-replay.md) it prints first how many experts of recorded tokens
// were guessed.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "prefetch/gate_lookahead.h"
#include "prefetch/prefetch_planner.h"
#include "prefetch/prompt_signature.h"
#include "prefetch/recency.h"
#include "prefetch/transition_table.h"
#include "tools/replay/predictor_replay.h"

namespace augur {
namespace {

constexpr int kNumLayers = 48;
constexpr int kNumExperts = 128;
constexpr int kTopK = 8;
constexpr int kHidden = 2048;
constexpr int kWidth = 2 * kTopK;
constexpr int kMaxDistance = 4;

MoeLayers all_layers() {
  std::vector<int> layers(kNumLayers);
  std::iota(layers.begin(), layers.end(), 0);
  return MoeLayers(layers, kNumExperts);
}

/// A step of `num_rows` decoding sequences with random routing of every layer.
class RandomStep {
 public:
  explicit RandomStep(int64_t num_rows)
      : token_ids_(num_rows, 1),
        positions_(num_rows, 1),
        sequence_of_row_(num_rows),
        sequence_ids_(num_rows),
        gate_input_(num_rows * kHidden) {
    std::mt19937 random(1);
    std::iota(sequence_of_row_.begin(), sequence_of_row_.end(), 0);
    std::iota(sequence_ids_.begin(), sequence_ids_.end(), 0);
    std::normal_distribution<float> normal;
    for (float& value : gate_input_) value = normal(random);
    std::vector<int32_t> experts(kNumExperts);
    std::iota(experts.begin(), experts.end(), 0);
    for (int64_t row = 0; row < kNumLayers * num_rows; ++row) {
      std::shuffle(experts.begin(), experts.end(), random);
      experts_.insert(experts_.end(), experts.begin(), experts.begin() + kTopK);
    }
    rows_.num_tokens = num_rows;
    rows_.num_decode_tokens = num_rows;
    rows_.token_ids = token_ids_;
    rows_.positions = positions_;
    rows_.sequence_of_row = sequence_of_row_;
    rows_.sequence_ids = sequence_ids_;
  }

  const StepRows& rows() const { return rows_; }
  RoutingView routing(int layer) {
    RoutingView view;
    view.layer_idx = layer;
    view.num_tokens = rows_.num_tokens;
    view.top_k = kTopK;
    view.experts = experts_.data() + layer * rows_.num_tokens * kTopK;
    view.gate_input = dense(gate_input_.data(), DType::kF32, rows_.num_tokens, kHidden);
    return view;
  }

 private:
  std::vector<int32_t> token_ids_, positions_, sequence_of_row_;
  std::vector<int64_t> sequence_ids_;
  std::vector<float> gate_input_;
  std::vector<int32_t> experts_;  // [layers, rows, top_k]
  StepRows rows_;
};

/// Gates of all layers: 48 MiB, more than the caches hold.
struct Gates {
  Gates() : ops(make_cpu_ops(1)), weights(size_t{kNumLayers} * kNumExperts * kHidden) {
    StepLimits limits;
    limits.max_tokens = 64;
    limits.max_seqs = 64;
    limits.max_logit_rows = 64;
    limits.max_context = 64;
    limits.hidden_size = kHidden;
    limits.vocab_size = 64;
    limits.num_heads = 1;
    limits.num_kv_heads = 1;
    limits.head_dim = 64;
    limits.expert_intermediate_size = 64;
    limits.num_experts = kNumExperts;
    limits.top_k = kTopK;
    ops->reserve(limits);
    std::mt19937 random(2);
    for (float& weight : weights) weight = static_cast<float>(random() % 2000) * 1e-3f - 1;
    for (int layer = 0; layer < kNumLayers; ++layer) {
      gates.push_back({layer, weights.data() + int64_t{layer} * kNumExperts * kHidden, nullptr});
    }
  }
  std::unique_ptr<Predictor> make() {
    GateRules rules;
    rules.num_experts = kNumExperts;
    return std::make_unique<GateLookahead>(*ops, rules, gates);
  }

  std::unique_ptr<Ops> ops;
  std::vector<float> weights;
  std::vector<LayerGate> gates;
};

std::unique_ptr<Predictor> make_predictor(const std::string& name, const MoeLayers& layers) {
  if (name == "transition") return std::make_unique<TransitionTable>(layers, kMaxDistance);
  if (name == "recency") return std::make_unique<Recency>(layers, Recency::Options{});
  return std::make_unique<PromptSignature>(layers, PromptSignature::Options{});
}

void run_layers(benchmark::State& state, Predictor& predictor) {
  const int64_t num_rows = state.range(0);
  const int num_distances = static_cast<int>(state.range(1));
  RandomStep step(num_rows);
  std::vector<int32_t> experts(num_rows * kWidth);
  const Guesses guesses = {experts, num_rows, kWidth};
  int layer = kNumLayers;
  for (auto _ : state) {
    if (layer == kNumLayers) {
      predictor.on_step_end();
      predictor.on_step(step.rows());
      layer = 0;
    }
    predictor.on_routing(step.routing(layer));
    for (int d = 1; d <= num_distances && layer + d < kNumLayers; ++d) {
      std::fill(experts.begin(), experts.end(), -1);
      predictor.predict(layer + d, guesses);
    }
    benchmark::DoNotOptimize(experts.data());
    ++layer;
  }
}

void BM_Predictor(benchmark::State& state, const std::string& name) {
  const auto predictor = make_predictor(name, all_layers());
  run_layers(state, *predictor);
}

double read_bytes_a_second = 0;

void BM_GateLookahead(benchmark::State& state) {
  Gates gates;
  const auto predictor = gates.make();
  const auto start = std::chrono::steady_clock::now();
  run_layers(state, *predictor);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const double bytes = 4.0 * kNumExperts * kHidden * static_cast<double>(state.range(1));
  state.SetBytesProcessed(static_cast<int64_t>(bytes) * state.iterations());
  state.counters["of_bound"] =
      bytes * static_cast<double>(state.iterations()) / read_bytes_a_second / elapsed.count();
}

/// Takes nothing: what is left is the planner's own work and its predictors'.
class ResidentSink final : public PrefetchSink {
 public:
  ExpertPlace place(ExpertKey) const override { return ExpertPlace::kResident; }
  bool prefetch(ExpertKey, FetchPriority, double) override { return false; }
  void on_stale(ExpertKey) override {}
};

/// Without the gate: transition, recency and prompt signature.
void BM_Planner(benchmark::State& state) {
  std::vector<std::unique_ptr<Predictor>> predictors;
  for (const char* name : {"transition", "recency", "prompt_signature"}) {
    predictors.push_back(make_predictor(name, all_layers()));
  }
  PrefetchPlanner::Options options;
  options.width = kWidth;
  options.max_distance = static_cast<int>(state.range(1));
  ResidentSink sink;
  PrefetchPlanner planner(all_layers(), std::move(predictors), /*expert_bytes=*/1 << 20, options,
                          sink, /*budget=*/nullptr);
  RandomStep step(state.range(0));
  int layer = kNumLayers;
  for (auto _ : state) {
    if (layer == kNumLayers) {
      planner.on_step_end();
      planner.on_step(step.rows());
      layer = 0;
    }
    planner.on_routing(step.routing(layer++));
  }
}

void arguments(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "distances"})->ArgsProduct({{1, 8}, {1, 4}});
  bench->Unit(benchmark::kMicrosecond);
}
BENCHMARK_CAPTURE(BM_Predictor, transition, "transition")->Apply(arguments);
BENCHMARK_CAPTURE(BM_Predictor, recency, "recency")->Apply(arguments);
BENCHMARK_CAPTURE(BM_Predictor, prompt_signature, "prompt_signature")->Apply(arguments);
BENCHMARK(BM_GateLookahead)->Apply(arguments);
BENCHMARK(BM_Planner)->Apply(arguments);

/// Bytes a second of one core reading what no cache holds.
double measure_read_rate() {
  std::vector<float> values(size_t{64} << 20, 1.0f);
  double best = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    float sums[64] = {};
    for (size_t i = 0; i < values.size(); i += 64) {
      for (size_t lane = 0; lane < 64; ++lane) sums[lane] += values[i + lane];
    }
    benchmark::DoNotOptimize(sums);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(values.size() * sizeof(float)) / seconds.count());
  }
  return best;
}

void print_recalls(const std::string& path) {
  const RoutingTrace trace = read_routing_trace(path);
  PredictorReplayOptions options;
  options.max_distance = kMaxDistance;
  fmt::print("{}: {} tokens, {} layers, {} experts\n", path, trace.tokens.size(), trace.num_layers,
             trace.num_experts);
  for (const bool is_late : {false, true}) {
    options.first_counted_token = is_late ? static_cast<int64_t>(trace.tokens.size()) / 2 : 0;
    fmt::print("recall at k / 2k of generated tokens{}, by distance in layers\n",
               is_late ? " of the second half" : "");
    for (const char* name : {"transition", "recency", "prompt_signature"}) {
      const auto predictor = make_predictor(name, moe_layers_of(trace));
      fmt::print("{:>18}", name);
      for (const RecallCount& recall : replay_predictor(trace, *predictor, options)) {
        fmt::print("   {:.3f} / {:.3f}", recall.at_k(), recall.at_2k());
      }
      fmt::print("\n");
    }
  }
}

}  // namespace
}  // namespace augur

int main(int argc, char** argv) {
  std::vector<char*> left;
  std::string trace;
  for (int i = 0; i < argc; ++i) {
    if (std::strcmp(argv[i], "--trace") == 0 && i + 1 < argc) {
      trace = argv[++i];
    } else {
      left.push_back(argv[i]);
    }
  }
  int num_left = static_cast<int>(left.size());
  benchmark::Initialize(&num_left, left.data());
  if (benchmark::ReportUnrecognizedArguments(num_left, left.data())) return 1;
  try {
    if (!trace.empty()) augur::print_recalls(trace);
  } catch (const std::exception& error) {
    fmt::print(stderr, "augur_predictor_bench: {}\n", error.what());
    return 1;
  }
  augur::read_bytes_a_second = augur::measure_read_rate();
  fmt::print("one core reads memory at {:.1f} GB/s\n", augur::read_bytes_a_second * 1e-9);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
