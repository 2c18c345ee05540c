// What the lossy modes cost and save: perplexity beside bytes read, and beside bytes of memory.
//
// Documents are scored as they would be decoded, a row of each of some sequences in a step.
// AUGUR_BENCH_MODEL names the model's folder (default: the demo model), AUGUR_BENCH_TEXT the JSONL
// file (default: tests/data/eval.jsonl). Of its documents every AUGUR_BENCH_STRIDE-th is taken
// (default: 16), and of each the first AUGUR_BENCH_TOKENS tokens (default: 128).
// The bound of reading is what the same pool reads without copies: confidence 0.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/model_loader.h"

namespace augur {
namespace {

std::string environment_or(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : fallback;
}

int64_t count_or(const char* name, int64_t fallback) {
  return std::stoll(environment_or(name, std::to_string(fallback)));
}

EngineConfig bench_config(int64_t num_seqs) {
  EngineConfig config;
  config.model.path = environment_or("AUGUR_BENCH_MODEL", demo_model_folder().string());
  config.execution.device = DeviceChoice::kCpu;
  config.execution.max_batch_size = num_seqs;
  config.execution.max_tokens_per_step = num_seqs;
  config.kv_cache.max_context = std::max<int64_t>(64, count_or("AUGUR_BENCH_TOKENS", 128));
  // Reading ahead depends on timing, and so would what is served.
  config.prefetch.enabled = false;
  return config;
}

std::vector<std::vector<int32_t>> read_documents(const LoadedModel& model) {
  std::ifstream lines(
      environment_or("AUGUR_BENCH_TEXT", AUGUR_SOURCE_DIR "/tests/data/eval.jsonl"));
  const int64_t stride = count_or("AUGUR_BENCH_STRIDE", 16);
  const auto max_tokens = static_cast<size_t>(count_or("AUGUR_BENCH_TOKENS", 128));
  std::vector<std::vector<int32_t>> documents;
  int64_t line_idx = 0;
  for (std::string line; std::getline(lines, line); ++line_idx) {
    if (line_idx % stride != 0) continue;
    documents.push_back(model.tokenizer->encode(boost::json::parse(line).at("text").as_string()));
    documents.back().resize(std::min(documents.back().size(), max_tokens));
    if (documents.back().size() < 2) documents.pop_back();
  }
  return documents;
}

struct Score {
  std::vector<float> logprobs;  // of the tokens scored
  int64_t num_scored() const { return std::ssize(logprobs); }
  double perplexity() const {
    return std::exp(-std::accumulate(logprobs.begin(), logprobs.end(), 0.0) /
                    static_cast<double>(num_scored()));
  }
  /// Mean change of a log-probability, either way.
  double distance(const Score& other) const {
    double sum = 0;
    for (size_t i = 0; i < logprobs.size(); ++i) sum += std::abs(logprobs[i] - other.logprobs[i]);
    return sum / static_cast<double>(num_scored());
  }
};

// Scores documents a token of each of max_seqs of them at a time.
class Scorer {
 public:
  explicit Scorer(Decoder& decoder)
      : decoder_(decoder),
        blocks_per_seq_((decoder.limits().max_context + decoder.limits().block_size - 1) /
                        decoder.limits().block_size) {}

  Score run(const std::vector<std::vector<int32_t>>& documents) {
    std::vector<Place> places(decoder_.limits().max_seqs);
    for (size_t next = 0;;) {
      for (Place& place : places) {
        const bool has_ended = place.document == nullptr || place.position + 1 == ssize(place);
        if (has_ended && next < documents.size()) {
          place = {&documents[next], 0, static_cast<int64_t>(next)};
          ++next;
        } else if (has_ended) {
          place.document = nullptr;
        }
      }
      if (!step(places)) return score_;
    }
  }

 private:
  struct Place {
    const std::vector<int32_t>* document = nullptr;
    int64_t position = 0;
    int64_t id = 0;
  };
  static int64_t ssize(const Place& place) { return std::ssize(*place.document); }

