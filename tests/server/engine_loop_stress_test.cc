// Many threads at once: whatever they do, every request that was let in ends exactly once.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>

#include "tests/server/loop_fixture.h"

namespace augur::server::test {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using Outcome = Admission::Outcome;

struct StressCase {
  const char* name;
  enum class End : uint8_t { kStop, kDrain, kDrainThenStop, kFailure } end;
};

class EngineLoopStressTest : public LoopFixture, public ::testing::WithParamInterface<StressCase> {
 protected:
  static constexpr int kNumThreads = 4;
  static constexpr int kCallsPerThread = 60;

  /// Submits, aborts at random (its own and others'), reads figures, calls.
  void submit_many(int thread_idx) {
    std::mt19937 random(thread_idx);
    const auto pick = [&](int below) { return static_cast<int>(random() % below); };
    for (int i = 0; i < kCallsPerThread; ++i) {
      std::vector<Request> requests;
      for (int k = pick(3); k >= 0; --k) {
        // Few ids, so that they are in use now and then.
        requests.push_back(make_request(fmt::format("r{}", pick(20)),
                                        std::vector<int32_t>(1 + pick(12), pick(kToyVocab)),
                                        1 + pick(12)));
        requests.back().sampling.n = 1 + pick(3) / 2;
      }
      const size_t num_requests = requests.size();
      const Admission admission = loop_->submit(std::move(requests));
      if (admission.outcome == Outcome::kAccepted) {
        const std::lock_guard lock(accepted_mutex_);
        for (size_t k = 0; k < num_requests; ++k) {
          EXPECT_TRUE(accepted_.insert(admission.first_ticket + k).second);
        }
      }
      if (pick(4) == 0) loop_->abort(admission.first_ticket + pick(3), AbortCause::kClient);
      if (pick(4) == 0) loop_->abort(1 + pick(200), AbortCause::kRequested);
      if (pick(50) == 0) loop_->abort_all(AbortCause::kRequested);
      if (pick(8) == 0 && loop_->call([this](Engine&) { ++num_called_; })) ++num_calls_;
      EXPECT_GE(loop_->num_queued_requests(), 0);
      EXPECT_GE(loop_->num_queued_tokens(), 0);
      EXPECT_GE(loop_->figures().num_free_kv_blocks, 0);
      if (pick(3) == 0) std::this_thread::sleep_for(microseconds(pick(300)));
    }
  }

  std::mutex accepted_mutex_;
  std::set<uint64_t> accepted_;
  std::atomic<int> num_calls_ = 0;
  std::atomic<int> num_called_ = 0;
};

TEST_P(EngineLoopStressTest, EveryAcceptedRequestEndsOnce) {
  limits_.num_kv_blocks = 20;  // tight, so that completions are preempted
  make({.max_queued_requests = 30,
        .max_queued_tokens = 200,
        .num_places = 4,
        .waiting_timeout = milliseconds(4),
        .running_timeout = milliseconds(8)});
  std::atomic<int> num_idle = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kNumThreads; ++i) threads.emplace_back([this, i] { submit_many(i); });
  std::this_thread::sleep_for(milliseconds(5));
  using End = StressCase::End;
  const End end = GetParam().end;
  int num_drains = 0;
  if (end == End::kFailure) runner_->fail();
  if (end == End::kDrain || end == End::kDrainThenStop) {
    num_drains += loop_->drain([&] { ++num_idle; });
  }
  if (end == End::kDrain) {
    for (std::thread& thread : threads) thread.join();
    threads.clear();
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (num_idle == 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    EXPECT_EQ(num_idle, 1) << "drained without a stop";
  } else if (end != End::kFailure) {
    loop_->stop();
  }
  for (std::thread& thread : threads) thread.join();
  loop_->stop();

  const std::map<uint64_t, Told> all = record_.all();
  EXPECT_EQ(all.size(), accepted_.size());
  for (const uint64_t ticket : accepted_) {
    ASSERT_TRUE(all.contains(ticket)) << "lost";
    EXPECT_EQ(all.at(ticket).num_finished, 1);
  }
  EXPECT_FALSE(accepted_.empty());
  EXPECT_EQ(num_called_, num_calls_);
  EXPECT_EQ(num_idle, num_drains);
  EXPECT_EQ(loop_->num_requests(), 0);
  EXPECT_EQ(loop_->num_queued_requests(), 0);
  EXPECT_EQ(loop_->num_queued_tokens(), 0);
  EXPECT_EQ(engine_->num_running() + engine_->num_waiting(), 0);
  EXPECT_EQ(engine_->num_free_kv_blocks(), limits_.num_kv_blocks);
}

INSTANTIATE_TEST_SUITE_P(Ends,
                         EngineLoopStressTest,
                         ::testing::Values(StressCase{"Stop", StressCase::End::kStop},
                                           StressCase{"Drain", StressCase::End::kDrain},
                                           StressCase{"DrainThenStop",
                                                      StressCase::End::kDrainThenStop},
                                           StressCase{"Failure", StressCase::End::kFailure}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace augur::server::test
