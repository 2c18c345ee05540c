// A model that remembers what its gates chose: exactly by tokens, approximately by states.
#include "engine/model/route_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>

#include "configs/config_error.h"
#include "engine/model/model_loader.h"
#include "engine/model/route_metrics.h"
#include "tests/model/random_steps.h"
#include "tests/model/small_checkpoint.h"
#include "tests/prefetch/row_major_ops.h"

namespace augur {
namespace {

using test::RandomSteps;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct SmallModel {
  static constexpr std::string_view kConfigJson = R"({
  "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu",
  "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 16, "intermediate_size": 96, "moe_intermediate_size": 32, "num_experts": 20,
  "num_experts_per_tok": 3, "norm_topk_prob": true, "decoder_sparse_step": 1,
  "mlp_only_layers": [0], "vocab_size": 96, "attention_bias": false,
  "max_position_embeddings": 256, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "tie_word_embeddings": false, "torch_dtype": "bfloat16", "eos_token_id": 2})";
};
constexpr int kMoeLayers = 3;
constexpr int kTexts = 3;

class RouteMemoryTest : public test::SmallCheckpointTest<SmallModel> {
 protected:
  static EngineConfig serving(bool exact, PrecisionChoice precision = PrecisionChoice::kBF16) {
    EngineConfig result = config(precision);
    result.cache.expert_route.enabled = true;
    result.cache.expert_route.mode = RouteMode::kServe;
    result.cache.expert_route.exact = exact;
    return result;
  }
  static EngineConfig foretelling(bool exact) {
    EngineConfig result = serving(exact);
    result.cache.expert_route.mode = RouteMode::kPrefetch;
    result.cache.experts.device_bytes = 300 << 10;
    return result;
  }
  static std::string refusal(const EngineConfig& config) {
    return message_of<ConfigError>([&] { load_model(config, {}); });
  }

  /// Both run the same steps, and every logit is compared.
  static void expect_same_logits(LoadedModel& expected,
                                 LoadedModel& actual,
                                 RandomSteps steps,
                                 int num_steps) {
    std::vector<LogitResult> ignored;
    for (int i = 0; i < num_steps; ++i) {
      const StepBatch batch = steps.next();
      expected.decoder->run(batch, ignored);
      actual.decoder->run(batch, ignored);
      const Tensor& a = expected.decoder->last_logits();
      const Tensor& b = actual.decoder->last_logits();
      ASSERT_EQ(a.num_rows, batch.num_tokens()) << "all rows are compared";
      ASSERT_EQ(a.num_rows, b.num_rows);
      ASSERT_EQ(0, std::memcmp(a.data, b.data, a.num_rows * a.num_cols * sizeof(float)))
          << "step " << i;
    }
  }
  static void run(LoadedModel& model, int num_steps, uint64_t seed = 1) {
    RandomSteps steps(model.decoder->limits(), seed, kTexts);
    std::vector<LogitResult> ignored;
    for (int i = 0; i < num_steps; ++i) model.decoder->run(steps.next(), ignored);
  }
  static RouteMemory remember(const EngineConfig& config, const LoadedModel& model) {
    const int64_t max_tokens = model.decoder->limits().max_tokens;
    return {plan_route_memory(config, model.config(), *model.ops, /*has_pool=*/true, max_tokens),
            max_tokens};
  }
  static ModelRunner::Limits one_at_a_time(const LoadedModel& model) {
    ModelRunner::Limits limits = model.decoder->limits();
    limits.max_seqs = 1;
    return limits;
  }
};
// What was learned in a batch serves a lone sequence and the other way round, whole prompts and
// chunks alike; texts are forgotten and learned again where there is no room for all.
TEST_F(RouteMemoryTest, ServingExactlyKeepsEveryBit) {
  for (const PrecisionChoice precision : {PrecisionChoice::kBF16, PrecisionChoice::kReference}) {
    const std::unique_ptr<LoadedModel> plain = load_model(config(precision), {});
    for (const int64_t capacity : {60 * kMoeLayers, 4096 * kMoeLayers}) {
      EngineConfig exact = serving(/*exact=*/true, precision);
      exact.cache.expert_route.capacity = capacity;
      const std::unique_ptr<LoadedModel> model = load_model(exact, {});
      const ModelRunner::Limits batched = plain->decoder->limits();
      for (uint64_t seed = 0; seed < 6; ++seed) {
        const bool is_alone = seed % 2 == 1;
        const ModelRunner::Limits limits = is_alone ? one_at_a_time(*plain) : batched;
        expect_same_logits(*plain, *model, RandomSteps(limits, seed, kTexts), is_alone ? 250 : 100);
        if (HasFatalFailure()) return;
      }
      const RouteReport report = model->route_memory->report();
      const RouteReport::Gate gate = report.total_gate();
      EXPECT_TRUE(report.is_exact && report.serves);
      EXPECT_EQ(gate.num_rows, gate.num_answered_rows + gate.num_gated_rows);
      EXPECT_GE(gate.num_answered_rows, report.by_tokens.num_known_rows * kMoeLayers);
      EXPECT_GT(report.by_tokens.num_known_rows,
                report.by_tokens.num_rows / (capacity > 999 ? 4 : 50));
      EXPECT_EQ(report.by_tokens.num_evictions > 0, capacity < 999);
    }
  }
}