  // False when no document is left.
  bool step(std::vector<Place>& places) {
    StepBatch batch;
    batch.block_table_stride = blocks_per_seq_;
    batch.query_start = {0};
    for (size_t s = 0; s < places.size(); ++s) {
      if (places[s].document != nullptr) add(places[s], static_cast<int64_t>(s), batch);
    }
    if (batch.num_tokens() == 0) return false;
    decoder_.run(batch, results_);
    for (const LogitResult& result : results_) score_.logprobs.push_back(result.logprob);
    return true;
  }

  void add(Place& place, int64_t seq, StepBatch& batch) const {
    const int64_t position = place.position++;
    batch.logit_rows.push_back({.row_idx = static_cast<int32_t>(batch.num_tokens()),
                                .target_id = (*place.document)[position + 1],
                                .wants_logprob = true});
    batch.token_ids.push_back((*place.document)[position]);
    batch.positions.push_back(static_cast<int32_t>(position));
    batch.kv_slots.push_back(seq * blocks_per_seq_ * decoder_.limits().block_size + position);
    batch.query_start.push_back(static_cast<int32_t>(batch.num_tokens()));
    batch.context_len.push_back(static_cast<int32_t>(position + 1));
    batch.sequence_ids.push_back(place.id);
    ++batch.num_decode_seqs;
    for (int64_t block = 0; block < blocks_per_seq_; ++block) {
      batch.block_table.push_back(static_cast<int32_t>(seq * blocks_per_seq_ + block));
    }
  }

  Decoder& decoder_;
  const int64_t blocks_per_seq_;
  Score score_;
  std::vector<LogitResult> results_;
};

// A pool of a quarter of the experts; confidence in thousandths.
void BM_LowBit(benchmark::State& state) {
  EngineConfig config = bench_config(/*num_seqs=*/state.range(1));
  const ModelDescription description = read_model_description(config.model.path);
  if (description.config.moe.num_experts == 0) {
    state.SkipWithError("the model has no experts");
    return;
  }
  const int64_t num_experts = description.config.moe.num_experts * description.config.num_layers();
  config.cache.experts.device_bytes = num_experts / 4 * 2 * 3 * description.config.hidden_size *
                                      description.config.moe.intermediate_size;
  // Bytes are counted here, not timed: from the page cache they come quickly.
  config.cache.experts.direct_io = false;
  config.cache.experts.low_bit = {.enabled = true,
                                  .confidence = static_cast<double>(state.range(0)) * 1e-3};
  for (auto _ : state) {
    state.PauseTiming();
    const auto model = load_model(config, {});
    const auto documents = read_documents(*model);
    state.ResumeTiming();
    const Score score = Scorer(*model->decoder).run(documents);
    const LowBitCounts low_bit = model->weights.low_bit_experts->total();
    const ExpertCounters& pool = model->weights.expert_memory->counters();
    const auto per_token = [&](int64_t bytes) {
      return static_cast<double>(bytes) / static_cast<double>(score.num_scored()) / 1024;
    };
    state.counters["perplexity"] = score.perplexity();
    state.counters["low_bit_mass_%"] = 100 * low_bit.low_bit_share();
    state.counters["low_bit_choices_%"] = 100.0 * static_cast<double>(low_bit.num_low_bit_choices) /
                                          static_cast<double>(low_bit.num_choices);
    state.counters["read_KiB/token"] = per_token(pool.demand_bytes());
    state.counters["avoided_KiB/token"] = per_token(low_bit.avoided_bytes);
    state.counters["hit_%"] = 100 * pool.total().hit_rate();
    state.counters["tokens"] = static_cast<double>(score.num_scored());
  }
}
BENCHMARK(BM_LowBit)
    ->ArgNames({"confidence_1000", "seqs"})
    ->ArgsProduct({{0, 50, 75, 100, 150, 1000}, {1, 8}})
    ->Unit(benchmark::kMillisecond)
    ->Iterations(1)
    ->UseRealTime();

// All experts in memory; the ratio in hundredths, 0: no compression.
void BM_Compression(benchmark::State& state) {
  EngineConfig config = bench_config(/*num_seqs=*/8);
  config.memory.compression = {.enabled = state.range(0) > 0,
                               .ratio = std::max(1.0, static_cast<double>(state.range(0)) * 1e-2)};
  for (auto _ : state) {
    state.PauseTiming();
    std::unique_ptr<LoadedModel> model;
    try {
      model = load_model(config, {});
    } catch (const std::exception& error) {
      state.SkipWithError(error.what());
      return;
    }
    const auto documents = read_documents(*model);
    state.ResumeTiming();
    const Score score = Scorer(*model->decoder).run(documents);
    state.counters["perplexity"] = score.perplexity();
    const auto mib = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
    state.counters["weights_MiB"] = mib(model->memory.items[0].num_bytes);
    state.counters["kv_MiB"] = mib(model->memory.items[1].num_bytes);
    state.counters["tokens"] = static_cast<double>(score.num_scored());
  }
}
BENCHMARK(BM_Compression)
    ->ArgName("ratio_100")
    ->Arg(0)
    ->Arg(125)
    ->Arg(150)
    ->Arg(175)
    ->Arg(185)
    ->Unit(benchmark::kMillisecond)
    ->Iterations(1)
    ->UseRealTime();

// The experts of a layer in int8 in place of those in bf16, which stay where they are.
struct Int8Layer {
  Int8Layer(LoadedModel& loaded, int layer_idx)
      : table(loaded.weights.layers[layer_idx].moe.experts), bf16(table) {
    const ModelConfig& config = loaded.config();
    Ops& ops = *loaded.ops;
    const ExpertLayout layout =
        expert_layout(ops, config.hidden_size, config.moe.intermediate_size, ExpertFormat::kInt8);
    slots.emplace(ops, layout, 1, config.moe.num_experts);
    for (int e = 0; e < config.moe.num_experts; ++e) {
      ops.quantize_expert(bf16.layout,
                          bf16.slots + bf16.slot_of_expert[e] * bf16.layout.block_bytes, layout,
                          slots->block(0, e));
    }
    table = slots->table(0);
  }
  ~Int8Layer() { table = bf16; }

