// What copies in int8 may serve, what they then give, and what a model with them answers.
#include "engine/model/low_bit_experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <set>

#include "configs/config_error.h"
#include "engine/model/model_loader.h"
#include "kernels/cpu/memory.h"
#include "tests/cache/fake_fetcher.h"
#include "tests/model/random_steps.h"
#include "tests/model/small_checkpoint.h"
#include "tests/model/store_fetcher.h"

namespace augur {
namespace {

using test::RandomSteps;
using test::StoreFetcher;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A dense layer, then three with 20 experts, top 4.
struct SmallModel {
  static constexpr std::string_view kConfigJson = R"({
  "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu",
  "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 16, "intermediate_size": 96, "moe_intermediate_size": 32, "num_experts": 20,
  "num_experts_per_tok": 4, "decoder_sparse_step": 1, "mlp_only_layers": [0],
  "norm_topk_prob": true, "vocab_size": 96, "attention_bias": false,
  "max_position_embeddings": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
  "tie_word_embeddings": false, "torch_dtype": "bfloat16", "eos_token_id": 2})";
};
constexpr int kMoeLayers = 3;
constexpr int kExperts = 20;
constexpr int kTopK = 4;
constexpr int64_t kHidden = 64;

class LowBitExpertsTest : public test::SmallCheckpointTest<SmallModel> {
 protected:
  static EngineConfig config(double confidence) {
    EngineConfig config = SmallCheckpointTest::config(PrecisionChoice::kReference);
    config.prefetch.enabled = false;
    config.cache.experts.device_bytes = int64_t{1} << 30;  // as many as there are; see load
    config.cache.experts.low_bit = {.enabled = true,
                                    .confidence = confidence,
                                    .protected_share = 0.1,
                                    .calibration_tokens = 100};
    return config;
  }

  static std::unique_ptr<LoadedModel> load(const EngineConfig& config, int num_slots) {
    LoadListener listener;
    listener.on_expert_memory = [=](ExpertMemory::Parts& parts, const ExpertStore& store,
                                    const Ops& ops) {
      parts.num_slots = num_slots;
      parts.make_fetcher = [&](const SlotMemory& slots) {
        return std::make_unique<StoreFetcher>(store, ops, slots, /*seed=*/1);
      };
    };
    return load_model(config, listener);
  }
};

// Runs single layers of a loaded model on random rows, and looks at what was served.
class LayerRunner final : public RoutingObserver {
 public:
  explicit LayerRunner(LoadedModel& model) : model_(model) {}

  void run(int layer_idx, int64_t num_rows) {
    std::normal_distribution<float> normal;
    x.resize(num_rows * kHidden);
    // Gates of some rows are steep and of others flat.
    for (int64_t row = 0; row < num_rows; ++row) {
      const float scale = std::exp2(static_cast<float>(row % 5));
      for (int64_t i = 0; i < kHidden; ++i) x[row * kHidden + i] = scale * normal(random_);
    }
    out.assign(x.size(), 0);
    experts.assign(num_rows * kTopK, 0);
    weights.assign(num_rows * kTopK, 0);
    std::vector<float> logits(num_rows * kExperts);
    ExpertMemory& memory = *model_.weights.expert_memory;
    memory.on_step({.num_tokens = num_rows});
    RoutingObserver* const observers[] = {&memory, this};
    moe_layer(*model_.ops, model_.config().moe, layer_idx, model_.weights.layers[layer_idx].moe,
              {.experts = experts.data(), .weights = weights.data(), .logits = logits.data()},
              tensor(x), tensor(x), tensor(out), observers, /*source=*/nullptr, &memory,
              model_.weights.low_bit_experts.get());
    memory.end_layer();
    memory.on_step_end();
  }

  void on_routing(const RoutingView& routing) override {
    chosen.assign(routing.experts, routing.experts + routing.num_tokens * kTopK);
    was_there.clear();
    for (int32_t expert = 0; expert < kExperts; ++expert) {
      const ExpertKey key = {routing.layer_idx, expert};
      const ExpertPool& pool = model_.weights.expert_memory->pool();
      if (pool.is_resident(key) || pool.is_fetching(key)) was_there.insert(expert);
    }
  }