TEST_F(RouteMemoryTest, ServingExactlyKeepsEveryBitOverAPool) {
  const std::unique_ptr<LoadedModel> plain = load_model(config(), {});
  EngineConfig pooled = serving(/*exact=*/true);
  pooled.cache.experts.device_bytes = 200 << 10;
  const std::unique_ptr<LoadedModel> model = load_model(pooled, {});
  expect_same_logits(*plain, *model, RandomSteps(plain->decoder->limits(), 5, kTexts), 100);
  EXPECT_GT(model->route_memory->report().total_gate().num_answered_rows, 0);
  EXPECT_GT(model->weights.expert_memory->counters().total().num_misses(), 0);
}

TEST_F(RouteMemoryTest, ServingByStateAnswersForTheGateAndCountsIt) {
  EngineConfig by_state = serving(/*exact=*/false);
  by_state.cache.expert_route.projection = ProjectionChoice::kRandom;
  const std::unique_ptr<LoadedModel> model = load_model(by_state, {});
  EXPECT_TRUE(model->route_memory->is_lossy());
  run(*model, /*num_steps=*/150);
  const RouteReport report = model->route_memory->report();
  ASSERT_EQ(report.layers.size(), kMoeLayers);
  EXPECT_EQ(report.layers[0].layer_idx, 1) << "the first is dense";
  for (const RouteReport::Layer& layer : report.layers) {
    EXPECT_GT(layer.gate.num_answered_rows, 0);
    EXPECT_EQ(layer.gate.num_answered_rows, layer.by_state.counts.num_served);
    EXPECT_EQ(layer.gate.num_rows, layer.gate.num_answered_rows + layer.gate.num_gated_rows);
    EXPECT_GE(layer.by_state.counts.num_checks, SimilarityThreshold::kChecksPerDecision);
    EXPECT_EQ(layer.by_state.counts.num_hits,
              layer.by_state.counts.num_served + layer.by_state.counts.num_checks);
    EXPECT_GT(layer.gate.gate_us, 0);
    EXPECT_GT(layer.gate.look_up_us, 0);
  }
}

// A share of experts that no choice reaches by chance: the layers stop serving, and the model is
// the plain one again.
TEST_F(RouteMemoryTest, ALayerThatAgreesTooLittleIsServedByItsGate) {
  EngineConfig doubtful = serving(/*exact=*/false);
  doubtful.cache.expert_route.dims = 3;
  doubtful.cache.expert_route.fit_tokens = 64;
  doubtful.cache.expert_route.min_agreement = 1;
  const std::unique_ptr<LoadedModel> model = load_model(doubtful, {});
  // Texts of their own each time: alike in three numbers, but not the same.
  RandomSteps own_texts(model->decoder->limits(), 4);
  std::vector<LogitResult> ignored;
  for (int i = 0; i < 400; ++i) model->decoder->run(own_texts.next(), ignored);
  EXPECT_EQ(model->route_memory->report().num_switched_off(), kMoeLayers);
  const int64_t num_answered = model->route_memory->report().total_gate().num_answered_rows;
  const std::unique_ptr<LoadedModel> plain = load_model(config(), {});
  expect_same_logits(*plain, *model, RandomSteps(plain->decoder->limits(), 9, kTexts), 30);
  EXPECT_EQ(model->route_memory->report().total_gate().num_answered_rows, num_answered);
}

