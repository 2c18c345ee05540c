#include "engine/server/observations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace augur::server {
namespace {

using std::chrono::milliseconds;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class RequestTimerTest : public ::testing::Test {
 protected:
  static RequestTimer::Time at(int ms) { return RequestTimer::Time(milliseconds(1000 + ms)); }
  static auto seconds(double value) { return DoubleNear(value, 1e-9); }

  void start(int ms) {
    LoopEvent event;
    event.kind = LoopEvent::Kind::kStarted;
    event.start = {.num_prompt_tokens = 10, .num_cached_tokens = 6};
    timer_.on_event(event, at(ms), seen_);
  }
  void update(int completion_idx, std::vector<int32_t> token_ids, int ms) {
    LoopEvent event;
    event.kind = LoopEvent::Kind::kUpdate;
    event.update.completion_idx = completion_idx;
    event.update.token_ids = std::move(token_ids);
    timer_.on_event(event, at(ms), seen_);
  }
  void finish(const RequestTimes& times,
              std::vector<FinishReason> reasons,
              AbortCause cause,
              int ms) {
    LoopEvent event;
    event.kind = LoopEvent::Kind::kFinished;
    event.cause = cause;
    event.result.times = times;
    for (const FinishReason reason : reasons) {
      event.result.completions.push_back({.finish_reason = reason});
    }
    timer_.on_event(event, at(ms), seen_);
  }
  int64_t completions(FinishReason reason) {
    return seen_.completions[static_cast<size_t>(reason)];
  }
  int64_t requests(AbortCause cause) { return seen_.requests[static_cast<size_t>(cause)]; }

  RequestTimer timer_{at(0), 2};
  Observations seen_;
};

TEST_F(RequestTimerTest, TimesTheLifeOfARequest) {
  start(20);
  update(0, {1}, 50);
  update(0, {2}, 60);
  update(0, {3}, 75);
  finish({.submitted = at(1), .started = at(10), .first_token = at(45), .finished = at(70)},
         {FinishReason::kStop, FinishReason::kLength}, AbortCause::kNone, 76);
  EXPECT_THAT(seen_.first_token_s, ElementsAre(seconds(0.05))) << "from arrival";
  EXPECT_THAT(seen_.inter_token_s, ElementsAre(seconds(0.01), seconds(0.015)));
  EXPECT_THAT(seen_.queue_s, ElementsAre(seconds(0.01)));
  EXPECT_THAT(seen_.prefill_s, ElementsAre(seconds(0.035)));
  EXPECT_THAT(seen_.decode_s, ElementsAre(seconds(0.025)));
  EXPECT_THAT(seen_.total_s, ElementsAre(seconds(0.076)));
  EXPECT_EQ(seen_.prompt_tokens, 10);
  EXPECT_EQ(seen_.cached_tokens, 6);
  EXPECT_EQ(seen_.generated_tokens, 3);
  EXPECT_EQ(completions(FinishReason::kStop), 1);
  EXPECT_EQ(completions(FinishReason::kLength), 1);
  EXPECT_EQ(requests(AbortCause::kNone), 1);
}

TEST_F(RequestTimerTest, GapsAreThoseOfACompletion) {
  update(0, {1}, 10);
  update(1, {1}, 30);
  update(0, {2}, 31);
  update(1, {2, 3}, 35);
  EXPECT_THAT(seen_.first_token_s, ElementsAre(seconds(0.01)));
  EXPECT_THAT(seen_.inter_token_s, ElementsAre(seconds(0.021), seconds(0.005)));
  EXPECT_EQ(seen_.generated_tokens, 5);
}

TEST_F(RequestTimerTest, AnUpdateWithoutTokensIsNoToken) {
  update(0, {}, 10);
  EXPECT_THAT(seen_.first_token_s, IsEmpty());
}

TEST_F(RequestTimerTest, AnAbortedRequestIsCountedAndNotTimed) {
  start(5);
  finish({.submitted = at(1), .started = at(4), .finished = at(9)},
         {FinishReason::kAborted, FinishReason::kStop}, AbortCause::kClient, 10);
  EXPECT_THAT(seen_.total_s, IsEmpty());
  EXPECT_THAT(seen_.queue_s, IsEmpty());
  EXPECT_EQ(requests(AbortCause::kClient), 1);
  EXPECT_EQ(completions(FinishReason::kAborted), 1);
  EXPECT_EQ(completions(FinishReason::kStop), 1);
}

TEST_F(RequestTimerTest, AScoredPromptEndsAtItsLength) {
  finish({.submitted = at(1), .started = at(4), .finished = at(9)}, {}, AbortCause::kNone, 10);
  EXPECT_THAT(seen_.first_token_s, IsEmpty());
  EXPECT_THAT(seen_.prefill_s, ElementsAre(seconds(0.005)));
  EXPECT_THAT(seen_.decode_s, IsEmpty());
  EXPECT_EQ(completions(FinishReason::kLength), 1);
}

TEST_F(RequestTimerTest, ClearingForgetsAll) {
  start(1);
  update(0, {1}, 2);
  finish({.finished = at(3)}, {FinishReason::kStop}, AbortCause::kNone, 4);
  seen_.clear();
  EXPECT_THAT(seen_.first_token_s, IsEmpty());
  EXPECT_EQ(seen_.prompt_tokens + seen_.cached_tokens + seen_.generated_tokens, 0);
  EXPECT_EQ(completions(FinishReason::kStop), 0);
  EXPECT_EQ(requests(AbortCause::kNone), 0);
}

}  // namespace
}  // namespace augur::server