  static Tensor tensor(std::vector<float>& values) {
    return dense(values.data(), DType::kF32, static_cast<int64_t>(values.size()) / kHidden,
                 kHidden);
  }

  std::vector<float> x, out, weights;
  std::vector<int32_t> experts;  // as served: from kExperts on by a copy
  std::vector<int32_t> chosen;   // as the gate chose
  std::set<int32_t> was_there;   // in the pool or on their way, before the layer ran

 private:
  LoadedModel& model_;
  std::mt19937_64 random_{17};
};

// Whether a copy may serve choice `i` of a row, but for what else the step wants.
bool may_be_low_bit(const LayerRunner& layer, int64_t row, int i, double confidence) {
  const float* const weights = layer.weights.data() + row * kTopK;
  const double sum = std::accumulate(weights, weights + kTopK, 0.0);
  return *std::min_element(weights, weights + kTopK) < confidence * sum &&
         i != std::max_element(weights, weights + kTopK) - weights;
}

TEST_F(LowBitExpertsTest, ServesExactlyWhatTheRuleAllows) {
  for (const double confidence : {0.0, 0.1, 0.18, 1.0}) {
    const auto model = load(config(confidence), /*num_slots=*/3 * kTopK);
    LowBitExperts& copies = *model->weights.low_bit_experts;
    LayerRunner layer(*model);
    int64_t num_low_bit = 0;
    int64_t num_rows_in_all = 0;
    std::set<ExpertKey> reads_avoided;
    int64_t num_avoided = 0;
    double mass = 0;
    double low_bit_mass = 0;
    for (int step = 0; step < 120; ++step) {
      const int layer_idx = 1 + step % kMoeLayers;
      const int64_t num_rows = step < 6 ? 50 : 1 + step % 7;  // the first calibrate
      const bool was_calibrated = copies.is_calibrated(layer_idx);
      EXPECT_EQ(was_calibrated, step >= 6);
      layer.run(layer_idx, num_rows);
      num_rows_in_all += num_rows;
      std::set<int32_t> wanted_in_full;
      for (int64_t c = 0; c < num_rows * kTopK; ++c) {
        const bool may =
            was_calibrated &&
            may_be_low_bit(layer, c / kTopK, static_cast<int>(c % kTopK), confidence) &&
            !copies.is_protected({layer_idx, layer.chosen[c]});
        if (!may) wanted_in_full.insert(layer.chosen[c]);
      }
      std::set<int32_t> served;
      for (int64_t c = 0; c < num_rows * kTopK; ++c) {
        const int32_t expert = layer.chosen[c];
        const bool is_low_bit =
            !wanted_in_full.contains(expert) && !layer.was_there.contains(expert);
        ASSERT_EQ(layer.experts[c], expert + (is_low_bit ? kExperts : 0))
            << "step " << step << ", choice " << c << ", confidence " << confidence;
        mass += layer.weights[c];
        if (!is_low_bit) continue;
        low_bit_mass += layer.weights[c];
        ++num_low_bit;
        served.insert(expert);
      }
      num_avoided += static_cast<int64_t>(served.size());
    }
    const LowBitCounts total = copies.total();
    EXPECT_EQ(total.num_choices, num_rows_in_all * kTopK);
    EXPECT_EQ(total.num_low_bit_choices, num_low_bit);
    EXPECT_EQ(total.num_avoided_reads, num_avoided);
    EXPECT_EQ(total.avoided_bytes, num_avoided * 3 * kHidden * 32 * 2);
    EXPECT_NEAR(total.mass, mass, 1e-6);
    EXPECT_NEAR(total.mass, static_cast<double>(num_rows_in_all), 1e-3) << "a row's weights";
    EXPECT_NEAR(total.low_bit_mass, low_bit_mass, 1e-6);
    EXPECT_NEAR(total.low_bit_share(), low_bit_mass / mass, 1e-9);
    EXPECT_EQ(copies.counts(0).num_choices, 0) << "a dense layer";
    EXPECT_EQ(num_low_bit == 0, confidence == 0) << confidence;
  }
}