TEST_F(RouteMemoryTest, ProjectionsAreKeptOnceFittedAndReadAtTheNextStart) {
  EngineConfig kept = serving(/*exact=*/false);
  kept.cache.expert_route.fit_tokens = 64;
  kept.cache.expert_route.projection_file = folder_->file("projections");
  const std::unique_ptr<LoadedModel> first = load_model(kept, {});
  EXPECT_FALSE(first->route_memory->report().layers[0].by_state.is_ready);
  run(*first, 40);
  EXPECT_TRUE(folder_->has("projections"));
  const std::unique_ptr<LoadedModel> second = load_model(kept, {});
  for (const RouteReport::Layer& layer : second->route_memory->report().layers) {
    EXPECT_TRUE(layer.by_state.is_ready);
    EXPECT_EQ(layer.by_state.counts.num_sampled_rows, 0);
  }
  kept.cache.expert_route.dims = 8;
  EXPECT_THAT(refusal(kept), AllOf(HasSubstr("projections"), HasSubstr("64 to 8")));
}

TEST_F(RouteMemoryTest, GoesOnWhenProjectionsCannotBeKept) {
  EngineConfig kept = serving(/*exact=*/false);
  kept.cache.expert_route.fit_tokens = 64;
  const std::filesystem::path gone = *folder_ / "gone";
  std::filesystem::create_directory(gone);
  kept.cache.expert_route.projection_file = (gone / "projections").string();
  const std::unique_ptr<LoadedModel> model = load_model(kept, {});
  std::filesystem::remove(gone);
  run(*model, 60);
  EXPECT_GT(model->route_memory->report().total_by_state().num_look_ups, 0);
  EXPECT_FALSE(std::filesystem::exists(gone));
}

// Asks before each layer what it will be, as a planner does, and compares.
class Asker final : public RoutingObserver {
 public:
  explicit Asker(std::unique_ptr<Predictor> predictor) : predictor_(std::move(predictor)) {}
  void on_step(const StepRows& rows) override { predictor_->on_step(rows); }
  void on_routing(const RoutingView& routing) override {
    const auto width = static_cast<size_t>(routing.top_k);
    guesses_.assign(routing.num_tokens * width, -1);
    predictor_->predict(routing.layer_idx, {guesses_, routing.num_tokens, routing.top_k});
    for (int64_t row = 0; row < routing.num_tokens; ++row) {
      const auto guessed = std::span(guesses_).subspan(row * width, width);
      if (guessed[0] < 0) continue;
      ++num_guessed;
      num_right += std::equal(guessed.begin(), guessed.end(), routing.experts + row * width);
    }
    predictor_->on_routing(routing);
  }
  int64_t num_guessed = 0;
  int64_t num_right = 0;

 private:
  const std::unique_ptr<Predictor> predictor_;
  std::vector<int32_t> guesses_;
};

TEST_F(RouteMemoryTest, ForetellsAKnownTextWithoutFault) {
  const std::unique_ptr<LoadedModel> plain = load_model(config(), {});
  for (const bool serves : {false, true}) {
    EngineConfig exact = foretelling(/*exact=*/true);
    if (serves) exact.cache.expert_route.mode = RouteMode::kServe;
    const std::unique_ptr<LoadedModel> model = load_model(config(), {});
    RouteMemory memory = remember(exact, *model);
    model->decoder->set_route_memory(&memory);
    Asker asker(memory.make_predictor());
    model->decoder->add_routing_observer(asker);
    expect_same_logits(*plain, *model, RandomSteps(plain->decoder->limits(), 2, kTexts), 100);
    EXPECT_GT(asker.num_guessed, 500);
    EXPECT_EQ(asker.num_right, asker.num_guessed);
    const RouteReport::Gate gate = memory.report().total_gate();
    EXPECT_EQ(gate.num_answered_rows > 0, serves);
    EXPECT_EQ(gate.num_gated_rows == gate.num_rows, !serves);
  }
}