  ExpertTable& table;
  const ExpertTable bf16;
  std::optional<ExpertSlots> slots;
};

// Mean change of a token's log-probability, in thousandths, with int8 in one place and in several:
// the order in which memory.compression takes them.
void BM_WhereInt8Costs(benchmark::State& state) {
  EngineConfig config = bench_config(/*num_seqs=*/8);
  for (auto _ : state) {
    const auto model = load_model(config, {});
    const auto documents = read_documents(*model);
    const Score plain = Scorer(*model->decoder).run(documents);
    const auto told = [&](const std::string& name, LoadedModel& loaded) {
      state.counters[name] = 1e3 * Scorer(*loaded.decoder).run(documents).distance(plain);
    };
    const ModelConfig& shape = model->config();
    std::vector<int> moe_layers;
    for (int layer = 0; layer < shape.num_layers(); ++layer) {
      if (shape.layers[layer] == LayerKind::kMoe) moe_layers.push_back(layer);
    }
    for (const int layer : moe_layers) {
      const Int8Layer one(*model, layer);
      told("layer_" + std::to_string(layer), *model);
    }
    std::vector<std::unique_ptr<Int8Layer>> all;
    for (const int layer : moe_layers) all.push_back(std::make_unique<Int8Layer>(*model, layer));
    told("layers", *model);
    all.clear();
    config.kv_cache.dtype = KvDtypeChoice::kInt8;
    told("kv_cache", *load_model(config, {}));
  }
}
BENCHMARK(BM_WhereInt8Costs)->Unit(benchmark::kMillisecond)->Iterations(1)->UseRealTime();

}  // namespace
}  // namespace augur

BENCHMARK_MAIN();
