// Replay says of a pool what the engine did with it, reading from files.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <boost/json/parse.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <tuple>

#include "cache/routing_recorder.h"
#include "engine/model/model_loader.h"
#include "engine/schedule/engine.h"
#include "tests/temp_folder.h"
#include "tools/replay/replay.h"

namespace augur {
namespace {

const std::filesystem::path kRoot = AUGUR_SOURCE_DIR;

// Of the demo model: 6 layers of 32.
constexpr int kNumExperts = 192;
constexpr double kUsesPerToken = 6 * 4;
// Hit rates differ by no more: experts come one by one, so that a full pool gives way to them in
// another order than where reading takes no time.
constexpr double kTolerance = 0.01;

class ReplayAgreementTest
    : public ::testing::TestWithParam<std::tuple<PrecisionChoice, EvictionChoice, int>> {
 protected:
  std::unique_ptr<LoadedModel> load() {
    const auto [precision, policy, percent] = GetParam();
    EngineConfig config;
    config.model.path = (kRoot / "models/tiny-glm4-moe").string();
    config.execution.device = DeviceChoice::kCpu;
    config.execution.precision = precision;
    config.execution.max_batch_size = 3;
    config.kv_cache.max_context = 2048;
    config.kv_cache.bytes = int64_t{32} << 20;
    config.cache.experts.policy = policy;
    config.cache.experts.device_bytes = int64_t{1} << 30;  // as many as there are; see below
    config.prefetch.enabled = false;
    LoadListener listener;
    num_slots_ = kNumExperts * percent / 100;
    listener.on_expert_memory = [&](ExpertMemory::Parts& parts, const ExpertStore&, const Ops&) {
      parts.num_slots = num_slots_;
      make_policy_ = parts.make_policy;
    };
    return load_model(config, listener);
  }

  /// Documents of different subjects: two that fill more than the 1024 rows of a part, scored, and
  /// five that are continued, beside them and after them.
  static void submit_requests(Engine& engine, const Tokenizer& tokenizer) {
    std::ifstream lines(kRoot / "tests/data/eval.jsonl");
    int64_t line_idx = 0;
    for (std::string line; std::getline(lines, line); ++line_idx) {
      if (line_idx % 13 != 0) continue;
      const boost::json::value document = boost::json::parse(line);
      Request request;
      request.id = document.at("id").as_string().c_str();
      request.prompt_ids = tokenizer.encode(document.at("text").as_string());
      const bool is_scored = line_idx < 2 * 13;
      const size_t most = is_scored ? 1000 : 20;
      request.prompt_ids.resize(std::min(most, request.prompt_ids.size()));
      request.score_prompt = is_scored;
      request.sampling.max_tokens = is_scored ? 0 : 32;
      request.sampling.temperature = 0;
      request.sampling.ignore_eos = true;
      ASSERT_EQ(engine.check(request), "");
      engine.submit(std::move(request));
    }
  }

  const TempFolder folder_;
  int num_slots_ = 0;
  std::function<std::unique_ptr<EvictionPolicy>(int num_slots, double uses_per_token)> make_policy_;
};

TEST_P(ReplayAgreementTest, FindsTheEnginesHitRate) {
  const std::unique_ptr<LoadedModel> model = load();
  std::ofstream file(folder_.file("trace.csv"), std::ios::binary);
  RoutingRecorder recorder([&](std::string_view text) { file << text; }, "the demo model",
                           *model->ops);
  model->decoder->add_routing_observer(recorder);
  Engine engine({.max_batch_size = 3, .max_tokens_per_step = model->decoder->limits().max_tokens},
                *model->decoder, &*model->tokenizer);
  submit_requests(engine, *model->tokenizer);
  while (engine.step()) continue;
  file.close();
  const ExpertUseCounts actual = model->weights.expert_memory->counters().total();

  const RoutingTrace trace = read_routing_trace(folder_.file("trace.csv"));
  ReplayOptions options = {.num_slots = num_slots_};
  options.max_rows = std::get<0>(GetParam()) == PrecisionChoice::kReference ? 256 : 1024;
  const ReplayResult replayed = replay(trace, options, make_policy_(num_slots_, kUsesPerToken));
  const int64_t num_uses = replayed.prompt.num_uses + replayed.generated.num_uses;
  const int64_t num_hits = replayed.prompt.num_hits + replayed.generated.num_hits;
  EXPECT_EQ(num_uses, actual.num_uses);
  EXPECT_EQ(actual.num_prefetches, 0);
  EXPECT_GT(replayed.prompt.num_uses, kNumExperts) << "a step that is run in parts";
  EXPECT_GT(replayed.generated.num_uses, 1000);
  const double hit_rate = static_cast<double>(num_hits) / static_cast<double>(num_uses);
  EXPECT_NEAR(hit_rate, actual.hit_rate(), kTolerance);
}

std::string name_of_case(const ::testing::TestParamInfo<ReplayAgreementTest::ParamType>& info) {
  const auto [precision, policy, percent] = info.param;
  return std::string(kEnumWords<PrecisionChoice>[static_cast<size_t>(precision)]) + "_" +
         std::string(kEnumWords<EvictionChoice>[static_cast<size_t>(policy)]) + "_" +
         std::to_string(percent);
}

constexpr auto kPolicies =
    std::array{EvictionChoice::kLru, EvictionChoice::kLfu, EvictionChoice::kLeastStale};
INSTANTIATE_TEST_SUITE_P(Pools,
                         ReplayAgreementTest,
                         ::testing::Combine(::testing::Values(PrecisionChoice::kBF16),
                                            ::testing::ValuesIn(kPolicies),
                                            ::testing::Values(10, 25, 50)),
                         name_of_case);
INSTANTIATE_TEST_SUITE_P(Parts,
                         ReplayAgreementTest,
                         ::testing::Combine(::testing::Values(PrecisionChoice::kReference),
                                            ::testing::ValuesIn(kPolicies),
                                            ::testing::Values(25)),
                         name_of_case);

}  // namespace
}  // namespace augur
