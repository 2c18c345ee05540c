// What the host spends on a step beside the model: planning, building the batch, taking results.
//
// The runner answers at once, so a step is all overhead; EngineCounters::step_us of a real run is
// what to hold it against.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/schedule/block_allocator.h"
#include "engine/schedule/engine.h"
#include "engine/schedule/prefix_cache.h"
#include "engine/text/tokenizer.h"

namespace augur {
namespace {

constexpr int64_t kVocab = 50'000;
constexpr int kBlockSize = 16;
constexpr int64_t kMaxContext = 1 << 20;

class InstantRunner : public ModelRunner {
 public:
  explicit InstantRunner(int64_t max_rows, int64_t num_blocks = 1 << 20)
      : limits_{.max_tokens = max_rows,
                .max_seqs = 4096,
                .max_context = kMaxContext,
                .num_kv_blocks = num_blocks,
                .block_size = kBlockSize,
                .vocab_size = kVocab} {}
  const Limits& limits() const override { return limits_; }
  void launch(const StepBatch& batch) override {
    sampled_ids_.clear();
    for (const LogitRow& row : batch.logit_rows) {
      sampled_ids_.push_back(batch.token_ids[row.row_idx] ^ 1);
    }
  }
  void collect(std::vector<LogitResult>& results) override {
    results.resize(sampled_ids_.size());
    for (size_t i = 0; i < results.size(); ++i) results[i].sampled_id = sampled_ids_[i];
  }

 private:
  const Limits limits_;
  std::vector<int32_t> sampled_ids_;
};

/// Byte-level, two tokens: enough to make text of any output.
Tokenizer small_tokenizer() {
  return Tokenizer::from_json(R"({
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "merges": [], "vocab": {"Ġwhich": 6, "Ġis": 7}}})",
                              "bench");
}

Request make_request(int64_t id, int64_t num_prompt) {
  Request request{.id = std::to_string(id)};
  request.prompt_ids.assign(num_prompt, 6);
  return request;
}

/// `sequences` completions running, each with `context` tokens before the first timed step.
void BM_DecodeStep(benchmark::State& state) {
  const int64_t num_sequences = state.range(0);
  const int64_t num_prompt = state.range(1);
  const bool has_text = state.range(2) != 0;
  const Tokenizer tokenizer = small_tokenizer();
  InstantRunner runner(/*max_rows=*/4096);
  Engine engine({.max_batch_size = num_sequences, .max_tokens_per_step = 4096}, runner,
                has_text ? &tokenizer : nullptr);
  int64_t num_updates = 0;
  for (int64_t i = 0; i < num_sequences; ++i) {
    Request request = make_request(i, num_prompt);
    if (has_text) {
      request.sampling.stop = {"\n\n", "which one"};
      request.on_update = [&num_updates](const RequestUpdate& update) { ++num_updates; };
    }
    request.sampling.max_tokens = 20'000;  // more than any gets to
    engine.submit(std::move(request));
  }
  while (engine.num_waiting() > 0) engine.step();
  engine.step();
  for (auto _ : state) engine.step();
  state.SetItemsProcessed(state.iterations() * num_sequences);
}
BENCHMARK(BM_DecodeStep)
    ->ArgNames({"sequences", "context", "text"})
    ->ArgsProduct({{64, 1024}, {512, 8192}, {0, 1}})
    ->Unit(benchmark::kMicrosecond)
    ->Iterations(2000);

/// 1,000 completions run and 2,000 wait for a place; none ends.
void BM_CrowdedStep(benchmark::State& state) {
  constexpr int64_t kRunning = 1000;
  constexpr int64_t kWaiting = 2000;
  InstantRunner runner(/*max_rows=*/4096);
  Engine engine({.max_batch_size = kRunning, .max_tokens_per_step = 4096}, runner, nullptr);
  for (int64_t i = 0; i < kRunning + kWaiting; ++i) {
    Request request = make_request(i, /*num_prompt=*/64);
    request.sampling.max_tokens = 20'000;  // more than any gets to
    engine.submit(std::move(request));
  }
  while (engine.num_running() < kRunning) engine.step();
  while (engine.counters().decode_tokens < 4 * kRunning) engine.step();
  for (auto _ : state) engine.step();
  if (engine.num_waiting() != kWaiting) state.SkipWithError("somebody was admitted");
  state.SetItemsProcessed(state.iterations() * kRunning);
}
BENCHMARK(BM_CrowdedStep)->Unit(benchmark::kMicrosecond)->Iterations(1000);

