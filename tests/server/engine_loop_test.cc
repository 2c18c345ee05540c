#include "engine/server/engine_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/loop_fixture.h"

namespace augur::server::test {
namespace {

using std::chrono::milliseconds;
using Outcome = Admission::Outcome;

class EngineLoopTest : public LoopFixture {};

TEST_F(EngineLoopTest, AnswersAsTheEngineDoesAlone) {
  make();
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    requests.push_back(make_request("r-" + std::to_string(i), {1, i, 2}, 5 + i));
    requests.back().sampling.n = 1 + i % 2;
  }
  const Admission admission = loop_->submit(requests);
  ASSERT_EQ(admission.outcome, Outcome::kAccepted);
  record_.wait_for_finished(6);
  for (int i = 0; i < 6; ++i) {
    const Told told = record_.told(admission.first_ticket + i);
    const RequestResult expected = augur::test::expected_result(requests[i], limits_.max_context,
                                                                engine_options_.eos_token_ids);
    EXPECT_EQ(told.result.id, requests[i].id);
    EXPECT_EQ(told.cause, AbortCause::kNone);
    EXPECT_TRUE(told.is_started);
    ASSERT_EQ(told.result.completions.size(), expected.completions.size());
    size_t num_output = 0;
    for (size_t k = 0; k < expected.completions.size(); ++k) {
      EXPECT_EQ(told.result.completions[k].text, expected.completions[k].text);
      num_output += expected.completions[k].output_ids.size();
    }
    EXPECT_EQ(told.output_ids.size(), num_output);
  }
  EXPECT_EQ(loop_->num_requests(), 0);
  EXPECT_EQ(loop_->num_queued_requests(), 0);
  EXPECT_EQ(loop_->num_queued_tokens(), 0);
}

TEST_F(EngineLoopTest, QueuesAllOfACallOrNone) {
  make({.max_queued_requests = 3});
  runner_->close();
  ASSERT_EQ(loop_->submit(one(make_request("a", {1}, 2))).outcome, Outcome::kAccepted);
  runner_->wait_for_step();  // a's first step has not been run, so it is queued still
  std::vector<Request> three;
  for (const char* id : {"b", "c", "d"}) three.push_back(make_request(id, {1, 2}, 2));
  const Admission refused = loop_->submit(three);
  EXPECT_EQ(refused.outcome, Outcome::kQueueFull);
  EXPECT_THAT(refused.reason, ::testing::HasSubstr("1 requests wait"));
  EXPECT_THAT(refused.reason, ::testing::HasSubstr("bound of 3"));
  EXPECT_GE(refused.retry_after_s, 1);
  EXPECT_LE(refused.retry_after_s, 60);
  EXPECT_EQ(loop_->num_queued_requests(), 1);
  EXPECT_EQ(loop_->num_queued_tokens(), 1);
  three.pop_back();
  EXPECT_EQ(loop_->submit(three).outcome, Outcome::kAccepted);
  EXPECT_EQ(loop_->num_queued_requests(), 3);
  EXPECT_EQ(loop_->num_queued_tokens(), 5);
  EXPECT_EQ(loop_->num_requests(), 3);
  runner_->open();
  record_.wait_for_finished(3);
  EXPECT_EQ(loop_->submit(std::move(three)).outcome, Outcome::kAccepted);
}

TEST_F(EngineLoopTest, BoundsTheTokensOfTheQueue) {
  make({.max_queued_tokens = 10});
  runner_->close();
  EXPECT_EQ(loop_->submit(one(make_request("a", std::vector<int32_t>(11, 1), 2))).outcome,
            Outcome::kQueueFull);
  EXPECT_EQ(loop_->submit(one(make_request("b", std::vector<int32_t>(10, 1), 2))).outcome,
            Outcome::kAccepted);
  const Admission refused = loop_->submit(one(make_request("c", {1}, 2)));
  EXPECT_EQ(refused.outcome, Outcome::kQueueFull);
  EXPECT_THAT(refused.reason, ::testing::HasSubstr("10 prompt tokens wait"));
}

TEST_F(EngineLoopTest, WhatFindsAPlaceFreeDoesNotWait) {
  make({.max_queued_requests = 0, .num_places = 2});
  runner_->close();
  Request pair = make_request("pair", {1, 2, 3}, 3);
  pair.sampling.n = 2;
  ASSERT_EQ(loop_->submit(one(pair)).outcome, Outcome::kAccepted);
  EXPECT_EQ(loop_->submit(one(make_request("late", {1}, 1))).outcome, Outcome::kQueueFull);
  runner_->open();
  record_.wait_for_finished(1);
  EXPECT_EQ(loop_->submit(one(make_request("late", {1}, 1))).outcome, Outcome::kAccepted);
}

TEST_F(EngineLoopTest, AStartedRequestLeavesTheQueue) {
  make({.max_queued_requests = 1});
  runner_->close();
  const uint64_t ticket = loop_->submit(one(make_request("a", {1, 2, 3}, 5))).first_ticket;
  EXPECT_EQ(loop_->num_queued_tokens(), 3);
  runner_->permit();
  record_.wait_for_start_of(ticket);
  EXPECT_EQ(loop_->num_queued_requests(), 0);
  EXPECT_EQ(loop_->num_queued_tokens(), 0);
  EXPECT_EQ(loop_->num_requests(), 1);
  EXPECT_EQ(loop_->submit(one(make_request("b", {1}, 1))).outcome, Outcome::kAccepted);
}

TEST_F(EngineLoopTest, HandsOverAStepAtOnce) {
  make();
  runner_->close();
  std::vector<Request> requests;
  for (int i = 0; i < 4; ++i) requests.push_back(make_request(std::to_string(i), {1}, 3));
  const uint64_t first = loop_->submit(std::move(requests)).first_ticket;
  for (int i = 0; i < 3; ++i) runner_->permit();
  record_.wait_for_finished(4);
  EXPECT_EQ(record_.num_batches(), 3);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(record_.told(first + i).output_ids.size(), 3u);
}

TEST_F(EngineLoopTest, ReportsEachStep) {
  make();
  loop_->submit(one(make_request("a", {1, 2, 3}, 3)));
  record_.wait_for_finished(1);
  loop_->stop();  // after the last report
  const std::vector<StepReport> steps = reports();
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(steps[0].prefill_tokens, 3);
  EXPECT_EQ(steps[0].decode_tokens, 0);
  EXPECT_EQ(steps[0].num_running, 1);
  EXPECT_EQ(steps[1].decode_tokens, 1);
  EXPECT_EQ(steps[2].num_running, 0);
  for (const StepReport& step : steps) EXPECT_LE(step.begin, step.end);
  EXPECT_EQ(loop_->figures().counters.decode_tokens, 2);
  EXPECT_EQ(loop_->figures().num_free_kv_blocks, limits_.num_kv_blocks);
  EXPECT_GT(loop_->cpu_s(), 0);
}

TEST_F(EngineLoopTest, TellsWhatThePrefixCacheHolds) {
  engine_options_.prefix_cache = true;
  make();
  loop_->submit(one(make_request("a", std::vector<int32_t>(12, 1), 3)));
  record_.wait_for_finished(1);
  const EngineFigures figures = loop_->figures();
  EXPECT_GE(figures.num_cached_kv_blocks, 3);
  EXPECT_EQ(figures.num_idle_kv_blocks, figures.num_cached_kv_blocks);
  EXPECT_EQ(figures.num_free_kv_blocks + figures.num_idle_kv_blocks, limits_.num_kv_blocks);
  ASSERT_TRUE(loop_->call([](Engine& engine) { engine.flush_prefix_cache(); }));
  wait_for_commands();
  loop_->stop();  // what a command changed is known when the thread has gone on
  EXPECT_EQ(loop_->figures().num_cached_kv_blocks, 0);
}

TEST_F(EngineLoopTest, TimesCountFromSubmission) {
  make();
  runner_->close();
  loop_->submit(one(make_request("first", {1}, 2)));
  runner_->wait_for_step();
  const auto before = std::chrono::steady_clock::now();
  const uint64_t ticket = loop_->submit(one(make_request("second", {1}, 2))).first_ticket;
  const auto after = std::chrono::steady_clock::now();  // the engine has not seen it yet
  runner_->open();
  record_.wait_for_end_of(ticket);
  const Told told = record_.told(ticket);
  EXPECT_GE(told.result.times.submitted, before);
  EXPECT_LE(told.result.times.submitted, after);
  EXPECT_EQ(told.start.times.submitted, told.result.times.submitted);
  EXPECT_GE(told.start.times.started, after);
}

TEST_F(EngineLoopTest, AnAbortKeepsWhatThereIs) {
  make();
  runner_->close();
  const uint64_t ticket = loop_->submit(one(make_request("a", {1, 2}, 40))).first_ticket;
  runner_->permit();
  record_.wait_for_start_of(ticket);
  runner_->wait_for_step();
  loop_->abort(ticket, AbortCause::kClient);
  runner_->permit();
  record_.wait_for_end_of(ticket);
  const Told told = record_.told(ticket);
  EXPECT_EQ(told.cause, AbortCause::kClient);
  ASSERT_EQ(told.result.completions.size(), 1u);
  EXPECT_EQ(told.result.completions[0].finish_reason, FinishReason::kAborted);
  EXPECT_EQ(told.result.completions[0].output_ids.size(), 2u);
  loop_->abort(ticket, AbortCause::kClient);  // nothing is left to abort
  loop_->abort(12345, AbortCause::kClient);
  wait_for_commands();
  EXPECT_EQ(record_.num_finished(), 1);
  EXPECT_EQ(loop_->figures().num_running, 0);
}

TEST_F(EngineLoopTest, AnAbortedRequestLeavesTheQueueWithoutAStart) {
  make();
  runner_->close();
  loop_->submit(one(make_request("a", {1, 2}, 1)));
  runner_->wait_for_step();
  const uint64_t ticket = loop_->submit(one(make_request("b", {1, 2}, 1))).first_ticket;
  loop_->abort(ticket, AbortCause::kRequested);
  runner_->permit();
  record_.wait_for_end_of(ticket);
  EXPECT_FALSE(record_.told(ticket).is_started);
  EXPECT_EQ(record_.told(ticket).cause, AbortCause::kRequested);
  EXPECT_EQ(loop_->num_queued_requests(), 0);
}

TEST_F(EngineLoopTest, AbortsAll) {
  make();
  runner_->close();
  std::vector<Request> requests;
  for (int i = 0; i < 7; ++i) requests.push_back(make_request(std::to_string(i), {1}, 30));
  loop_->submit(std::move(requests));
  runner_->wait_for_step();
  loop_->abort_all(AbortCause::kRequested);
  runner_->open();
  record_.wait_for_finished(7);
  for (const auto& [ticket, told] : record_.all()) EXPECT_EQ(told.cause, AbortCause::kRequested);
  EXPECT_EQ(loop_->submit(one(make_request("x", {1}, 1))).outcome, Outcome::kAccepted);
}

TEST_F(EngineLoopTest, OneIdTwiceIsServedTwice) {
  make();
  runner_->close();
  const Request request = make_request("same", {1, 2}, 6);
  const uint64_t first = loop_->submit({request, request}).first_ticket;
  runner_->open();
  record_.wait_for_finished(2);
  for (const uint64_t ticket : {first, first + 1}) {
    EXPECT_EQ(record_.told(ticket).result.id, "same");
    EXPECT_EQ(record_.told(ticket).result.completions[0].output_ids.size(), 6u);
  }
}

TEST_F(EngineLoopTest, ARequestThatCannotBeServedFailsAlone) {
  make();
  const uint64_t first =
      loop_->submit({make_request("empty", {}, 3), make_request("good", {1}, 3)}).first_ticket;
  record_.wait_for_finished(2);
  EXPECT_EQ(record_.told(first).cause, AbortCause::kFailed);
  EXPECT_NE(record_.told(first).result.error, "");
  EXPECT_EQ(record_.told(first + 1).cause, AbortCause::kNone);
  EXPECT_FALSE(loop_->is_dead());
  EXPECT_EQ(loop_->num_requests(), 0);
}

TEST_F(EngineLoopTest, WaitingTooLongEndsARequest) {
  engine_options_.max_batch_size = 1;
  make({.waiting_timeout = milliseconds(20)});
  runner_->close();
  const uint64_t running = loop_->submit(one(make_request("a", {1}, 50))).first_ticket;
  runner_->permit();
  record_.wait_for_start_of(running);
  const uint64_t waiting = loop_->submit(one(make_request("b", {1}, 50))).first_ticket;
  runner_->wait_for_step();
  std::this_thread::sleep_for(milliseconds(30));
  runner_->permit();
  record_.wait_for_end_of(waiting);
  EXPECT_EQ(record_.told(waiting).cause, AbortCause::kWaitingTimeout);
  EXPECT_FALSE(record_.told(waiting).is_started);
  EXPECT_EQ(record_.told(running).num_finished, 0) << "who runs does not wait";
}

TEST_F(EngineLoopTest, RunningTooLongEndsARequest) {
  make({.running_timeout = milliseconds(20)});
  runner_->close();
  const uint64_t ticket = loop_->submit(one(make_request("a", {1}, 50))).first_ticket;
  runner_->permit();
  record_.wait_for_start_of(ticket);
  runner_->wait_for_step();
  std::this_thread::sleep_for(milliseconds(30));
  runner_->permit();
  record_.wait_for_end_of(ticket);
  EXPECT_EQ(record_.told(ticket).cause, AbortCause::kRunningTimeout);
  EXPECT_EQ(record_.told(ticket).result.completions[0].output_ids.size(), 2u);
}

TEST_F(EngineLoopTest, AStepThatThrowsFailsEverybodyAndKillsTheLoop) {
  engine_options_.max_batch_size = 1;
  make();
  runner_->close();
  const uint64_t running = loop_->submit(one(make_request("a", {1}, 50))).first_ticket;
  runner_->permit();
  record_.wait_for_start_of(running);
  const uint64_t waiting = loop_->submit(one(make_request("b", {1}, 50))).first_ticket;
  runner_->wait_for_step();
  const uint64_t unseen = loop_->submit(one(make_request("c", {1}, 50))).first_ticket;
  EXPECT_FALSE(loop_->is_dead());
  runner_->fail();
  runner_->open();
  record_.wait_for_finished(3);
  for (const uint64_t ticket : {running, waiting, unseen}) {
    const Told told = record_.told(ticket);
    EXPECT_EQ(told.cause, AbortCause::kFailed);
    EXPECT_EQ(told.result.error, "the device fell off the bus");
    for (const Completion& completion : told.result.completions) {
      EXPECT_EQ(completion.finish_reason, FinishReason::kFailed);
    }
  }
  EXPECT_EQ(record_.told(running).result.completions[0].output_ids.size(), 1u);
  EXPECT_TRUE(loop_->is_dead());
  EXPECT_EQ(loop_->submit(one(make_request("d", {1}, 1))).outcome, Outcome::kDead);
  EXPECT_FALSE(loop_->call([](Engine&) {}));
  EXPECT_EQ(loop_->num_requests(), 0);
  EXPECT_EQ(loop_->step_began(), std::chrono::steady_clock::time_point());
}

TEST_F(EngineLoopTest, ADeadLoopIsIdle) {
  make();
  runner_->fail();
  loop_->submit(one(make_request("a", {1}, 1)));
  record_.wait_for_finished(1);
  std::atomic<int> num_idle = 0;
  EXPECT_TRUE(loop_->drain([&] { ++num_idle; }));
  loop_->stop();
  EXPECT_EQ(num_idle, 1);
}

TEST_F(EngineLoopTest, ACallThatThrowsKillsTheLoopAndTheNextOnesAreMade) {
  make();
  runner_->close();
  loop_->submit(one(make_request("a", {1}, 5)));
  runner_->wait_for_step();
  std::atomic<int> num_calls = 0;
  ASSERT_TRUE(loop_->call([](Engine&) { throw std::runtime_error("broken"); }));
  ASSERT_TRUE(loop_->call([&](Engine&) { ++num_calls; }));
  runner_->open();
  record_.wait_for_finished(1);
  EXPECT_EQ(record_.told(1).result.error, "broken");
  loop_->stop();
  EXPECT_EQ(num_calls, 1);
}

TEST_F(EngineLoopTest, DrainingFinishesWhatIsThereAndLetsNothingIn) {
  make();
  runner_->close();
  const uint64_t ticket = loop_->submit(one(make_request("a", {1}, 8))).first_ticket;
  std::atomic<int64_t> num_finished_when_idle = -1;
  EXPECT_FALSE(loop_->is_draining());
  EXPECT_TRUE(loop_->drain([&] { num_finished_when_idle = record_.num_finished(); }));
  EXPECT_TRUE(loop_->is_draining());
  EXPECT_EQ(loop_->submit(one(make_request("b", {1}, 8))).outcome, Outcome::kDraining);
  EXPECT_EQ(num_finished_when_idle, -1);
  runner_->open();
  record_.wait_for_end_of(ticket);
  loop_->stop();
  EXPECT_EQ(num_finished_when_idle, 1);
  EXPECT_EQ(record_.told(ticket).cause, AbortCause::kNone);
  EXPECT_FALSE(loop_->drain([&] { num_finished_when_idle = -2; }));
  EXPECT_EQ(num_finished_when_idle, 1);
}

TEST_F(EngineLoopTest, StoppingEndsWhatIsLeft) {
  make();
  runner_->close();
  std::vector<Request> requests;
  for (int i = 0; i < 9; ++i) requests.push_back(make_request(std::to_string(i), {1}, 50));
  loop_->submit(std::move(requests));
  runner_->wait_for_step();
  std::thread stopper([this] { loop_->stop(); });
  while (!loop_->is_draining()) std::this_thread::yield();
  runner_->open();
  stopper.join();
  EXPECT_EQ(record_.num_finished(), 9);
  for (const auto& [ticket, told] : record_.all()) EXPECT_EQ(told.cause, AbortCause::kShutdown);
  EXPECT_EQ(loop_->submit(one(make_request("x", {1}, 1))).outcome, Outcome::kDraining);
  EXPECT_FALSE(loop_->call([](Engine&) {}));
  loop_->stop();
}

TEST_F(EngineLoopTest, WhatWasSubmittedToALoopThatNeverStartedIsEnded) {
  make();
  EngineLoop loop(*engine_, {}, record_.sink(), nullptr);
  loop_.reset();
  ASSERT_EQ(loop.submit(one(make_request("a", {1}, 50))).outcome, Outcome::kAccepted);
  loop.stop();
  EXPECT_EQ(record_.num_finished(), 1);
}

TEST_F(EngineLoopTest, SaysSinceWhenAStepIsUnderWay) {
  make();
  const auto epoch = std::chrono::steady_clock::time_point();
  EXPECT_EQ(loop_->step_began(), epoch);
  runner_->close();
  const auto before = std::chrono::steady_clock::now();
  loop_->submit(one(make_request("a", {1}, 1)));
  runner_->wait_for_step();
  EXPECT_GE(loop_->step_began(), before);
  runner_->open();
  record_.wait_for_finished(1);
  wait_for_commands();
  EXPECT_EQ(loop_->step_began(), epoch);
}

}  // namespace
}  // namespace augur::server::test
