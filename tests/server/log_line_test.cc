#include "engine/server/log_line.h"

#include <gtest/gtest.h>

namespace augur::server {
namespace {

using std::chrono::milliseconds;
using Time = RequestTimes::Time;

Time at(int ms) {
  return Time(milliseconds(5000 + ms));
}

TEST(IntervalLogTest, TellsOfTheIntervalAlone) {
  IntervalSample sample{.time = at(0), .num_kv_blocks = 200, .num_generated_tokens = 1000};
  sample.engine.counters = {
      .num_steps = 50, .prefill_tokens = 900, .prefix_query_tokens = 1000, .prefix_hit_tokens = 0};
  IntervalLog log(sample);
  sample.time = at(2000);
  sample.num_generated_tokens = 1301;
  sample.num_queued_requests = 3;
  sample.engine.num_running = 12;
  sample.engine.num_free_kv_blocks = 80;
  sample.engine.num_idle_kv_blocks = 20;
  sample.engine.counters = {.num_steps = 60,
                            .prefill_tokens = 1400,
                            .prefix_query_tokens = 1400,
                            .prefix_hit_tokens = 300};
  EXPECT_EQ(log.line(sample),
            "running 12  waiting 3  kv 50%  prefix hits 75%  prompt 250.0 tok/s  generated 150.5 "
            "tok/s");
  sample.time = at(3000);
  EXPECT_EQ(log.line(sample),
            "running 12  waiting 3  kv 50%  prefix hits 0%  prompt 0.0 tok/s  generated 0.0 tok/s");
}

TEST(IntervalLogTest, IsSilentWhileNothingHappens) {
  IntervalSample sample{.time = at(0), .num_kv_blocks = 10};
  IntervalLog log(sample);
  sample.time = at(1000);
  EXPECT_EQ(log.line(sample), "");
  sample.engine.counters.num_steps = 1;
  EXPECT_NE(log.line(sample), "");
  EXPECT_EQ(log.line(sample), "");
  sample.num_queued_requests = 1;
  EXPECT_NE(log.line(sample), "");
}

TEST(FinishedLineTest, TellsWhatARequestCameTo) {
  RequestResult result{.id = "cmpl-1-0", .num_prompt_tokens = 12, .num_cached_tokens = 8};
  result.times = {.submitted = at(0), .started = at(3), .first_token = at(20), .finished = at(60)};
  Completion completion{.output_ids = {1, 2, 3, 4, 5}, .finish_reason = FinishReason::kStop};
  result.completions = {completion, completion};
  result.completions[1].output_ids = {1, 2};
  EXPECT_EQ(finished_line(result, AbortCause::kNone),
            "request cmpl-1-0: 12 prompt tokens (8 cached), 7 output tokens; queue 3.0 ms, first "
            "token 20.0 ms, 10.00 ms/token, total 60.0 ms; stop");
  result.completions[1].finish_reason = FinishReason::kLength;
  EXPECT_TRUE(finished_line(result, AbortCause::kNone).ends_with("; stop, length"));
}

TEST(FinishedLineTest, LeavesOutWhatWasNotReached) {
  RequestResult result{.id = "r", .num_prompt_tokens = 1};
  result.times = {.submitted = at(0), .finished = at(5)};
  result.completions = {Completion{.finish_reason = FinishReason::kAborted}};
  EXPECT_EQ(finished_line(result, AbortCause::kClient),
            "request r: 1 prompt tokens (0 cached), 0 output tokens; queue -, first token -, -, "
            "total 5.0 ms; the client left");
  result.error = "out of luck";
  EXPECT_TRUE(finished_line(result, AbortCause::kFailed).ends_with("; failed: out of luck"));
}

}  // namespace
}  // namespace augur::server
