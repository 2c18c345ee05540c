// On CUDA a request's bits depend on how many rows share its steps, and on nothing else of them.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "engine/model/model_loader.h"
#include "engine/schedule/engine.h"
#include "kernels/cuda/cuda_ops.h"

namespace augur {
namespace {

struct Answer {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  bool operator==(const Answer&) const = default;
};

class CudaBatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (num_cuda_devices() == 0) GTEST_SKIP() << why_no_cuda();
    EngineConfig config;
    config.model.path = AUGUR_SOURCE_DIR "/models/tiny-glm4-moe";
    config.execution.device = DeviceChoice::kCuda;
    config.kv_cache.max_context = 256;
    model_ = load_model(config, {});
  }

  // The answers to prompts of one length each, all submitted at once, by greedy choice.
  std::vector<Answer> answers(const std::vector<std::vector<int32_t>>& prompts,
                              float temperature = 0) {
    Engine engine({.max_batch_size = 64}, *model_->decoder, /*tokenizer=*/nullptr);
    std::vector<Answer> answers(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      Request request;
      request.id = std::to_string(i);
      request.prompt_ids = prompts[i];
      request.sampling.temperature = temperature;
      request.sampling.seed = 11;
      request.sampling.max_tokens = 40;
      request.sampling.ignore_eos = true;
      request.sampling.logprobs = 0;
      request.on_finished = [&answer = answers[i]](RequestResult&& result) {
        answer.ids = result.completions.at(0).output_ids;
        for (const ScoredToken& token : result.completions[0].logprobs) {
          answer.logprobs.push_back(token.logprob);
        }
      };
      EXPECT_EQ(engine.check(request), "");
      engine.submit(std::move(request));
    }
    while (engine.step()) {
    }
    return answers;
  }

  static std::vector<int32_t> prompt(int32_t first) {
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < 20; ++i) ids.push_back((first + 37 * i) % 4096);
    return ids;
  }

  std::unique_ptr<LoadedModel> model_;
};

TEST_F(CudaBatchTest, AnswersDoNotDependOnWhatTheOthersAsk) {
  for (const float temperature : {0.0f, 0.8f}) {
    const auto some = answers({prompt(1), prompt(2), prompt(3)}, temperature);
    const auto others = answers({prompt(1), prompt(400), prompt(1700)}, temperature);
    EXPECT_EQ(some[0], others[0]);
    EXPECT_NE(some[1], others[1]);
    const auto last = answers({prompt(5), prompt(6), prompt(1)}, temperature);
    EXPECT_EQ(last[2].ids.size(), 40u);
    EXPECT_EQ(some[0], last[2]) << "nor on the place among them";
  }
}

TEST_F(CudaBatchTest, AnswersAreTheSameRunAfterRun) {
  const std::vector<std::vector<int32_t>> prompts = {prompt(1), prompt(2), prompt(3), prompt(4),
                                                     prompt(5)};
  const auto first = answers(prompts);
  for (int run = 0; run < 3; ++run) EXPECT_EQ(answers(prompts), first);
}

}  // namespace
}  // namespace augur
