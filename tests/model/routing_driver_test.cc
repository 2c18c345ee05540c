#include "engine/model/routing_driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "cache/routing_recorder.h"
#include "configs/config_error.h"
#include "engine/model/model_loader.h"
#include "engine/schedule/engine.h"
#include "kernels/cpu/reference_ops.h"
#include "tests/prefetch/step_of_rows.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A dense layer, then two of 8 experts, top 2.
ModelConfig small_model() {
  ModelConfig model;
  model.layers = {LayerKind::kDense, LayerKind::kMoe, LayerKind::kMoe};
  model.moe.num_experts = 8;
  model.moe.top_k = 2;
  return model;
}

TracedToken token(int64_t turn, std::map<int32_t, std::vector<int32_t>> experts_of) {
  return {.turn = turn, .experts_of = std::move(experts_of)};
}

// Layers 5 and 7; turns 3 and 9 of two tokens each, interleaved.
RoutingTrace small_trace() {
  RoutingTrace trace;
  trace.num_layers = 2;
  trace.num_experts = 8;
  trace.tokens = {token(3, {{5, {0, 1}}, {7, {7, 6}}}), token(9, {{5, {2, 3}}, {7, {5, 4}}}),
                  token(3, {{5, {1, 4}}, {7, {6, 3}}}), token(9, {{5, {5, 2}}, {7, {0, 7}}})};
  return trace;
}

class RoutingDriverTest : public ::testing::Test {
 protected:
  static constexpr int64_t kMaxTokens = 4;

  std::vector<int32_t> forced(int layer, int64_t num_rows) const {
    const int32_t* const first = driver_.experts() + layer * kMaxTokens * 2;
    return {first, first + num_rows * 2};
  }

  std::unique_ptr<Ops> ops_ = make_reference_ops(1);
  RoutingDriver driver_{fit_routes(small_trace(), "t.csv", small_model()), small_model(),
                        kMaxTokens, *ops_};
};

TEST_F(RoutingDriverTest, GivesASequenceTheTokensOfItsTextByPosition) {
  StepOfRows step;
  driver_.on_step(step.decode(/*sequence_id=*/1, /*position=*/1).add(0, 0, {7, 7}).rows());
  EXPECT_THAT(forced(1, 3), ElementsAre(5, 2, 0, 1, 1, 4));
  EXPECT_THAT(forced(2, 3), ElementsAre(0, 7, 7, 6, 6, 3));
}

TEST_F(RoutingDriverTest, GoesOnWithTheNextTextAndFromTheLastToTheFirst) {
  StepOfRows step;
  driver_.on_step(step.decode(0, 2).decode(1, 2).decode(1, 402).rows());
  EXPECT_THAT(forced(1, 3), ElementsAre(2, 3, 0, 1, 0, 1));
}

TEST_F(RoutingDriverTest, LaterSequencesBeginAllOverTheTrace) {
  RoutingTrace trace = small_trace();
  for (int i = 0; i < 96; ++i) trace.tokens.push_back(trace.tokens[1]);
  const RoutingDriver driver(fit_routes(trace, "t.csv", small_model()), small_model(), kMaxTokens,
                             *ops_);
  EXPECT_EQ(driver.first_token(0), 0);
  EXPECT_EQ(driver.first_token(1), 2);
  std::set<int64_t> tenths;
  for (int64_t id = 2; id < 22; ++id) {
    EXPECT_LT(driver.first_token(id), 100);
    tenths.insert(driver.first_token(id) / 10);
  }
  EXPECT_EQ(tenths.size(), 10u);
}

TEST(RoutesTest, ATokenThatLacksALayerTakesTheNextOnesChoices) {
  RoutingTrace trace = small_trace();
  trace.tokens[0].experts_of.erase(7);  // the first of turn 3
  trace.tokens[3].experts_of.erase(7);  // the last of turn 9
  const RecordedRoutes routes = fit_routes(trace, "t.csv", small_model());
  const auto choices = [&](int64_t token_idx) {
    const int32_t* const first = routes.choices(/*layer_idx=*/1, token_idx);
    return std::vector<int32_t>(first, first + 2);
  };
  EXPECT_THAT(choices(0), ElementsAre(6, 3)) << "of turn 3 too, though 9 ran between";
  EXPECT_THAT(choices(3), ElementsAre(6, 3)) << "going round";
}