// Each choice by the single expert that served it, copies made anew.
TEST_F(LowBitExpertsTest, GivesWhatTheExpertsAndTheCopiesGiveOneByOne) {
  const auto model = load(config(/*confidence=*/1), /*num_slots=*/kTopK);
  Ops& ops = *model->ops;
  const ExpertStore& store = *model->expert_store;
  const ExpertLayout int8 = expert_layout(ops, kHidden, 32, ExpertFormat::kInt8);
  Buffer block = cpu::allocate_host(store.layout().block_bytes);
  Buffer copy = cpu::allocate_host(int8.block_bytes);
  ExpertStore::Scratch scratch;
  LayerRunner layer(*model);
  for (int layer_idx = 1; layer_idx <= kMoeLayers; ++layer_idx) {
    for (int i = 0; i < 2; ++i) layer.run(layer_idx, 50);  // calibrates
  }

  int64_t num_low_bit = 0;
  for (int step = 0; step < 12; ++step) {
    const int layer_idx = 1 + step % kMoeLayers;
    layer.run(layer_idx, 2);
    std::vector<float> expected(layer.out.size());
    for (size_t c = 0; c < layer.experts.size(); ++c) {
      const bool is_low_bit = layer.experts[c] >= kExperts;
      num_low_bit += is_low_bit;
      store.read({layer_idx, layer.chosen[c]}, ops, block.data(), scratch);
      ops.quantize_expert(store.layout(), block.data(), int8, copy.data());
      const int32_t zero = 0;
      const float one = 1;
      std::vector<float> row(layer.x.begin() + c / kTopK * kHidden,
                             layer.x.begin() + (c / kTopK + 1) * kHidden);
      std::vector<float> out(kHidden);
      MoeArgs args;
      args.x = LayerRunner::tensor(row);
      args.experts = &zero;
      args.weights = &one;
      args.top_k = 1;
      args.table = {is_low_bit ? copy.data() : block.data(), is_low_bit ? int8 : store.layout(),
                    &zero, 1};
      args.out = LayerRunner::tensor(out);
      ops.moe(args);
      for (int64_t i = 0; i < kHidden; ++i) {
        expected[c / kTopK * kHidden + i] += layer.weights[c] * out[i];
      }
    }
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(layer.out[i], expected[i], 1e-5 * (1 + std::abs(expected[i]))) << i;
    }
  }
  EXPECT_GT(num_low_bit, 12);
}

TEST_F(LowBitExpertsTest, LeavesWhatIsInThePoolOrOnItsWayThere) {
  const auto model = load(config(/*confidence=*/0.15), /*num_slots=*/kTopK);
  FakeFetcher fetcher;
  ExpertCounters counters(model->config().num_layers(), kExperts);
  ExpertPool pool({.num_layers = model->config().num_layers(),
                   .num_moe_layers = kMoeLayers,
                   .num_experts = kExperts,
                   .num_slots = kTopK,
                   .top_k = kTopK},
                  make_lru_policy(kTopK), fetcher, counters);
  LowBitExperts copies(
      {.enabled = true, .confidence = 0.15, .protected_share = 0, .calibration_tokens = 1},
      model->config(), *model->ops, *model->expert_store, pool);
  const auto served = [&](std::vector<int32_t> experts, const std::vector<float>& weights) {
    std::vector<float> x(kHidden);
    copies.substitute({.layer_idx = 1,
                       .num_tokens = 1,
                       .top_k = kTopK,
                       .experts = experts.data(),
                       .weights = weights.data()},
                      LayerRunner::tensor(x), experts.data());
    return experts;
  };
  const std::vector<float> unsure = {0.2f, 0.4f, 0.3f, 0.1f};  // as correction biases can order
  using Experts = std::vector<int32_t>;
  EXPECT_EQ(served({5, 6, 7, 8}, unsure), (Experts{5, 6, 7, 8})) << "calibrates";
  EXPECT_EQ(served({5, 6, 7, 8}, unsure), (Experts{25, 6, 27, 28}));
  EXPECT_EQ(served({5, 6, 7, 8}, {0.3f, 0.3f, 0.2f, 0.2f}), (Experts{5, 6, 7, 8})) << "sure";
  EXPECT_EQ(served({5, 6, 7, 8}, {2, 4, 3, 1}), (Experts{25, 6, 27, 28})) << "another scale";
  pool.prefetch({1, 7}, FetchPriority::kNextLayer);
  pool.prefetch({2, 8}, FetchPriority::kNextLayer);
  ASSERT_TRUE(pool.is_fetching({1, 7}));
  EXPECT_EQ(served({5, 6, 7, 8}, unsure), (Experts{25, 6, 7, 28})) << "on its way";
  pool.poll();
  ASSERT_TRUE(pool.is_resident({1, 7}));
  EXPECT_EQ(served({5, 6, 7, 8}, unsure), (Experts{25, 6, 7, 28})) << "there";
  EXPECT_EQ(copies.total().num_choices, 6 * kTopK);
  EXPECT_EQ(copies.total().num_low_bit_choices, 3 + 3 + 2 + 2);
}