TEST_F(RouteMemoryTest, ForetellingByStateServesNothing) {
  EngineConfig by_state = foretelling(/*exact=*/false);
  by_state.cache.expert_route.projection = ProjectionChoice::kRandom;
  const std::unique_ptr<LoadedModel> model = load_model(config(), {});
  RouteMemory memory = remember(by_state, *model);
  EXPECT_FALSE(memory.is_lossy());
  model->decoder->set_route_memory(&memory);
  Asker asker(memory.make_predictor());
  model->decoder->add_routing_observer(asker);
  const std::unique_ptr<LoadedModel> plain = load_model(config(), {});
  expect_same_logits(*plain, *model, RandomSteps(plain->decoder->limits(), 2, kTexts), 60);
  EXPECT_GT(asker.num_guessed, 0);
  const RouteReport report = memory.report();
  EXPECT_EQ(report.total_gate().num_gated_rows, report.total_gate().num_rows);
  EXPECT_GT(report.total_gate().gate_us, 0);
  EXPECT_GT(report.total_gate().look_up_us, 0);
  EXPECT_EQ(report.total_by_state().num_checks, report.total_by_state().num_hits);
}

// Where nothing else predicts, every expert read ahead is used.
TEST_F(RouteMemoryTest, APoolReadsAheadWhatAKnownTextWillUse) {
  const std::unique_ptr<LoadedModel> plain = load_model(config(), {});
  for (const bool serves : {false, true}) {
    EngineConfig exact = foretelling(/*exact=*/true);
    if (serves) exact.cache.expert_route.mode = RouteMode::kServe;
    exact.prefetch.adapts = false;
    exact.prefetch.gate_lookahead = exact.prefetch.transition = false;
    exact.prefetch.recency = exact.prefetch.prompt_signature = false;
    const std::unique_ptr<LoadedModel> model = load_model(exact, {});
    expect_same_logits(*plain, *model, RandomSteps(one_at_a_time(*plain), 2, kTexts), 400);
    const PrefetchPlanner& planner = *model->weights.expert_memory->planner();
    ASSERT_EQ(planner.num_predictors(), 1);
    EXPECT_EQ(planner.predictor_name(0), "exact_routes");
    EXPECT_GT(planner.counters().num_prefetched, 0);
    EXPECT_EQ(planner.counters().num_stale, 0);
  }
}

TEST_F(RouteMemoryTest, MetricsSayWhatTheReportSays) {
  for (const bool exact : {false, true}) {
    EngineConfig route = serving(exact);
    route.cache.expert_route.projection = ProjectionChoice::kRandom;
    const std::unique_ptr<LoadedModel> model = load_model(route, {});
    run(*model, /*num_steps=*/150);
    const RouteReport report = model->route_memory->report();
    std::map<std::string, double> totals;
    std::map<std::string, int> num_layers;
    std::vector<Metric> metrics;
    append_route_metrics(report, metrics);
    for (const Metric& metric : metrics) {
      totals[std::string(metric.name)] += metric.value;
      num_layers[std::string(metric.name)] += metric.label_name == "layer";
    }
    EXPECT_EQ(totals["route_cache_lossy"], exact ? 0 : 1);
    EXPECT_EQ(num_layers["route_cache_rows"], kMoeLayers);
    EXPECT_EQ(totals["route_cache_rows"], report.total_gate().num_rows);
    EXPECT_EQ(totals["route_cache_answered_rows"], report.total_gate().num_answered_rows);
    EXPECT_GT(totals["route_cache_gate_seconds"], 0);
    EXPECT_GT(totals["route_cache_look_up_seconds"], 0);
    EXPECT_GT(totals["route_cache_hit_rate"], 0);
    EXPECT_EQ(totals["route_cache_known_rows"], report.by_tokens.num_known_rows);
    EXPECT_EQ(totals["route_cache_hits"], report.total_by_state().num_hits);
    EXPECT_EQ(totals["route_cache_agreement"], report.total_by_state().agreement());
    EXPECT_EQ(num_layers["route_cache_threshold"], exact ? 0 : kMoeLayers);
  }
}