TEST(RoutesTest, RefusesATraceThatDoesNotFitTheModel) {
  const auto error = [](const RoutingTrace& trace, const ModelConfig& model) {
    return message_of<ConfigError>([&] { fit_routes(trace, "t.csv", model); });
  };
  ModelConfig model = small_model();
  model.layers.push_back(LayerKind::kMoe);
  EXPECT_THAT(error(small_trace(), model),
              HasSubstr("t.csv: routing of layers: 2; accepted: at least the model's 3"));
  model = small_model();
  model.moe.num_experts = 7;
  EXPECT_THAT(error(small_trace(), model), HasSubstr("expert 7; accepted: 0 to 6"));
  model = small_model();
  model.moe.top_k = 3;
  EXPECT_THAT(error(small_trace(), model),
              AllOf(HasSubstr("turn 3"), HasSubstr("layer 5: 2 experts; accepted: 3")));
  model.moe.top_k = 1;
  EXPECT_THAT(error(small_trace(), model), HasSubstr("2 experts; accepted: 1"));
  RoutingTrace trace = small_trace();
  trace.tokens[3].experts_of[7] = {5};
  EXPECT_THAT(error(trace, small_model()),
              AllOf(HasSubstr("turn 9"), HasSubstr("layer 7: 1 experts; accepted: 2")));
  trace = small_trace();
  trace.tokens[2].experts_of[5] = {4, 4};
  EXPECT_THAT(error(trace, small_model()), HasSubstr("expert 4 twice"));
  model.layers = {LayerKind::kDense};
  EXPECT_THAT(error(small_trace(), model), HasSubstr("execution.routing_trace"));
}

// A small model, its routing recorded while it runs requests.
class DrivenModelTest : public ::testing::Test {
 protected:
  EngineConfig config() const {
    EngineConfig config;
    config.model.path =
        (std::filesystem::path(AUGUR_SOURCE_DIR) / "tests/model/data/glm4_moe").string();
    config.execution.device = DeviceChoice::kCpu;
    config.execution.num_threads = 1;
    config.execution.max_tokens_per_step = 16;
    config.execution.max_batch_size = 3;
    config.kv_cache.block_size = 16;
    return config;
  }

  // Outputs and their log-probabilities, by request.
  using Answers = std::map<std::string, std::vector<std::pair<int32_t, float>>>;

  Answers run(const EngineConfig& config, const std::string& recorded, int32_t first_id) const {
    const auto model = load_model(config, {});
    std::ofstream file(recorded, std::ios::binary);
    RoutingRecorder recorder([&](std::string_view text) { file << text; }, "a small one",
                             *model->ops);
    model->decoder->add_routing_observer(recorder);
    Engine engine({.max_batch_size = 3, .max_tokens_per_step = 16}, *model->decoder, nullptr);
    Answers answers;
    for (int32_t i = 0; i < 5; ++i) {
      Request request{.id = std::to_string(i)};
      for (int32_t j = 0; j < 4 + 3 * i; ++j) {
        request.prompt_ids.push_back((first_id + 7 * i + 5 * j) % 160);
      }
      request.sampling = {.max_tokens = 6, .temperature = 0, .ignore_eos = true, .logprobs = 0};
      request.on_finished = [&](RequestResult&& result) {
        for (const ScoredToken& token : result.completions[0].logprobs) {
          answers[result.id].emplace_back(token.token_id, token.logprob);
        }
      };
      EXPECT_EQ(engine.check(request), "");
      engine.submit(std::move(request));
    }
    while (engine.step()) continue;
    return answers;
  }

  const TempFolder folder_;
};