TEST_F(LowBitExpertsTest, ProtectsThoseWithTheLargestOutputs) {
  const auto model = load(config(/*confidence=*/1), /*num_slots=*/kTopK);
  LowBitExperts& copies = *model->weights.low_bit_experts;
  LayerRunner layer(*model);
  // What the calibration rows' outputs measure in full precision.
  std::vector<double> sums(kExperts);
  std::vector<int64_t> counts(kExperts);
  ExpertStore::Scratch scratch;
  Buffer block = cpu::allocate_host(model->expert_store->layout().block_bytes);
  EXPECT_FALSE(copies.is_calibrated(2));
  for (const int64_t num_rows : {64, 40}) {  // 4 beyond the 100 of the calibration
    layer.run(/*layer_idx=*/2, num_rows);
    const int64_t num_measured = num_rows == 64 ? 64 : 36;
    for (int64_t c = 0; c < num_measured * kTopK; ++c) {
      model->expert_store->read({2, layer.chosen[c]}, *model->ops, block.data(), scratch);
      std::vector<float> row(layer.x.begin() + c / kTopK * kHidden,
                             layer.x.begin() + (c / kTopK + 1) * kHidden);
      std::vector<float> out(kHidden);
      model->ops->mlp({.x = LayerRunner::tensor(row),
                       .weights = model->expert_store->layout().view(block.data()),
                       .out = LayerRunner::tensor(out)});
      sums[layer.chosen[c]] +=
          std::sqrt(std::inner_product(out.begin(), out.end(), out.begin(), 0.0));
      ++counts[layer.chosen[c]];
    }
  }
  ASSERT_TRUE(copies.is_calibrated(2));
  EXPECT_FALSE(copies.is_calibrated(1));
  std::vector<std::pair<double, int>> by_norm;
  for (int expert = 0; expert < kExperts; ++expert) {
    const double norm = counts[expert] == 0 ? 0 : sums[expert] / counts[expert];
    EXPECT_NEAR(copies.output_norm({2, expert}), norm, 0.01 * norm);
    by_norm.push_back({-copies.output_norm({2, expert}), expert});
    EXPECT_FALSE(copies.is_protected({1, expert})) << "not calibrated";
    EXPECT_FALSE(copies.is_protected({0, expert})) << "dense";
  }
  std::sort(by_norm.begin(), by_norm.end());
  for (int i = 0; i < kExperts; ++i) {
    EXPECT_EQ(copies.is_protected({2, by_norm[i].second}), i < 2) << "a tenth of 20, place " << i;
  }
}

struct ModelRun {
  std::vector<float> logits;
  LowBitCounts counts;
  int64_t read_bytes = 0;
};

// Random steps through the whole model, routed as given so that a small error turns no choice.
ModelRun run_steps(LoadedModel& model, bool forces_routing) {
  RandomSteps steps(model.decoder->limits(), /*seed=*/3);
  std::mt19937_64 random(4);
  std::vector<int32_t> routes;
  for (int64_t row = 0; row < model.config().num_layers() * model.decoder->limits().max_tokens;
       ++row) {
    std::vector<int32_t> experts(kExperts);
    std::iota(experts.begin(), experts.end(), 0);
    std::shuffle(experts.begin(), experts.end(), random);
    routes.insert(routes.end(), experts.begin(), experts.begin() + kTopK);
  }
  if (forces_routing) model.decoder->force_routing(routes.data());
  ModelRun run;
  std::vector<LogitResult> results;
  for (int i = 0; i < 40; ++i) {
    model.decoder->run(steps.next(), results);
    const Tensor& logits = model.decoder->last_logits();
    const auto* const values = static_cast<const float*>(logits.data);
    run.logits.insert(run.logits.end(), values, values + logits.num_rows * logits.num_cols);
  }
  model.decoder->force_routing(nullptr);
  if (model.weights.low_bit_experts) run.counts = model.weights.low_bit_experts->total();
  if (model.weights.expert_memory) {
    run.read_bytes = model.weights.expert_memory->counters().demand_bytes();
  }
  return run;
}