/// Scoring: chunks of long prompts, every row of which has logits.
void BM_ScoreStep(benchmark::State& state) {
  const int64_t num_rows = state.range(0);
  InstantRunner runner(num_rows);
  Engine engine({.max_batch_size = 64, .max_tokens_per_step = num_rows}, runner, nullptr);
  int64_t next_id = 0;
  for (auto _ : state) {
    while (engine.num_waiting() < 64) {
      Request request = make_request(next_id++, /*num_prompt=*/300);
      request.sampling.max_tokens = 0;
      request.score_prompt = true;
      engine.submit(std::move(request));
    }
    engine.step();
  }
  state.SetItemsProcessed(state.iterations() * num_rows);
}
BENCHMARK(BM_ScoreStep)->ArgName("rows")->Arg(2048)->Unit(benchmark::kMicrosecond);

/// Knows the experts of prompts by their first token.
class TableOracle : public AffinityOracle {
 public:
  static constexpr int kPrompts = 256;
  static constexpr int kTopK = 8;

  TableOracle(int num_layers, int num_experts) {
    std::mt19937 random(1);
    for (int i = 0; i < kPrompts; ++i) {
      ExpertSignature& signature = signatures_.emplace_back(num_layers, num_experts);
      std::vector<int32_t> experts(64 * kTopK);  // of a prompt of 64 tokens
      for (int layer = 0; layer < num_layers; ++layer) {
        for (int32_t& expert : experts) expert = static_cast<int32_t>(random() % num_experts);
        signature.add(layer, experts);
      }
    }
  }
  const ExpertSignature* signature_of(std::span<const int32_t> prompt_ids) override {
    return &signatures_[prompt_ids[0]];
  }

 private:
  std::vector<ExpertSignature> signatures_;
};

