#include "engine/schedule/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/schedule/recorder.h"
#include "tests/schedule/toy_model.h"

namespace augur {
namespace {

using test::expect_same;
using test::expected_result;
using test::kToyEos;
using test::kToyVocab;
using test::Recorder;
using test::toy_tokenizer;
using test::ToyRunner;

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() { make(limits_, options_); }

  void make(const ModelRunner::Limits& limits, const EngineOptions& options) {
    engine_.reset();
    limits_ = limits;
    options_ = options;
    runner_ = std::make_unique<ToyRunner>(limits);
    engine_ = std::make_unique<Engine>(options, *runner_, &toy_tokenizer());
  }

  /// A request that would go on for long: end-of-text is ignored.
  static Request request(const std::string& id, std::vector<int32_t> prompt_ids, int max_tokens) {
    Request request{.id = id, .prompt_ids = std::move(prompt_ids)};
    request.sampling.max_tokens = max_tokens;
    request.sampling.ignore_eos = true;
    request.sampling.seed = 11;
    return request;
  }

  void submit(Request request) { engine_->submit(recorder_.watch(std::move(request))); }
  void run_to_end() {
    int64_t num_steps = 0;
    while (engine_->step()) ASSERT_LT(++num_steps, 10'000);
    EXPECT_EQ(engine_->num_free_kv_blocks(), limits_.num_kv_blocks);
    EXPECT_EQ(engine_->num_running(), 0);
    EXPECT_EQ(engine_->num_waiting(), 0);
  }
  const RequestResult& result(const std::string& id) { return recorder_.results().at(id); }
  void expect_as_alone(const Request& request) {
    ASSERT_TRUE(recorder_.results().contains(request.id));
    expect_same(result(request.id),
                expected_result(request, limits_.max_context, options_.eos_token_ids));
  }
  /// The tokens a request draws when nothing ends it.
  std::vector<int32_t> tokens_of(Request request) {
    request.sampling.stop.clear();
    request.sampling.stop_token_ids.clear();
    request.sampling.ignore_eos = true;
    return expected_result(request, limits_.max_context, {}).completions[0].output_ids;
  }

  ModelRunner::Limits limits_{.max_tokens = 64,
                              .max_seqs = 8,
                              .max_context = 60,
                              .num_kv_blocks = 100,
                              .block_size = 4,
                              .vocab_size = kToyVocab};
  EngineOptions options_{
      .max_batch_size = 8, .max_tokens_per_step = 64, .eos_token_ids = {kToyEos}, .seed = 5};
  std::unique_ptr<ToyRunner> runner_;
  std::unique_ptr<Engine> engine_;
  Recorder recorder_;
};

TEST_F(EngineTest, GeneratesUntilMaxTokens) {
  const Request asked = request("r", {1, 2, 3}, 10);
  submit(asked);
  run_to_end();
  expect_as_alone(asked);
  EXPECT_EQ(result("r").completions[0].output_ids.size(), 10u);
  EXPECT_EQ(result("r").completions[0].finish_reason, FinishReason::kLength);
  EXPECT_FALSE(engine_->step());
}

TEST_F(EngineTest, CountsWhatItDoes) {
  submit(request("r", {1, 2, 3}, 10));
  submit(request("s", {1}, 1));
  run_to_end();
  const EngineCounters& counters = engine_->counters();
  EXPECT_EQ(counters.num_steps, 10);
  EXPECT_EQ(counters.prefill_tokens, 4);
  EXPECT_EQ(counters.decode_tokens, 9);
  EXPECT_EQ(counters.finished_requests, 2);
  EXPECT_EQ(counters.preemptions, 0);
}

TEST_F(EngineTest, EndsAtTheContextWithReasonLength) {
  const Request asked = request("r", {1, 2, 3}, 1000);
  submit(asked);
  run_to_end();
  expect_as_alone(asked);
  EXPECT_EQ(result("r").completions[0].output_ids.size(), 57u);
  EXPECT_EQ(result("r").completions[0].finish_reason, FinishReason::kLength);
}

TEST_F(EngineTest, EndOfTextEndsACompletionAndKeepsItsTokenButNotItsText) {
  Request asked = request("r", {1}, 50);
  const std::vector<int32_t> tokens = tokens_of(asked);
  make(limits_, {.eos_token_ids = {tokens[4]}});
  asked.sampling.ignore_eos = false;
  asked.sampling.skip_special_tokens = false;
  submit(asked);
  run_to_end();
  expect_as_alone(asked);
  const Completion& completion = result("r").completions[0];
  EXPECT_EQ(completion.finish_reason, FinishReason::kStop);
  EXPECT_EQ(completion.output_ids.back(), tokens[4]);
  EXPECT_LE(completion.output_ids.size(), 5u);
  EXPECT_EQ(completion.matched_stop, "");
}

TEST_F(EngineTest, StopTokensEndACompletionAndTheirTextIsKeptOnlyOnRequest) {
  Request asked = request("r", {2, 2}, 50);
  asked.sampling.stop_token_ids = {tokens_of(asked)[6], kToyEos};
  Request including = asked;
  including.id = "including";
  including.sampling.include_stop_in_output = true;
  submit(asked);
  submit(including);
  run_to_end();
  expect_as_alone(asked);
  expect_as_alone(including);
  EXPECT_EQ(result("r").completions[0].finish_reason, FinishReason::kStop);
  EXPECT_EQ(result("r").completions[0].output_ids, result("including").completions[0].output_ids);
}

TEST_F(EngineTest, MinTokensForbidsEveryTokenThatWouldEndTheText) {
  // Heavily favoured: without min_tokens they would be drawn first.
  for (const bool is_eos : {true, false}) {
    Request asked = request(is_eos ? "eos" : "stop", {3, 1}, 30);
    asked.sampling.ignore_eos = false;
    asked.sampling.logit_bias = {{is_eos ? kToyEos : 4, 50.0f}};
    if (!is_eos) asked.sampling.stop_token_ids = {4};
    asked.sampling.min_tokens = 7;
    submit(asked);
    run_to_end();
    expect_as_alone(asked);
    EXPECT_EQ(result(asked.id).completions[0].output_ids.size(), 8u);
    EXPECT_EQ(result(asked.id).completions[0].finish_reason, FinishReason::kStop);
  }
}

TEST_F(EngineTest, MinTokensDelaysStopStrings) {
  Request asked = request("r", {3, 1}, 30);
  asked.sampling.logit_bias = {{0, 50.0f}};  // "a" for ever
  asked.sampling.stop = {"aa"};
  asked.sampling.min_tokens = 5;
  submit(asked);
  run_to_end();
  expect_as_alone(asked);
  EXPECT_EQ(result("r").completions[0].output_ids.size(), 6u);
  EXPECT_EQ(result("r").completions[0].text, "aaaa");
}

TEST_F(EngineTest, IgnoreEosGoesOnPastEndOfText) {
  Request asked = request("r", {3, 1}, 12);
  asked.sampling.logit_bias = {{kToyEos, 50.0f}};
  asked.sampling.min_tokens = 3;
  submit(asked);
  run_to_end();
  EXPECT_EQ(result("r").completions[0].output_ids, std::vector<int32_t>(12, kToyEos));
  EXPECT_EQ(result("r").completions[0].text, "");
}

TEST_F(EngineTest, AStopStringAcrossTokensDropsTheTextAfterIt) {
  Request asked = request("r", {3, 1}, 30);
  // Tokens "ab" are drawn alone; "ba" needs two of them, and the second one's b is dropped.
  asked.sampling.logit_bias = {{3, 50.0f}};
  asked.sampling.stop = {"ba"};
  submit(asked);
  run_to_end();
  const Completion& completion = result("r").completions[0];
  EXPECT_EQ(completion.text, "a");
  EXPECT_EQ(completion.output_ids, (std::vector<int32_t>{3, 3}));
  EXPECT_EQ(completion.matched_stop, "ba");
  EXPECT_EQ(recorder_.streamed("r", 0).text, "a");
}

TEST_F(EngineTest, HeldBackTextArrivesWhenTheTokensEnd) {
  Request asked = request("r", {3, 1}, 3);
  asked.sampling.logit_bias = {{0, 50.0f}};
  asked.sampling.stop = {"aaaa"};
  submit(asked);
  run_to_end();
  EXPECT_EQ(result("r").completions[0].text, "aaa");
  EXPECT_EQ(result("r").completions[0].finish_reason, FinishReason::kLength);
}

TEST_F(EngineTest, ReportsLogprobsOfChosenTokensAndTheLikeliest) {
  Request none = request("none", {1, 2}, 4);
  Request chosen = request("chosen", {1, 2}, 4);
  chosen.sampling.logprobs = 0;
  Request top = request("top", {1, 2}, 4);
  top.sampling.logprobs = 3;
  for (const Request& asked : {none, chosen, top}) submit(asked);
  run_to_end();
  for (const Request& asked : {none, chosen, top}) expect_as_alone(asked);
  EXPECT_TRUE(result("none").completions[0].logprobs.empty());
  EXPECT_EQ(result("chosen").completions[0].logprobs.size(), 4u);
  EXPECT_EQ(result("top").completions[0].logprobs[3].top.size(), 3u);
}

TEST_F(EngineTest, ScoresAPromptWithoutGenerating) {
  Request asked = request("r", {1, 2, 3, 4, 5, 6, 7}, 0);
  asked.score_prompt = true;
  asked.prompt_top_logprobs = 2;
  submit(asked);
  run_to_end();
  expect_as_alone(asked);
  EXPECT_EQ(result("r").prompt_logprobs.size(), 6u);
  EXPECT_TRUE(result("r").completions.empty());
  EXPECT_EQ(runner_->num_rows_run(), 6) << "the last token predicts nothing that is asked for";
}

TEST_F(EngineTest, ScoresFromWhereItIsTold) {
  Request asked = request("r", {1, 2, 3, 4, 5, 6, 7}, 2);
  asked.score_prompt = true;
  asked.score_from = 5;
  Request nothing = asked;
  nothing.id = "nothing";
  nothing.score_from = 7;
  submit(asked);
  submit(nothing);
  run_to_end();
  expect_as_alone(asked);
  EXPECT_EQ(result("r").prompt_logprobs.size(), 2u);
  EXPECT_TRUE(result("nothing").prompt_logprobs.empty());
  EXPECT_EQ(runner_->num_logit_rows(), 2 + 2 + 2);
}

TEST_F(EngineTest, APromptOfOneTokenScoredAloneEnds) {
  Request asked = request("r", {1}, 0);
  asked.score_prompt = true;
  submit(asked);
  run_to_end();
  EXPECT_EQ(result("r").num_prompt_tokens, 1);
  EXPECT_TRUE(result("r").prompt_logprobs.empty());
}

TEST_F(EngineTest, APreemptedScoreIsNeitherLostNorDoneTwice) {
  // The scored prompt is long, and chunked; the older request takes its blocks meanwhile.
  make({.max_tokens = 3,
        .max_seqs = 8,
        .max_context = 60,
        .num_kv_blocks = 16,
        .block_size = 2,
        .vocab_size = kToyVocab},
       options_);
  const Request older = request("older", {1}, 20);
  Request scored = request("scored", {}, 0);
  for (int32_t i = 0; i < 25; ++i) scored.prompt_ids.push_back(i % kToyVocab);
  scored.score_prompt = true;
  scored.prompt_top_logprobs = 1;
  submit(older);
  submit(scored);
  run_to_end();
  expect_as_alone(older);
  expect_as_alone(scored);
  EXPECT_GT(engine_->counters().preemptions, 0);
  EXPECT_EQ(runner_->num_logit_rows(), 20 + 24);
}

TEST_F(EngineTest, CompletionsOfOnePromptShareItsBlocksAndDifferBySeed) {
  Request asked = request("r", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 6);
  asked.sampling.n = 4;
  asked.score_prompt = true;
  submit(asked);
  run_to_end();
  expect_as_alone(asked);
  EXPECT_NE(result("r").completions[0].output_ids, result("r").completions[1].output_ids);
  // 10 prompt rows, the 2 past the full blocks three times more, and 5 decode rows each.
  EXPECT_EQ(runner_->num_rows_run(), 10 + 3 * 2 + 4 * 5);
}

TEST_F(EngineTest, CompletionIDrawsFromSeedPlusI) {
  Request several = request("several", {1, 2, 3, 4, 5}, 6);
  several.sampling.n = 3;
  Request second = request("second", {1, 2, 3, 4, 5}, 6);
  second.sampling.seed = *several.sampling.seed + 2;
  submit(several);
  submit(second);
  run_to_end();
  EXPECT_EQ(result("several").completions[2].output_ids,
            result("second").completions[0].output_ids);
}

TEST_F(EngineTest, WithoutASeedTheAnswerDependsOnTheIdNotOnTheOrder) {
  std::vector<std::string> ids = {"a", "b", "c"};
  std::vector<std::vector<int32_t>> outputs;
  for (int round = 0; round < 2; ++round) {
    make(limits_, options_);
    recorder_ = Recorder();
    for (const std::string& id : ids) {
      Request asked = request(id, {1, 2}, 20);
      asked.sampling.seed.reset();
      submit(asked);
    }
    run_to_end();
    for (const std::string id : {"a", "b", "c"}) {
      outputs.push_back(result(id).completions[0].output_ids);
    }
    std::swap(ids[0], ids[2]);
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(outputs[i], outputs[i + 3]);
  EXPECT_NE(outputs[0], outputs[1]);
  EXPECT_NE(outputs[1], outputs[2]);

  EngineOptions other = options_;
  other.seed = 6;
  make(limits_, other);
  recorder_ = Recorder();
  Request asked = request("a", {1, 2}, 20);
  asked.sampling.seed.reset();
  submit(asked);
  run_to_end();
  EXPECT_NE(result("a").completions[0].output_ids, outputs[0]);
}

TEST_F(EngineTest, KeepsWithinTheSmallerOfItsOwnAndTheRunnersLimits) {
  for (const bool runner_is_smaller : {true, false}) {
    ModelRunner::Limits limits = limits_;
    EngineOptions options = options_;
    (runner_is_smaller ? limits.max_tokens : options.max_tokens_per_step) = 5;
    (runner_is_smaller ? limits.max_seqs : options.max_batch_size) = 3;
    make(limits, options);
    recorder_ = Recorder();
    for (int i = 0; i < 6; ++i) submit(request(std::to_string(i), {1, 2, 3, 4, 5, 6, 7}, 9));
    run_to_end();
    EXPECT_EQ(runner_->most_rows(), 5);
    EXPECT_EQ(runner_->most_seqs(), 3);
    EXPECT_EQ(recorder_.results().size(), 6u);
  }
}

TEST_F(EngineTest, AbortsARequestWaitingRunningAndShared) {
  options_.max_batch_size = 2;
  make(limits_, options_);
  Request shared = request("shared", {1, 2, 3, 4, 5, 6, 7, 8, 9}, 30);
  shared.sampling.n = 3;
  submit(shared);
  submit(request("waiting", {1, 2, 3}, 5));
  EXPECT_TRUE(engine_->abort("waiting"));
  EXPECT_EQ(result("waiting").completions[0].finish_reason, FinishReason::kAborted);
  EXPECT_TRUE(result("waiting").completions[0].output_ids.empty());
  for (int i = 0; i < 4; ++i) engine_->step();
  EXPECT_TRUE(engine_->abort("shared"));
  EXPECT_FALSE(engine_->abort("shared"));
  EXPECT_FALSE(engine_->abort("unknown"));
  ASSERT_EQ(result("shared").completions.size(), 3u);
  EXPECT_EQ(result("shared").completions[0].output_ids.size(), 4u);
  EXPECT_EQ(result("shared").completions[1].output_ids.size(), 3u);
  EXPECT_EQ(result("shared").completions[2].output_ids.size(), 0u);
  EXPECT_FALSE(engine_->step());
  EXPECT_EQ(engine_->num_free_kv_blocks(), limits_.num_kv_blocks);
  EXPECT_EQ(engine_->counters().finished_requests, 2);
}

TEST_F(EngineTest, AStepThatFailsForSomeRequestsEndsThemAndNoOthers) {
  Request good = request("good", {1, 2, 3, 4, 5}, 12);
  good.sampling.logit_bias = {{20, -std::numeric_limits<float>::infinity()}};
  Request both = request("both", {7, 8, 9, 10, 20}, 12);
  both.sampling.n = 2;
  submit(good);
  submit(both);
  submit(request("late", {5, 20, 5}, 3));
  runner_->fail_on(20);
  run_to_end();
  expect_as_alone(good);
  EXPECT_EQ(result("both").error, "the token cannot be run");
  ASSERT_EQ(result("both").completions.size(), 2u);
  EXPECT_EQ(result("both").completions[1].finish_reason, FinishReason::kFailed);
  EXPECT_EQ(result("late").error, "the token cannot be run");
  EXPECT_TRUE(result("good").error.empty());
  EXPECT_EQ(engine_->counters().finished_requests, 3);
}

TEST_F(EngineTest, AFailureWhileGeneratingKeepsWhatThereWas) {
  Request asked = request("r", {3, 1}, 30);
  asked.sampling.logit_bias = {{4, 50.0f}};
  submit(asked);
  for (int i = 0; i < 3; ++i) engine_->step();
  runner_->fail_on(4);
  run_to_end();
  EXPECT_EQ(result("r").completions[0].output_ids, (std::vector<int32_t>{4, 4, 4}));
  EXPECT_EQ(result("r").completions[0].finish_reason, FinishReason::kFailed);
  EXPECT_FALSE(result("r").error.empty());
}

TEST_F(EngineTest, AnAbortKeepsCompletionsThatHadEnded) {
  Request asked = request("r", {1, 2}, 30);
  asked.sampling.n = 2;
  asked.sampling.ignore_eos = false;
  asked.sampling.temperature = 4;
  // Find a seed with which one completion ends well before the other.
  RequestResult expected;
  do {
    ++*asked.sampling.seed;
    expected = expected_result(asked, limits_.max_context, options_.eos_token_ids);
  } while (expected.completions[0].output_ids.size() + 5 >
           expected.completions[1].output_ids.size());
  submit(asked);
  for (size_t i = 0; i < expected.completions[0].output_ids.size() + 2; ++i) engine_->step();
  EXPECT_TRUE(engine_->abort("r"));
  expect_same(result("r").completions[0], expected.completions[0]);
  EXPECT_EQ(result("r").completions[1].finish_reason, FinishReason::kAborted);
}

TEST_F(EngineTest, AnAbortedTextHasWhatWasHeldBack) {
  Request asked = request("r", {3, 1}, 30);
  asked.sampling.logit_bias = {{0, 50.0f}};
  asked.sampling.stop = {"aaaaaaaa"};
  submit(asked);
  for (int i = 0; i < 3; ++i) engine_->step();
  engine_->abort("r");
  EXPECT_EQ(result("r").completions[0].text, "aaa");
}

TEST_F(EngineTest, CallbacksMayAbortAndSubmitButNotStep) {
  Request asked = request("r", {1, 2}, 30);
  asked.sampling.n = 2;
  int num_updates = 0;
  int num_finished = 0;
  asked.on_update = [&](const RequestUpdate&) {
    ++num_updates;
    EXPECT_THROW(engine_->step(), std::logic_error);
    EXPECT_TRUE(engine_->abort("r"));
    EXPECT_EQ(num_finished, 1);
  };
  asked.on_finished = [&](RequestResult&& result) {
    ++num_finished;
    EXPECT_EQ(result.completions[1].output_ids.size(), 1u);
    submit(request("next", {4}, 3));
  };
  engine_->submit(asked);
  EXPECT_TRUE(engine_->step());
  EXPECT_EQ(num_updates, 1) << "the second completion's update comes after the abort";
  EXPECT_EQ(num_finished, 1);
  run_to_end();
  EXPECT_EQ(result("next").completions[0].output_ids.size(), 3u);
}

TEST_F(EngineTest, AbortsOfSeveralRequestsMayNest) {
  Request first = request("first", {1, 2}, 30);
  std::string order;
  first.on_finished = [&](RequestResult&& result) {
    EXPECT_TRUE(engine_->abort("second"));
    EXPECT_FALSE(engine_->abort("first"));
    order += result.id + " ";
  };
  Request second = request("second", {1, 2}, 30);
  second.on_finished = [&](RequestResult&& result) { order += result.id + " "; };
  engine_->submit(first);
  engine_->submit(second);
  engine_->step();
  EXPECT_TRUE(engine_->abort("first"));
  EXPECT_EQ(order, "second first ");
  EXPECT_FALSE(engine_->step());
  EXPECT_EQ(engine_->num_free_kv_blocks(), limits_.num_kv_blocks);
}

TEST_F(EngineTest, RequestsNeedNoCallbacksAndNoTokenizer) {
  Engine engine(options_, *runner_, nullptr);
  engine.submit(request("r", {1, 2}, 3));
  while (engine.step()) continue;
  EXPECT_EQ(engine.counters().finished_requests, 1);
  Request with_stop = request("r", {1, 2}, 3);
  with_stop.sampling.stop = {"x"};
  EXPECT_NE(engine.check(with_stop), "");
}

TEST_F(EngineTest, RefusesAnIdInUseAndWhatCheckRefuses) {
  submit(request("r", {1, 2}, 3));
  EXPECT_EQ(engine_->check(request("r", {1, 2}, 3)),
            "request id \"r\" is in use; accepted: an id no live request has");
  EXPECT_THROW(engine_->submit(request("r", {1, 2}, 3)), std::logic_error);
  EXPECT_THROW(engine_->submit(request("s", {}, 3)), std::logic_error);
  run_to_end();
  EXPECT_EQ(engine_->check(request("r", {1, 2}, 3)), "");
}

TEST_F(EngineTest, AFailedStepCanBeTriedAgain) {
  const Request asked = request("r", {1, 2, 3}, 10);
  submit(asked);
  engine_->step();
  for (int i = 0; i < 3; ++i) {
    runner_->set_failing(true);
    EXPECT_THROW(engine_->step(), std::runtime_error);
    runner_->set_failing(false);
    EXPECT_TRUE(engine_->step());
  }
  run_to_end();
  expect_as_alone(asked);
}

TEST_F(EngineTest, LeavesNothingUnderWayWithTheRunner) {
  ToyRunner runner(limits_);
  runner.set_runs_ahead(true);
  {
    Engine engine(options_, runner, &toy_tokenizer());
    engine.submit(request("r", {1}, 20));
    EXPECT_TRUE(engine.step());  // and the next step is queued
    EXPECT_EQ(runner.num_under_way(), 1);
  }
  EXPECT_EQ(runner.num_under_way(), 0);
  Engine engine(options_, runner, &toy_tokenizer());
  engine.submit(request("s", {2}, 20));
  EXPECT_TRUE(engine.step());
  EXPECT_TRUE(engine.abort("s"));
  EXPECT_EQ(runner.num_under_way(), 1);
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(runner.num_under_way(), 0);
}

TEST_F(EngineTest, RefusesWhatARunnerMayNotReturn) {
  struct BadRunner : ToyRunner {
    using ToyRunner::ToyRunner;
    void launch(const StepBatch&) override {}
    void collect(std::vector<LogitResult>& results) override {
      results.assign(num_results, {.sampled_id = sampled_id});
    }
    size_t num_results = 1;
    int32_t sampled_id = kToyVocab;
  } runner(limits_);
  Engine engine(options_, runner, &toy_tokenizer());
  engine.submit(request("r", {1}, 2));
  EXPECT_THROW(engine.step(), std::logic_error);
  runner.sampled_id = -1;
  EXPECT_THROW(engine.step(), std::logic_error);
  runner.sampled_id = 0;
  runner.num_results = 2;
  EXPECT_THROW(engine.step(), std::logic_error);
  runner.num_results = 1;
  EXPECT_TRUE(engine.step());
}

TEST_F(EngineTest, RefusesAnEndOfTextTokenOutsideTheVocabulary) {
  options_.eos_token_ids = {kToyVocab};
  EXPECT_THROW(Engine(options_, *runner_, nullptr), std::logic_error);
}

}  // namespace
}  // namespace augur
