// The engine with its prefix cache: what it tells of it, and that no answer depends on it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/schedule/engine.h"
#include "tests/schedule/recorder.h"
#include "tests/schedule/toy_model.h"

namespace augur {
namespace {

using test::kToyVocab;

class EnginePrefixTest : public ::testing::Test {
 protected:
  EnginePrefixTest() { make(options_); }

  void make(const EngineOptions& options) {
    engine_.reset();
    options_ = options;
    runner_ = std::make_unique<test::ToyRunner>(limits_);
    engine_ = std::make_unique<Engine>(options, *runner_, &test::toy_tokenizer());
  }

  /// Its prompt counts on from `first`.
  static Request request(const std::string& id, int first, int num_prompt, int max_tokens) {
    Request request{.id = id, .prompt_ids = std::vector<int32_t>(num_prompt)};
    for (int i = 0; i < num_prompt; ++i) request.prompt_ids[i] = (first + i) % kToyVocab;
    request.sampling.max_tokens = max_tokens;
    request.sampling.ignore_eos = true;
    request.sampling.seed = 11;
    return request;
  }
  void submit(const Request& request) { engine_->submit(recorder_.watch(request)); }
  void run_to_end() {
    int64_t num_steps = 0;
    while (engine_->step()) ASSERT_LT(++num_steps, 10'000);
    EXPECT_EQ(engine_->num_free_kv_blocks() + engine_->num_idle_kv_blocks(), limits_.num_kv_blocks);
    EXPECT_EQ(engine_->num_cached_kv_blocks(), engine_->num_idle_kv_blocks());
  }
  const RequestResult& result(const std::string& id) { return recorder_.results().at(id); }
  void expect_as_alone(const Request& request) {
    ASSERT_TRUE(recorder_.results().contains(request.id));
    test::expect_same(result(request.id),
                      test::expected_result(request, limits_.max_context, options_.eos_token_ids));
  }

  ModelRunner::Limits limits_{.max_tokens = 64,
                              .max_seqs = 8,
                              .max_context = 60,
                              .num_kv_blocks = 40,
                              .block_size = 4,
                              .vocab_size = kToyVocab};
  EngineOptions options_{
      .max_batch_size = 8, .max_tokens_per_step = 64, .seed = 5, .prefix_cache = true};
  std::unique_ptr<test::ToyRunner> runner_;
  std::unique_ptr<Engine> engine_;
  test::Recorder recorder_;
};

TEST_F(EnginePrefixTest, TellsHowManyPromptTokensWereThere) {
  std::vector<int64_t> told;
  for (const char* id : {"first", "again", "salted"}) {
    Request asked = request(id, 3, 18, 5);
    if (asked.id == "salted") asked.cache_salt = "pepper";
    asked.on_started = [&](const RequestStart& start) {
      EXPECT_EQ(start.num_prompt_tokens, 18);
      told.push_back(start.num_cached_tokens);
    };
    submit(asked);
    run_to_end();
    expect_as_alone(asked);
    EXPECT_EQ(result(id).num_cached_tokens, told.back());
  }
  EXPECT_THAT(told, testing::ElementsAre(0, 16, 0));
  EXPECT_EQ(runner_->num_rows_run(), 22 + 6 + 22);
  const EngineCounters& counters = engine_->counters();
  EXPECT_EQ(counters.prefix_query_tokens, 3 * 18);
  EXPECT_EQ(counters.prefix_hit_tokens, 16);
  EXPECT_EQ(counters.prefill_tokens + counters.decode_tokens, runner_->num_rows_run());
}

TEST_F(EnginePrefixTest, AConversationComputesOnlyItsNewTurns) {
  Request turn = request("turn 0", 3, 9, 7);
  for (int i = 1; i <= 3; ++i) {
    submit(turn);
    const int64_t num_rows_before = runner_->num_rows_run();
    run_to_end();
    expect_as_alone(turn);
    const auto num_prompt = static_cast<int64_t>(turn.prompt_ids.size());
    const int64_t num_cached = result(turn.id).num_cached_tokens;
    EXPECT_EQ(runner_->num_rows_run() - num_rows_before, num_prompt - num_cached + 6);
    if (i > 1) {
      EXPECT_EQ(num_cached, (num_prompt - 3 - 1) / 4 * 4) << "all whole blocks before";
    }
    const std::vector<int32_t>& output = result(turn.id).completions[0].output_ids;
    turn.prompt_ids.insert(turn.prompt_ids.end(), output.begin(), output.end());
    turn.prompt_ids.insert(turn.prompt_ids.end(), {1, 2, 3});
    turn.id = "turn " + std::to_string(i);
  }
}

TEST_F(EnginePrefixTest, CachedTokensAreNotCountedAgainAfterAPreemption) {
  limits_.num_kv_blocks = 12;
  limits_.max_tokens = 8;
  make(options_);
  submit(request("older", 3, 2, 30));
  const Request newer = request("newer", 9, 18, 20);
  submit(newer);
  run_to_end();
  EXPECT_GT(engine_->counters().preemptions, 0);
  EXPECT_GT(engine_->counters().prefix_evicted_blocks, 0);
  EXPECT_EQ(result("newer").num_cached_tokens, 0);
  EXPECT_EQ(engine_->counters().prefix_query_tokens, 20);
  expect_as_alone(newer);
}

TEST_F(EnginePrefixTest, AFlushGivesUpWhatNobodyUses) {
  submit(request("gone", 3, 18, 1));
  run_to_end();
  const Request running = request("running", 9, 10, 20);
  submit(running);
  for (int i = 0; i < 3; ++i) engine_->step();
  EXPECT_EQ(engine_->num_cached_kv_blocks(), 4 + 2);
  EXPECT_EQ(engine_->num_idle_kv_blocks(), 4);
  EXPECT_EQ(engine_->flush_prefix_cache(), 4);
  EXPECT_EQ(engine_->num_cached_kv_blocks(), 2);
  EXPECT_EQ(engine_->counters().prefix_evicted_blocks, 0) << "no memory was needed";
  run_to_end();
  expect_as_alone(running);
  engine_->flush_prefix_cache();
  EXPECT_EQ(engine_->num_free_kv_blocks(), limits_.num_kv_blocks);
  const Request again = request("again", 3, 18, 1);
  submit(again);
  run_to_end();
  EXPECT_EQ(result("again").num_cached_tokens, 0);
}

TEST_F(EnginePrefixTest, AScoredPromptReusesOnlyWhatIsBeforeItsScores) {
  submit(request("first", 3, 30, 1));
  run_to_end();
  for (const int score_from : {1, 4, 5, 6, 21, 30}) {
    Request scored = request("from " + std::to_string(score_from), 3, 30, 0);
    scored.score_prompt = true;
    scored.score_from = score_from;
    scored.prompt_top_logprobs = 2;
    submit(scored);
    run_to_end();
    expect_as_alone(scored);
    // Without output the last token is not computed, so at most 28 positions are known before.
    EXPECT_EQ(result(scored.id).num_cached_tokens, std::min(28, score_from - 1) / 4 * 4);
  }
}

TEST_F(EnginePrefixTest, AnAbortedRequestLeavesWhatItComputed) {
  submit(request("aborted", 3, 18, 20));
  for (int i = 0; i < 7; ++i) engine_->step();
  EXPECT_TRUE(engine_->abort("aborted"));
  EXPECT_EQ(engine_->num_cached_kv_blocks(), (18 + 6) / 4);
  const Request again = request("again", 3, 18, 20);
  submit(again);
  run_to_end();
  EXPECT_EQ(result("again").num_cached_tokens, 16);
  expect_as_alone(again);
}

TEST_F(EnginePrefixTest, NoQueuedStepKeepsABetterRequestWaiting) {
  options_.policy = SchedulePolicy::kPriority;
  options_.max_batch_size = 2;
  make(options_);
  runner_->set_runs_ahead(true);
  for (const char* id : {"worse", "worst"}) {
    Request asked = request(id, 3, 6, 40);
    asked.priority = asked.id == "worse" ? 1 : 2;
    submit(asked);
  }
  for (int i = 0; i < 4; ++i) engine_->step();
  Request better = request("better", 9, 6, 4);
  better.priority = 0;
  submit(better);
  for (int i = 0; i < 5; ++i) engine_->step();  // one was queued before it came
  EXPECT_TRUE(recorder_.results().contains("better"));
  EXPECT_EQ(engine_->counters().preemptions, 1);
  run_to_end();
  expect_as_alone(better);
}

TEST_F(EnginePrefixTest, TellsOfAdmissionsByTheNumbersInTheBatch) {
  struct Watcher : test::ToyRunner {
    using ToyRunner::ToyRunner;
    void launch(const StepBatch& batch) override {
      for (int s = 0; s < batch.num_seqs(); ++s) {
        first_positions.emplace(batch.sequence_ids[s], batch.positions[batch.query_start[s]]);
      }
      ToyRunner::launch(batch);
    }
    std::map<int64_t, int64_t> first_positions;  // by sequence
  } runner(limits_);
  std::map<int64_t, int64_t> told;
  options_.on_admitted = [&](int64_t id, std::span<const int32_t> prompt, int64_t first_position) {
    EXPECT_EQ(prompt.size(), 18u);
    told.emplace(id, first_position);
  };
  Engine engine(options_, runner, &test::toy_tokenizer());
  for (const char* id : {"a", "b"}) {
    Request asked = request(id, 3, 18, 3);
    asked.sampling.n = 2;
    engine.submit(asked);
    while (engine.step()) continue;
  }
  EXPECT_EQ(told, runner.first_positions);
  EXPECT_EQ(told.size(), 4u);
}

TEST_F(EnginePrefixTest, RefusesExpertAffinityWithoutAnOracle) {
  options_.policy = SchedulePolicy::kExpertAffinity;
  EXPECT_THROW(Engine(options_, *runner_, nullptr), std::logic_error);
}

}  // namespace
}  // namespace augur