/// A step in which 64 run, one of them ends and one of 32 that wait is admitted. What affinity
/// costs for an admission is the difference between a window and none (0); it reads the signatures
/// of the window.
void BM_AdmitStep(benchmark::State& state) {
  constexpr int64_t kRunning = 64;
  constexpr int64_t kWaiting = 32;
  const int num_layers = static_cast<int>(state.range(0));
  const int num_experts = static_cast<int>(state.range(1));
  const int64_t window = state.range(2);
  InstantRunner runner(/*max_rows=*/4096);
  TableOracle oracle(num_layers, num_experts);
  EngineOptions options{.max_batch_size = kRunning, .max_tokens_per_step = 4096};
  if (window > 0) {
    options.policy = SchedulePolicy::kExpertAffinity;
    options.affinity = {.oracle = &oracle, .window = window};
  }
  Engine engine(options, runner, nullptr);
  int64_t next_id = 0;
  const auto submit = [&](int64_t max_tokens) {
    Request request = make_request(next_id, /*num_prompt=*/64);
    request.prompt_ids[0] = static_cast<int32_t>(next_id++ % TableOracle::kPrompts);
    request.sampling.max_tokens = max_tokens;
    engine.submit(std::move(request));
  };
  for (int64_t i = 1; i < kRunning; ++i) submit(/*max_tokens=*/20'000);  // more than any gets to
  engine.step();
  for (int64_t i = 0; i < kWaiting; ++i) submit(/*max_tokens=*/1);
  for (auto _ : state) {
    submit(/*max_tokens=*/1);
    engine.step();
  }
  if (engine.num_waiting() != kWaiting) state.SkipWithError("not one admission a step");
}
BENCHMARK(BM_AdmitStep)
    ->ArgNames({"layers", "experts", "window"})
    ->ArgsProduct({{48}, {128}, {0, 1, 16, 64}})
    ->Args({58, 256, 0})
    ->Args({58, 256, 16})
    ->Unit(benchmark::kMicrosecond)
    ->Iterations(2000);

/// A step in which 1,000 run, one of them ends and one of 2,000 that wait is admitted. Prompts have
/// 512 tokens, of which the first half is one of 16 beginnings; the cache of 100,000 blocks is full
/// of what was before.
void BM_CrowdedAdmitStep(benchmark::State& state) {
  constexpr int64_t kRunning = 1000;
  constexpr int64_t kWaiting = 2000;
  constexpr int64_t kHalf = 256;
  InstantRunner runner(/*max_rows=*/8192, /*num_blocks=*/100'000);
  EngineOptions options{.max_batch_size = kRunning,
                        .max_tokens_per_step = 8192,
                        .policy = static_cast<SchedulePolicy>(state.range(0)),
                        .fair_queueing = state.range(1) != 0,
                        .prefix_cache = state.range(2) != 0};
  Engine engine(options, runner, nullptr);
  std::mt19937 random(1);
  int64_t next_id = 0;
  const auto submit = [&](int64_t max_tokens) {
    Request request = make_request(next_id++, 2 * kHalf);
    std::fill_n(request.prompt_ids.begin(), kHalf, static_cast<int32_t>(random() % 16));
    for (int64_t i = kHalf; i < 2 * kHalf; ++i) request.prompt_ids[i] = random() % kVocab;
    request.sampling.max_tokens = max_tokens;
    request.tenant = std::to_string(next_id % 100);
    request.priority = next_id % 4;
    engine.submit(std::move(request));
  };
  const auto is_full = [&] {
    return !options.prefix_cache || engine.counters().prefix_evicted_blocks > 0;
  };
  while (!is_full()) {
    submit(/*max_tokens=*/1);
    engine.step();
  }
  while (engine.step()) continue;
  for (int64_t i = 1; i < kRunning; ++i) {
    submit(/*max_tokens=*/700);  // more than any gets to
    if (i % 16 == 0) engine.step();
  }
  while (engine.num_waiting() > 0) engine.step();
  for (int64_t i = 0; i < kWaiting; ++i) submit(/*max_tokens=*/1);
  for (auto _ : state) {
    state.PauseTiming();
    submit(/*max_tokens=*/1);
    state.ResumeTiming();
    engine.step();
  }
  if (engine.num_waiting() != kWaiting) state.SkipWithError("not one admission a step");
}
BENCHMARK(BM_CrowdedAdmitStep)
    ->ArgNames({"policy", "fair", "cache"})
    ->Args({0, 0, 0})
    ->Args({0, 0, 1})
    ->Args({0, 1, 1})
    ->Args({1, 0, 1})
    ->Unit(benchmark::kMicrosecond)
    ->Iterations(500);

/// What the tree costs a request: 64 blocks of 16 tokens are looked up, 48 of them found, 16 given
/// up elsewhere, put in and released, in a full cache.
void BM_PrefixCache(benchmark::State& state) {
  constexpr int64_t kFound = 48;
  constexpr int64_t kNew = 16;
  const int64_t num_blocks = state.range(0);
  BlockAllocator allocator(num_blocks);
  PrefixCache cache(allocator, kBlockSize);
  PrefixCache::Root* const root = cache.open("");
  std::mt19937 random(1);
  std::vector<int32_t> text((kFound + kNew) * kBlockSize);
  std::vector<int32_t> blocks;
  const int64_t num_families = num_blocks / 512;
  const auto serve = [&] {
    const auto family = static_cast<int32_t>(random() % num_families);
    std::fill_n(text.begin(), kFound * kBlockSize, family);
    for (size_t i = kFound * kBlockSize; i < text.size(); ++i) text[i] = random() % kVocab;
    cache.match(*root, {text, {}}, kFound + kNew, blocks);
    cache.acquire(blocks);
    const auto num_found = static_cast<int64_t>(blocks.size());
    const int64_t num_missing = kFound + kNew - num_found;
    if (num_missing > allocator.num_free()) cache.evict(num_missing - allocator.num_free());
    for (int64_t i = 0; i < num_missing; ++i) blocks.push_back(allocator.allocate());
    cache.insert(*root, {text, {}}, num_found, kFound + kNew, blocks);
    cache.release(blocks);
    return num_found;
  };
  while (allocator.num_free() > 0) serve();
  int64_t num_found = 0;
  for (auto _ : state) num_found += serve();
  state.counters["found"] =
      static_cast<double>(num_found) / static_cast<double>(state.iterations());
}
BENCHMARK(BM_PrefixCache)
    ->ArgName("blocks")
    ->Arg(10'000)
    ->Arg(100'000)
    ->Arg(1'000'000)
    ->Unit(benchmark::kMicrosecond)
    ->Iterations(20'000);

}  // namespace
}  // namespace augur

BENCHMARK_MAIN();
