// Random mixes of requests in tiny caches: each must be answered as if it were alone.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/schedule/engine.h"
#include "tests/schedule/recorder.h"
#include "tests/schedule/topic_oracle.h"
#include "tests/schedule/toy_model.h"

namespace augur {
namespace {

using test::kToyEos;
using test::kToyVocab;

class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  /// Uniform in [low, high].
  int64_t in(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(engine_() % static_cast<uint64_t>(high - low + 1));
  }
  bool one_in(int64_t count) { return in(1, count) == 1; }
  template <typename T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[in(0, static_cast<int64_t>(values.size()) - 1)];
  }

 private:
  std::mt19937_64 engine_;
};

Request random_request(Dice& dice, const std::string& id) {
  Request request{.id = id};
  const int64_t num_prompt = dice.one_in(4) ? dice.in(1, 40) : dice.in(1, 12);
  for (int64_t i = 0; i < num_prompt; ++i) {
    request.prompt_ids.push_back(static_cast<int32_t>(dice.in(0, kToyVocab - 1)));
  }
  SamplingParams& params = request.sampling;
  params.max_tokens = dice.one_in(2) ? dice.in(10, 60) : dice.in(1, 10);
  params.min_tokens = dice.one_in(3) ? dice.in(0, params.max_tokens) : 0;
  params.n = dice.one_in(3) ? static_cast<int>(dice.in(2, 5)) : 1;
  params.temperature = dice.pick({0.0f, 0.5f, 1.0f});
  params.repetition_penalty = dice.pick({1.0f, 1.0f, 1.25f});
  params.presence_penalty = dice.pick({0.0f, 0.0f, 0.5f});
  params.seed = dice.in(0, 1'000'000);
  if (dice.one_in(4)) {
    params.logit_bias = {{static_cast<int32_t>(dice.in(0, kToyVocab - 1)), 3.0f}, {2, -4.0f}};
  }
  for (int64_t i = dice.one_in(3) ? dice.in(1, 3) : 0; i > 0; --i) {
    params.stop.push_back(dice.pick<std::string>({"ab", "abc", "ba", "aab", "bcab", "\n", "\n\n",
                                                  "\xC3\xA9", " a", "c\xC3\xA9", "\xEF\xBF\xBD"}));
  }
  if (dice.one_in(4)) params.stop_token_ids = {static_cast<int32_t>(dice.in(0, kToyVocab - 1))};
  params.include_stop_in_output = dice.one_in(3);
  params.ignore_eos = !dice.one_in(4);
  params.skip_special_tokens = dice.one_in(2);
  params.logprobs = static_cast<int>(dice.pick({-1, -1, 0, 2}));
  if (dice.one_in(3)) {
    request.score_prompt = true;
    request.score_from = dice.in(1, num_prompt);
    request.prompt_top_logprobs = static_cast<int>(dice.pick({0, 0, 3}));
    if (dice.one_in(2)) params.max_tokens = params.min_tokens = 0;
  }
  return request;
}

/// Of a few families that begin alike, some of them those of an answer before.
void make_alike(Dice& dice, const std::vector<std::vector<int32_t>>& known, Request& request) {
  request.cache_salt = dice.pick<std::string>({"", "", "salt"});
  request.tenant = dice.pick<std::string>({"a", "b", "c"});
  request.priority = dice.in(-1, 1);
  std::vector<int32_t> beginning;
  if (!known.empty() && dice.one_in(2)) {
    beginning = known[dice.in(0, static_cast<int64_t>(known.size()) - 1)];
  } else {
    beginning.assign(32, static_cast<int32_t>(dice.in(0, 1)));
  }
  std::vector<int32_t>& ids = request.prompt_ids;
  const int64_t most = std::min(ids.size(), beginning.size());
  std::copy_n(beginning.begin(), dice.in(0, most), ids.begin());
}