TEST_F(LowBitExpertsTest, WithConfidenceZeroGivesTheBitsOfTheResidentModel) {
  for (const auto precision : {PrecisionChoice::kReference, PrecisionChoice::kBF16}) {
    EngineConfig with_copies = config(/*confidence=*/0);
    with_copies.execution.precision = precision;
    EngineConfig resident = with_copies;
    resident.cache.experts = {};
    const ModelRun expected = run_steps(*load_model(resident, {}), /*forces_routing=*/false);
    const ModelRun actual = run_steps(*load(with_copies, kTopK), /*forces_routing=*/false);
    ASSERT_EQ(actual.logits.size(), expected.logits.size());
    EXPECT_EQ(0, std::memcmp(actual.logits.data(), expected.logits.data(),
                             actual.logits.size() * sizeof(float)));
    EXPECT_GT(actual.counts.num_choices, 0);
    EXPECT_EQ(actual.counts.num_low_bit_choices, 0);
    EXPECT_EQ(actual.counts.avoided_bytes, 0);
  }
}

// An int8 weight is off by up to 1/254 of its row's largest; a wrong expert or slot would be off by
// as much as the experts give. Measured: 0.0012, and 0.25 with each copy in the place of the next.
TEST_F(LowBitExpertsTest, StaysNearTheResidentModelAndReadsLess) {
  EngineConfig resident = config(/*confidence=*/1);
  resident.cache.experts = {};
  EngineConfig without_copies = config(/*confidence=*/0);
  const ModelRun expected = run_steps(*load_model(resident, {}), /*forces_routing=*/true);
  const ModelRun full = run_steps(*load(without_copies, 2 * kTopK), /*forces_routing=*/true);
  const ModelRun actual = run_steps(*load(config(/*confidence=*/1), 2 * kTopK), true);
  double difference = 0;
  double scale = 0;
  for (size_t i = 0; i < actual.logits.size(); ++i) {
    difference += std::pow(actual.logits[i] - expected.logits[i], 2);
    scale += std::pow(expected.logits[i], 2);
  }
  EXPECT_GT(difference, 0);
  EXPECT_LT(std::sqrt(difference / scale), 0.004);
  EXPECT_GT(actual.counts.low_bit_share(), 0.1);
  EXPECT_LT(actual.read_bytes, full.read_bytes);
}

TEST_F(LowBitExpertsTest, IsPlannedAndRefusedWithItsBytes) {
  std::string told;
  LoadListener listener;
  listener.on_message = [&](const std::string& line) { told += line + "\n"; };
  EngineConfig small = config(/*confidence=*/0.1);
  small.cache.experts.device_bytes = 300 << 10;
  const auto model = load_model(small, listener);
  EXPECT_THAT(told, HasSubstr("int8 copies of all experts"));
  small.cache.experts.low_bit.enabled = false;
  const int64_t copies_bytes = LowBitExperts::num_bytes(model->config(), *model->ops);
  const int64_t all_bytes = int64_t{kMoeLayers} * kExperts * 3 * kHidden * 32 * 2;
  EXPECT_GT(copies_bytes, all_bytes / 2);
  EXPECT_LT(copies_bytes, all_bytes * 3 / 4) << "half, scales, and a little for calibration";
  const auto item =
      std::find_if(model->memory.items.begin(), model->memory.items.end(),
                   [](const MemoryItem& i) { return i.name == "int8 copies of all experts"; });
  ASSERT_NE(item, model->memory.items.end());
  EXPECT_EQ(item->num_bytes, copies_bytes);

  small.cache.experts = {};
  small.cache.experts.low_bit.enabled = true;
  EXPECT_THAT(message_of<ConfigError>([&] { load_model(small, {}); }),
              AllOf(HasSubstr("cache.experts.low_bit.enabled"), HasSubstr("device_bytes")));
}

}  // namespace
}  // namespace augur