TEST_F(RouteMemoryTest, IsPlannedAndTold) {
  std::string told;
  LoadListener listener;
  listener.on_message = [&](const std::string& line) { told += line + "\n"; };
  EngineConfig by_state = serving(/*exact=*/false);
  by_state.cache.expert_route.capacity = 3000;
  const std::unique_ptr<LoadedModel> model = load_model(by_state, listener);
  EXPECT_THAT(told, HasSubstr("route cache, serving (approximate): 1000 states a layer in 16"));
  EXPECT_GT(model->memory.total_bytes(), load_model(config(), {})->memory.total_bytes());
  load_model(foretelling(/*exact=*/true), listener);
  EXPECT_THAT(told, HasSubstr("route cache, foretelling: 21845 tokens of known texts"));
}

TEST_F(RouteMemoryTest, RefusesWhatCannotWorkTogether) {
  EngineConfig no_pool = foretelling(/*exact=*/false);
  no_pool.cache.experts.device_bytes = 0;
  EXPECT_THAT(refusal(no_pool),
              AllOf(HasSubstr("cache.expert_route.mode"), HasSubstr("nothing to prefetch"),
                    HasSubstr("accepted here: serve")));
  EngineConfig no_prefetch = foretelling(/*exact=*/true);
  no_prefetch.prefetch.enabled = false;
  EXPECT_THAT(refusal(no_prefetch), HasSubstr("prefetch.enabled"));

  EngineConfig sample = serving(/*exact=*/false);
  sample.cache.expert_route.dims = 64;
  sample.cache.expert_route.fit_tokens = 64;
  EXPECT_THAT(refusal(sample), HasSubstr("64 tokens do not tell 64 components"));
  EngineConfig any_state = serving(/*exact=*/false);
  any_state.cache.expert_route.similarity_threshold = 0;
  EXPECT_THAT(refusal(any_state), HasSubstr("similarity_threshold"));

  EngineConfig file = serving(/*exact=*/true);
  file.cache.expert_route.projection_file = folder_->file("p");
  EXPECT_THAT(refusal(file), HasSubstr("an exact route cache fits no components"));
  file.cache.expert_route.exact = false;
  file.cache.expert_route.projection = ProjectionChoice::kRandom;
  EXPECT_THAT(refusal(file), HasSubstr("projection random fits no components"));
  file.cache.expert_route.projection = ProjectionChoice::kPca;
  file.cache.expert_route.projection_file = folder_->file("no/such/file");
  EXPECT_THAT(refusal(file), HasSubstr("no/such is no folder"));
  file.cache.expert_route.projection_file =
      folder_->write("damaged", "AUGRPRJ1 and so on").string();
  EXPECT_THAT(refusal(file), HasSubstr("damaged"));
}

TEST_F(RouteMemoryTest, RefusesDenseModelsAndMemoryThatTheHostDoesNotRead) {
  class DeviceOps final : public RowMajorOps {
   public:
    bool uses_host_memory() const override { return false; }
  } device;
  const EngineConfig by_state = serving(/*exact=*/false);
  const auto refusal_of = [&](const ModelConfig& model, const Ops& ops) {
    return message_of<ConfigError>([&] { plan_route_memory(by_state, model, ops, true, 64); });
  };
  ModelConfig dense;
  dense.layers = {LayerKind::kDense};
  EXPECT_THAT(refusal_of(dense, RowMajorOps()), HasSubstr("the model is dense"));
  const std::unique_ptr<LoadedModel> model = load_model(config(), {});
  EXPECT_THAT(refusal_of(model->config(), device),
              AllOf(HasSubstr("runs on the CPU"), HasSubstr("execution.device cpu")));
  ModelConfig narrow = model->config();
  narrow.hidden_size = 8;
  EXPECT_THAT(refusal_of(narrow, RowMajorOps()), HasSubstr("cache.expert_route.dims: 16"));
  EXPECT_FALSE(plan_route_memory(config(), dense, device, false, 64).is_on());
}

}  // namespace
}  // namespace augur