struct Totals {
  int64_t num_finished = 0;
  int64_t num_aborted = 0;
  int64_t num_preemptions = 0;
  int64_t num_failed_steps = 0;
  int64_t num_reordered = 0;
  int64_t num_evicted = 0;
  int64_t num_cached_tokens = 0;
  int64_t num_with_cached = 0;  // requests
};

/// Knows the experts of two thirds of the prompts, of the others from some time on.
class RandomOracle : public AffinityOracle {
 public:
  explicit RandomOracle(uint64_t seed) : dice_(seed) {
    for (int32_t token_id = 0; token_id < kToyVocab; ++token_id) {
      if (!dice_.one_in(3)) teach(token_id);
    }
  }
  const ExpertSignature* signature_of(std::span<const int32_t> prompt_ids) override {
    if (dice_.one_in(20)) teach(prompt_ids[0]);
    return topics_.signature_of(prompt_ids);
  }

 private:
  void teach(int32_t token_id) {
    std::vector<int32_t> experts;
    for (int64_t i = dice_.in(1, 6); i > 0; --i) {
      experts.push_back(static_cast<int32_t>(dice_.in(0, 7)));
    }
    topics_.teach(token_id, experts);
  }

  Dice dice_;
  test::TopicOracle topics_;
};

/// What was computed of an aborted request must be how the whole answer begins.
void expect_beginning(const RequestResult& aborted, const RequestResult& whole) {
  ASSERT_LE(aborted.prompt_logprobs.size(), whole.prompt_logprobs.size());
  auto scores = whole.prompt_logprobs;
  scores.resize(aborted.prompt_logprobs.size());
  test::expect_same(aborted.prompt_logprobs, scores);
  ASSERT_EQ(aborted.completions.size(), whole.completions.size());
  for (size_t i = 0; i < whole.completions.size(); ++i) {
    const Completion& part = aborted.completions[i];
    if (part.finish_reason != FinishReason::kAborted) {
      test::expect_same(part, whole.completions[i]);
      continue;
    }
    std::vector<int32_t> ids = whole.completions[i].output_ids;
    ASSERT_LE(part.output_ids.size(), ids.size());
    ids.resize(part.output_ids.size());
    EXPECT_EQ(part.output_ids, ids);
  }
}

std::vector<std::vector<int32_t>> texts_of(const std::vector<Request>& requests,
                                           const std::map<std::string, RequestResult>& results) {
  std::vector<std::vector<int32_t>> texts;
  for (const Request& request : requests) {
    const auto found = results.find(request.id);
    if (found == results.end() || found->second.completions.empty()) continue;
    std::vector<int32_t>& text = texts.emplace_back(request.prompt_ids);
    const std::vector<int32_t>& output = found->second.completions[0].output_ids;
    text.insert(text.end(), output.begin(), output.end());
  }
  return texts;
}

/// The most of a request's prompt that may have been there: a beginning, in whole blocks, of what a
/// request of the same salt had computed.
int64_t most_cached(const Request& request,
                    int block_size,
                    const std::vector<Request>& requests,
                    const std::map<std::string, RequestResult>& results) {
  int64_t most = 0;
  for (const Request& other : requests) {
    if (other.id == request.id || other.cache_salt != request.cache_salt) continue;
    std::vector<std::vector<int32_t>> texts = {other.prompt_ids};
    for (const Completion& completion : results.at(other.id).completions) {
      std::vector<int32_t>& text = texts.emplace_back(other.prompt_ids);
      text.insert(text.end(), completion.output_ids.begin(), completion.output_ids.end());
    }
    for (const std::vector<int32_t>& text : texts) {
      const auto parting = std::mismatch(request.prompt_ids.begin(), request.prompt_ids.end(),
                                         text.begin(), text.end());
      most = std::max<int64_t>(most, parting.first - request.prompt_ids.begin());
    }
  }
  return most / block_size * block_size;
}