TEST_F(DrivenModelTest, GivesBackARunWhoseOwnRoutingItIsGiven) {
  EngineConfig driven = config();
  const Answers expected = run(driven, folder_.file("own.csv"), 3);
  ASSERT_EQ(expected.size(), 5u);
  driven.execution.routing_trace = folder_.file("own.csv");
  EXPECT_EQ(run(driven, folder_.file("again.csv"), 3), expected);
  EXPECT_EQ(folder_.read("again.csv"), folder_.read("own.csv"));
}

TEST_F(DrivenModelTest, TakesTheTracesExpertsWhateverTheTextSays) {
  EngineConfig driven = config();
  (void)run(driven, folder_.file("own.csv"), 3);
  const Answers undriven = run(driven, folder_.file("other.csv"), 90);
  driven.execution.routing_trace = folder_.file("own.csv");
  EXPECT_NE(run(driven, folder_.file("driven.csv"), 90), undriven);
  const RoutingTrace own = read_routing_trace(folder_.file("own.csv"));
  const RoutingTrace other = read_routing_trace(folder_.file("other.csv"));
  const RoutingTrace obeyed = read_routing_trace(folder_.file("driven.csv"));
  ASSERT_EQ(obeyed.tokens.size(), own.tokens.size());
  size_t num_different = 0;
  for (size_t i = 0; i < own.tokens.size(); ++i) {
    EXPECT_EQ(obeyed.tokens[i].experts_of, own.tokens[i].experts_of) << i;
    num_different += other.tokens[i].experts_of != own.tokens[i].experts_of;
  }
  EXPECT_GT(num_different, own.tokens.size() / 2);
}

TEST_F(DrivenModelTest, WarnsThatItsOutputMeansNothing) {
  EngineConfig driven = config();
  (void)run(driven, folder_.file("own.csv"), 3);
  EXPECT_FALSE(load_model(driven, {})->decoder->is_routing_forced());
  driven.execution.routing_trace = folder_.file("own.csv");
  std::vector<std::string> warnings;
  LoadListener listener;
  listener.on_warning = [&](const std::string& line) { warnings.push_back(line); };
  const auto model = load_model(driven, listener);
  EXPECT_TRUE(model->decoder->is_routing_forced());
  EXPECT_THAT(warnings, ElementsAre(AllOf(HasSubstr("own.csv"), HasSubstr("meaningless"))));
  EXPECT_THAT(model->memory.to_string(), HasSubstr("routing of a step"));
}

TEST_F(DrivenModelTest, RefusesARouteCacheBesideIt) {
  EngineConfig driven = config();
  (void)run(driven, folder_.file("own.csv"), 3);
  driven.execution.routing_trace = folder_.file("own.csv");
  driven.cache.expert_route.enabled = true;
  EXPECT_THAT(message_of<ConfigError>([&] { load_model(driven, {}); }),
              AllOf(HasSubstr("execution.routing_trace"), HasSubstr("cache.expert_route")));
}

// They would guess what does not run.
TEST_F(DrivenModelTest, DoesNotPredictByItsGates) {
  EngineConfig driven = config();
  (void)run(driven, folder_.file("own.csv"), 3);
  driven.cache.experts.device_bytes = 128 << 10;
  const auto predictors = [](const EngineConfig& config) {
    const auto model = load_model(config, {});
    const PrefetchPlanner& planner = *model->weights.expert_memory->planner();
    std::vector<std::string_view> names;
    for (int i = 0; i < planner.num_predictors(); ++i) names.push_back(planner.predictor_name(i));
    return std::vector<std::string>(names.begin(), names.end());
  };
  EXPECT_THAT(predictors(driven), testing::Contains("gate_lookahead"));
  driven.execution.routing_trace = folder_.file("own.csv");
  EXPECT_THAT(predictors(driven), AllOf(testing::Not(testing::Contains("gate_lookahead")),
                                        testing::Contains("transition")));
}

}  // namespace
}  // namespace augur
