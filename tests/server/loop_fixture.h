// An engine loop over the toy model, whose steps a test lets through one by one, and a record of
// what the loop said.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/server/engine_loop.h"
#include "tests/schedule/toy_model.h"

namespace augur::server::test {

using augur::test::kToyEos;
using augur::test::kToyVocab;
using augur::test::toy_tokenizer;
using augur::test::ToyRunner;

/// Longer than anything takes, so that a hang is a failure and not a hung test.
inline constexpr std::chrono::seconds kPatience{60};

/// The toy model behind a gate. Open: steps run. Closed: a step waits inside launch().
class GatedRunner : public ModelRunner {
 public:
  explicit GatedRunner(const Limits& limits) : toy_(limits) {}
  const Limits& limits() const override { return toy_.limits(); }
  void launch(const StepBatch& batch) override {
    {
      std::unique_lock lock(mutex_);
      ++num_waiting_;
      changes_.notify_all();
      if (!changes_.wait_for(lock, kPatience, [this] { return is_open_ || num_permits_ > 0; })) {
        ADD_FAILURE() << "a step waited for too long";
      }
      --num_waiting_;
      if (!is_open_) --num_permits_;
      if (fails_) throw std::runtime_error("the device fell off the bus");
    }
    toy_.launch(batch);
  }
  void collect(std::vector<LogitResult>& results) override { toy_.collect(results); }

  void open() { set_open(true); }
  void close() { set_open(false); }
  /// Lets one step through.
  void permit() {
    const std::lock_guard lock(mutex_);
    ++num_permits_;
    changes_.notify_all();
  }
  /// Every step from now on throws std::runtime_error.
  void fail() {
    const std::lock_guard lock(mutex_);
    fails_ = true;
  }
  /// Waits until a step stands before the gate.
  void wait_for_step() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changes_.wait_for(lock, kPatience, [this] { return num_waiting_ > 0; }));
  }
  ToyRunner& toy() { return toy_; }

 private:
  void set_open(bool is_open) {
    const std::lock_guard lock(mutex_);
    is_open_ = is_open;
    changes_.notify_all();
  }

  ToyRunner toy_;
  std::mutex mutex_;
  std::condition_variable changes_;
  bool is_open_ = true;
  bool fails_ = false;
  int num_permits_ = 0;
  int num_waiting_ = 0;
};

/// What is known of one ticket.
struct Told {
  bool is_started = false;
  int num_finished = 0;
  std::vector<int32_t> output_ids;  // of updates, all completions
  RequestStart start;
  RequestResult result;
  AbortCause cause = AbortCause::kNone;
};

/// A sink that checks the order of events as they come.
class EventRecord {
 public:
  EngineLoop::Sink sink() {
    return [this](std::vector<LoopEvent>&& events) { take(std::move(events)); };
  }
  void take(std::vector<LoopEvent>&& events) {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(events.empty());
    ++num_batches_;
    for (LoopEvent& event : events) {
      Told& told = told_[event.ticket];
      EXPECT_EQ(told.num_finished, 0) << "an event after the end of " << event.ticket;
      switch (event.kind) {
        case LoopEvent::Kind::kStarted:
          EXPECT_FALSE(told.is_started);
          told.is_started = true;
          told.start = event.start;
          break;
        case LoopEvent::Kind::kUpdate:
          EXPECT_TRUE(told.is_started);
          told.output_ids.insert(told.output_ids.end(), event.update.token_ids.begin(),
                                 event.update.token_ids.end());
          break;
        case LoopEvent::Kind::kFinished:
          ++told.num_finished;
          ++num_finished_;
          told.result = std::move(event.result);
          told.cause = event.cause;
          break;
      }
    }
    changes_.notify_all();
  }

  void wait_for_finished(int64_t num_requests) {
    wait([this, num_requests] { return num_finished_ >= num_requests; });
  }
  void wait_for_end_of(uint64_t ticket) {
    wait([this, ticket] { return told_[ticket].num_finished > 0; });
  }
  void wait_for_start_of(uint64_t ticket) {
    wait([this, ticket] { return told_[ticket].is_started; });
  }
  Told told(uint64_t ticket) {
    const std::lock_guard lock(mutex_);
    return told_[ticket];
  }
  std::map<uint64_t, Told> all() {
    const std::lock_guard lock(mutex_);
    return told_;
  }
  int64_t num_finished() {
    const std::lock_guard lock(mutex_);
    return num_finished_;
  }
  int64_t num_batches() {
    const std::lock_guard lock(mutex_);
    return num_batches_;
  }

 private:
  void wait(const std::function<bool()>& is_there) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changes_.wait_for(lock, kPatience, is_there)) << "it never came";
  }

  std::mutex mutex_;
  std::condition_variable changes_;
  std::map<uint64_t, Told> told_;
  int64_t num_finished_ = 0;
  int64_t num_batches_ = 0;
};

inline Request make_request(const std::string& id,
                            std::vector<int32_t> prompt_ids,
                            int max_tokens) {
  Request request{.id = id, .prompt_ids = std::move(prompt_ids)};
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  request.sampling.seed = 11;
  return request;
}

inline std::vector<Request> one(Request request) {
  std::vector<Request> requests;
  requests.push_back(std::move(request));
  return requests;
}

/// Runner, engine and loop. Made with make(), which starts it.
class LoopFixture : public ::testing::Test {
 protected:
  void make(const LoopOptions& options = {}) {
    loop_.reset();
    runner_ = std::make_unique<GatedRunner>(limits_);
    engine_ = std::make_unique<Engine>(engine_options_, *runner_, &toy_tokenizer());
    loop_ = std::make_unique<EngineLoop>(*engine_, options, record_.sink(),
                                         [this](const StepReport& report) {
                                           const std::lock_guard lock(reports_mutex_);
                                           reports_.push_back(report);
                                         });
    loop_->start();
  }
  void TearDown() override {
    if (runner_) runner_->open();
    loop_.reset();
  }
  std::vector<StepReport> reports() {
    const std::lock_guard lock(reports_mutex_);
    return reports_;
  }
  /// Returns when the engine's thread has done what was asked of it so far.
  void wait_for_commands() {
    std::mutex mutex;
    std::condition_variable done;
    bool is_done = false;
    ASSERT_TRUE(loop_->call([&](Engine&) {
      const std::lock_guard lock(mutex);
      is_done = true;
      done.notify_one();
    }));
    std::unique_lock lock(mutex);
    ASSERT_TRUE(done.wait_for(lock, kPatience, [&] { return is_done; }));
  }

  ModelRunner::Limits limits_{.max_tokens = 64,
                              .max_seqs = 4,
                              .max_context = 60,
                              .num_kv_blocks = 100,
                              .block_size = 4,
                              .vocab_size = kToyVocab};
  EngineOptions engine_options_{
      .max_batch_size = 4, .max_tokens_per_step = 64, .eos_token_ids = {kToyEos}, .seed = 5};
  EventRecord record_;
  std::mutex reports_mutex_;
  std::vector<StepReport> reports_;
  std::unique_ptr<GatedRunner> runner_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<EngineLoop> loop_;
};

}  // namespace augur::server::test