void run_scenario(uint64_t seed, EngineOptions options, Totals& totals) {
  Dice dice(seed);
  ModelRunner::Limits limits{.max_tokens = dice.one_in(2) ? dice.in(1, 8) : dice.in(9, 64),
                             .max_seqs = dice.in(1, 12),
                             .max_context = dice.in(8, 64),
                             .num_kv_blocks = dice.in(3, 30),
                             .block_size = static_cast<int>(dice.in(1, 6)),
                             .vocab_size = kToyVocab};
  options.max_batch_size = dice.in(2, 12);
  options.max_tokens_per_step = dice.in(1, 64);
  options.eos_token_ids = {kToyEos};
  test::ToyRunner runner(limits);
  Engine engine(options, runner, &test::toy_tokenizer());
  test::Recorder recorder;

  std::vector<Request> accepted;
  std::vector<std::string> aborted;
  // As on a device that works while the host prepares the next step, or as on a CPU.
  runner.set_runs_ahead(dice.one_in(2));
  int64_t num_to_submit = dice.in(1, 14);
  std::vector<std::vector<int32_t>> known;  // texts that were answered
  int64_t num_steps = 0;
  for (bool is_busy = true; is_busy || num_to_submit > 0;) {
    while (num_to_submit > 0 && (!is_busy || dice.one_in(3))) {
      --num_to_submit;
      Request request = random_request(dice, fmt::format("request {}", num_to_submit));
      if (options.prefix_cache) make_alike(dice, known, request);
      if (!engine.check(request).empty()) continue;
      accepted.push_back(request);
      engine.submit(recorder.watch(std::move(request)));
      is_busy = true;
    }
    if (!accepted.empty() && dice.one_in(40)) {
      const std::string& id = accepted[dice.in(0, accepted.size() - 1)].id;
      if (engine.abort(id)) aborted.push_back(id);
    }
    if (is_busy && dice.one_in(50)) {
      runner.set_failing(true);
      try {
        engine.step();  // does nothing when the last request was aborted
      } catch (const std::runtime_error&) {
        ++totals.num_failed_steps;
      }
      runner.set_failing(false);
    }
    if (options.prefix_cache && dice.one_in(60)) engine.flush_prefix_cache();
    is_busy = engine.step();
    if (options.prefix_cache) known = texts_of(accepted, recorder.results());
    ASSERT_LT(++num_steps, 20'000) << "no end in sight";
  }

  EXPECT_EQ(engine.num_idle_kv_blocks(), engine.num_cached_kv_blocks());
  EXPECT_EQ(engine.flush_prefix_cache(), limits.num_kv_blocks - engine.num_free_kv_blocks());
  EXPECT_EQ(engine.num_free_kv_blocks(), limits.num_kv_blocks);
  EXPECT_EQ(engine.num_cached_kv_blocks(), 0);
  EXPECT_EQ(engine.num_running(), 0);
  EXPECT_EQ(engine.num_waiting(), 0);
  EXPECT_EQ(recorder.results().size(), accepted.size());
  EXPECT_EQ(engine.counters().finished_requests, static_cast<int64_t>(accepted.size()));
  EXPECT_LE(runner.most_rows(), options.max_tokens_per_step);
  EXPECT_LE(runner.most_seqs(), options.max_batch_size);
  EXPECT_EQ(engine.counters().prefill_tokens + engine.counters().decode_tokens,
            runner.num_rows_run());
  for (const Request& request : accepted) {
    SCOPED_TRACE(request.id);
    const RequestResult& actual = recorder.results().at(request.id);
    const RequestResult expected =
        test::expected_result(request, limits.max_context, options.eos_token_ids);
    const bool is_aborted = std::find(aborted.begin(), aborted.end(), request.id) != aborted.end();
    is_aborted ? expect_beginning(actual, expected) : test::expect_same(actual, expected);
    EXPECT_LE(actual.num_cached_tokens,
              most_cached(request, limits.block_size, accepted, recorder.results()));
    totals.num_cached_tokens += actual.num_cached_tokens;
    totals.num_with_cached += actual.num_cached_tokens > 0;
  }
  EXPECT_TRUE(options.prefix_cache || totals.num_cached_tokens == 0);
  totals.num_finished += static_cast<int64_t>(accepted.size() - aborted.size());
  totals.num_aborted += static_cast<int64_t>(aborted.size());
  totals.num_preemptions += engine.counters().preemptions;
  totals.num_reordered += engine.counters().reordered_admissions;
  totals.num_evicted += engine.counters().prefix_evicted_blocks;
}

class EngineRandomTest : public ::testing::TestWithParam<int> {};

TEST_P(EngineRandomTest, AnswersEachRequestAsIfItWereAlone) {
  constexpr int kScenarios = 500;
  Totals totals;
  for (int i = 0; i < kScenarios && !HasFailure(); ++i) {
    const uint64_t seed = GetParam() * kScenarios + i;
    SCOPED_TRACE(fmt::format("scenario {}", seed));
    ASSERT_NO_THROW(run_scenario(seed, EngineOptions(), totals));
  }
  // The scenarios reach what they are for.
  EXPECT_GT(totals.num_finished, 3 * kScenarios / 2);
  EXPECT_GT(totals.num_preemptions, kScenarios / 4);
  EXPECT_GT(totals.num_aborted, kScenarios / 10);
  EXPECT_GT(totals.num_failed_steps, kScenarios / 10);
  EXPECT_EQ(totals.num_reordered, 0);
}

TEST_P(EngineRandomTest, AnswersTheSameWhoeverOvertakesWhom) {
  constexpr int kScenarios = 500;
  Totals totals;
  for (int i = 0; i < kScenarios && !HasFailure(); ++i) {
    const uint64_t seed = GetParam() * kScenarios + i;
    SCOPED_TRACE(fmt::format("scenario {}", seed));
    RandomOracle oracle(seed);
    Dice dice(seed);
    EngineOptions options{.policy = SchedulePolicy::kExpertAffinity};
    options.affinity = {
        .oracle = &oracle, .window = dice.in(1, 16), .max_overtakes = dice.in(0, 8)};
    ASSERT_NO_THROW(run_scenario(seed, options, totals));
  }
  EXPECT_GT(totals.num_finished, 3 * kScenarios / 2);
  EXPECT_GT(totals.num_preemptions, kScenarios / 4);
  EXPECT_GT(totals.num_reordered, kScenarios / 4);
}

TEST_P(EngineRandomTest, AnswersTheSameWithAPrefixCacheAndAnyPolicy) {
  constexpr int kScenarios = 500;
  Totals totals;
  for (int i = 0; i < kScenarios && !HasFailure(); ++i) {
    const uint64_t seed = GetParam() * kScenarios + i;
    SCOPED_TRACE(fmt::format("scenario {}", seed));
    RandomOracle oracle(seed);
    Dice dice(seed);
    EngineOptions options{
        .policy = dice.pick({SchedulePolicy::kFcfs, SchedulePolicy::kLongestPrefixMatch,
                             SchedulePolicy::kPriority, SchedulePolicy::kExpertAffinity}),
        .fair_queueing = dice.one_in(3),
        .prefix_cache = true};
    options.affinity = {
        .oracle = &oracle, .window = dice.in(1, 16), .max_overtakes = dice.in(0, 8)};
    ASSERT_NO_THROW(run_scenario(seed, options, totals));
  }
  EXPECT_GT(totals.num_finished, 3 * kScenarios / 2);
  EXPECT_GT(totals.num_preemptions, kScenarios / 4);
  EXPECT_GT(totals.num_aborted, kScenarios / 10);
  EXPECT_GT(totals.num_failed_steps, kScenarios / 10);
  EXPECT_GT(totals.num_evicted, kScenarios);
  EXPECT_GT(totals.num_with_cached, kScenarios / 4);
}

INSTANTIATE_TEST_SUITE_P(Seeds, EngineRandomTest, ::testing::Range(0, 6));

}  // namespace
}  // namespace augur
