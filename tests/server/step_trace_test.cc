#include "engine/server/step_trace.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <boost/json.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "configs/config_error.h"
#include "engine/server/trace_file.h"
#include "tests/temp_folder.h"

namespace augur::server {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
using Outcome = StepTrace::Outcome;
using ::testing::HasSubstr;

class StepTraceTest : public ::testing::Test {
 protected:
  void make(int64_t max_records = 1000) {
    trace_ = std::make_unique<StepTrace>(
        TraceOptions{.folder = folder_.path(), .max_records = max_records});
  }
  StepTrace::Written stop() {
    std::mutex mutex;
    std::condition_variable changes;
    std::optional<StepTrace::Written> result;
    trace_->stop([&](const StepTrace::Written& written) {
      const std::lock_guard lock(mutex);
      result = written;
      changes.notify_one();
    });
    std::unique_lock lock(mutex);
    EXPECT_TRUE(
        changes.wait_for(lock, std::chrono::seconds(60), [&] { return result.has_value(); }));
    return result.value_or(StepTrace::Written{.outcome = Outcome::kFailed});
  }
  void step(int prefill_tokens, int decode_tokens) {
    const auto now = Clock::now();
    trace_->on_step({.begin = now,
                     .end = now + milliseconds(2),
                     .prefill_tokens = prefill_tokens,
                     .decode_tokens = decode_tokens,
                     .num_running = 1});
  }
  static LoopEvent started(uint64_t ticket, const RequestTimes& times) {
    LoopEvent event;
    event.kind = LoopEvent::Kind::kStarted;
    event.ticket = ticket;
    event.start.times = times;
    return event;
  }
  static LoopEvent finished(uint64_t ticket, const std::string& id, const RequestTimes& times) {
    LoopEvent event;
    event.kind = LoopEvent::Kind::kFinished;
    event.ticket = ticket;
    event.result.id = id;
    event.result.times = times;
    event.result.completions = {Completion{.output_ids = {1, 2, 3}}};
    return event;
  }
  static boost::json::array events_of(const std::string& file) {
    return boost::json::parse(read_whole_file(file)).at("traceEvents").as_array();
  }
  /// Events of that "ph".
  static std::vector<boost::json::object> events_of(const std::string& file, const char* phase) {
    std::vector<boost::json::object> events;
    for (const boost::json::value& event : events_of(file)) {
      if (event.at("ph").as_string() == phase) events.push_back(event.as_object());
    }
    return events;
  }

  TempFolder folder_;
  std::unique_ptr<StepTrace> trace_;
};

TEST_F(StepTraceTest, RecordsStepsBetweenStartAndStop) {
  make();
  step(1, 0);  // nobody records
  const StepTrace::Started started = trace_->start("", 0);
  ASSERT_EQ(started.outcome, Outcome::kDone) << started.error;
  EXPECT_TRUE(trace_->is_recording());
  step(7, 0);
  step(0, 2);
  step(3, 1);
  const StepTrace::Written written = stop();
  EXPECT_EQ(written.outcome, Outcome::kDone);
  EXPECT_EQ(written.file, started.file);
  EXPECT_EQ(written.num_records, 3);
  EXPECT_FALSE(trace_->is_recording());
  const auto steps = events_of(written.file, "X");
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(steps[0].at("name").as_string(), "prefill");
  EXPECT_EQ(steps[1].at("name").as_string(), "decode");
  EXPECT_EQ(steps[2].at("name").as_string(), "mixed");
  EXPECT_EQ(steps[0].at("args").at("prefill_tokens").as_int64(), 7);
  EXPECT_NEAR(steps[0].at("dur").as_double(), 2000, 1e-3);
  EXPECT_GE(steps[0].at("ts").as_double(), 0);
  EXPECT_GE(steps[1].at("ts").as_double(), steps[0].at("ts").as_double());
  EXPECT_EQ(events_of(written.file, "M").size(), 3u);
}

TEST_F(StepTraceTest, RecordsTheLivesOfRequests) {
  make();
  const auto before = Clock::now() - milliseconds(10);
  ASSERT_EQ(trace_->start("lives.json", 0).outcome, Outcome::kDone);
  const auto now = Clock::now();
  const RequestTimes whole{.submitted = before,
                           .started = now,
                           .first_token = now + milliseconds(1),
                           .finished = now + milliseconds(2)};
  const RequestTimes waited{.submitted = now, .finished = now + milliseconds(1)};
  const RequestTimes open{.submitted = before, .started = now};
  std::vector<LoopEvent> events;
  events.push_back(started(16, whole));
  events.push_back(finished(16, "a\"b\\\n\xff", whole));
  events.push_back(finished(17, "waited", waited));
  events.push_back(started(18, open));
  trace_->on_events(events);
  std::this_thread::sleep_until(now + milliseconds(3));
  const StepTrace::Written written = stop();
  EXPECT_EQ(written.file, folder_.file("lives.json"));
  const auto begins = events_of(written.file, "b");
  const auto ends = events_of(written.file, "e");
  ASSERT_EQ(begins.size(), ends.size());
  std::vector<std::string> lives;
  for (size_t i = 0; i < begins.size(); ++i) {
    EXPECT_EQ(begins[i].at("id"), ends[i].at("id"));
    EXPECT_EQ(begins[i].at("name"), ends[i].at("name"));
    EXPECT_EQ(begins[i].at("cat"), ends[i].at("cat"));
    EXPECT_LE(begins[i].at("ts").as_double(), ends[i].at("ts").as_double());
    EXPECT_GE(begins[i].at("ts").as_double(), 0);
    lives.push_back(std::string(begins[i].at("id").as_string()) + " " +
                    std::string(begins[i].at("name").as_string()));
  }
  EXPECT_THAT(lives, ::testing::ElementsAre("0x10 queued", "0x10 prefill", "0x10 decode",
                                            "0x11 queued", "0x12 queued", "0x12 prefill"));
  EXPECT_EQ(begins[0].at("args").at("request").as_string(), "a\"b\\??");
  EXPECT_EQ(begins[0].at("args").at("output_tokens").as_int64(), 3);
  EXPECT_EQ(begins[0].at("ts").as_double(), 0) << "it was submitted before the recording";
  EXPECT_NEAR(ends[2].at("ts").as_double() - begins[2].at("ts").as_double(), 1000, 1e-2);
}

TEST_F(StepTraceTest, EndsByItselfAfterItsSteps) {
  make();
  const StepTrace::Started started = trace_->start("", 2);
  for (int i = 0; i < 5; ++i) step(1, 0);
  EXPECT_FALSE(trace_->is_recording());
  trace_.reset();  // the file is there now
  EXPECT_EQ(events_of(started.file, "X").size(), 2u);
}

TEST_F(StepTraceTest, OneRecordingAtATime) {
  make();
  EXPECT_EQ(stop().outcome, Outcome::kIdle);
  ASSERT_EQ(trace_->start("a", 0).outcome, Outcome::kDone);
  const StepTrace::Started second = trace_->start("b", 0);
  EXPECT_EQ(second.outcome, Outcome::kBusy);
  EXPECT_THAT(second.error, HasSubstr("is being recorded"));
  EXPECT_FALSE(folder_.has("b"));
  EXPECT_EQ(stop().outcome, Outcome::kDone);
  EXPECT_EQ(stop().outcome, Outcome::kIdle);
  EXPECT_EQ(trace_->start("b", 0).outcome, Outcome::kDone);
}

TEST_F(StepTraceTest, WritesWhatIsRecordedWhenItGoes) {
  make();
  ASSERT_EQ(trace_->start("last", 0).outcome, Outcome::kDone);
  step(1, 0);
  trace_.reset();
  EXPECT_EQ(events_of(folder_.file("last"), "X").size(), 1u);
}

TEST_F(StepTraceTest, CountsWhatDoesNotFit) {
  make(/*max_records=*/3);
  ASSERT_EQ(trace_->start("small", 0).outcome, Outcome::kDone);
  for (int i = 0; i < 5; ++i) step(1, 0);
  const StepTrace::Written written = stop();
  EXPECT_EQ(written.num_records, 3);
  EXPECT_EQ(written.num_dropped, 2);
  const auto whole = boost::json::parse(folder_.read("small"));
  EXPECT_EQ(whole.at("otherData").at("dropped_records").as_int64(), 2);
  EXPECT_EQ(events_of(written.file, "X").size(), 3u);
}

TEST_F(StepTraceTest, NoFileOutsideItsFolder) {
  make();
  ASSERT_EQ(symlink("/dev/null", folder_.file("link").c_str()), 0);
  for (const char* name :
       {"..", ".", "a/b", "/tmp/x", "../x", ".hidden", "-rf", "a b", "a\n", "\xc3\xa9", "a\\b"}) {
    EXPECT_EQ(trace_->start(name, 0).outcome, Outcome::kBadName) << name;
  }
  EXPECT_EQ(trace_->start(std::string(129, 'a'), 0).outcome, Outcome::kBadName);
  EXPECT_EQ(trace_->start(std::string("a\0b", 3), 0).outcome, Outcome::kBadName);
  EXPECT_EQ(trace_->start("link", 0).outcome, Outcome::kExists);
  folder_.write("there", "x");
  EXPECT_EQ(trace_->start("there", 0).outcome, Outcome::kExists);
  EXPECT_EQ(folder_.read("there"), "x");
  EXPECT_FALSE(trace_->is_recording());
  EXPECT_EQ(trace_->start(std::string(128, 'a'), 0).outcome, Outcome::kDone);
  struct stat status {};
  ASSERT_EQ(stat(folder_.file(std::string(128, 'a')).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0137, 0u);
}

TEST_F(StepTraceTest, SaysWhenThereIsNoFolder) {
  trace_ = std::make_unique<StepTrace>(TraceOptions{});
  EXPECT_EQ(trace_->start("a", 0).outcome, Outcome::kDisabled);
  EXPECT_EQ(stop().outcome, Outcome::kDisabled);
  EXPECT_THAT(message_of<ConfigError>([&] { StepTrace({.folder = folder_ / "absent"}); }),
              HasSubstr("absent"));
}

TEST_F(StepTraceTest, AFileThatCannotBeWrittenIsReported) {
  // The file is made, and fails when it is written: a descriptor limit cannot do that, a size can.
  make();
  ASSERT_EQ(trace_->start("full", 0).outcome, Outcome::kDone);
  step(1, 0);
  struct FileSizeLimit {
    FileSizeLimit() {
      getrlimit(RLIMIT_FSIZE, &before);
      rlimit none = before;
      none.rlim_cur = 0;
      setrlimit(RLIMIT_FSIZE, &none);
      old_handler = signal(SIGXFSZ, SIG_IGN);
    }
    ~FileSizeLimit() {
      setrlimit(RLIMIT_FSIZE, &before);
      signal(SIGXFSZ, old_handler);
    }
    rlimit before{};
    void (*old_handler)(int) = nullptr;
  };
  std::optional<FileSizeLimit> limit(std::in_place);
  const StepTrace::Written written = stop();
  limit.reset();
  EXPECT_EQ(written.outcome, Outcome::kFailed);
  EXPECT_THAT(written.error, HasSubstr("full cannot be written"));
  EXPECT_EQ(trace_->start("next", 0).outcome, Outcome::kDone);
}

TEST_F(StepTraceTest, StepsAndStopsMayRace) {
  make();
  std::atomic<bool> is_over = false;
  std::atomic<int64_t> num_told = 0;
  std::thread engine([&] {
    while (!is_over) {
      step(1, 1);
      std::vector<LoopEvent> events;
      events.push_back(finished(1, "r", {.submitted = Clock::now(), .finished = Clock::now()}));
      trace_->on_events(events);
      ++num_told;
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < 5; ++i) {
    const StepTrace::Started started = trace_->start("", 0);
    ASSERT_EQ(started.outcome, Outcome::kDone) << started.error;
    for (const int64_t enough = num_told + 3; num_told < enough;) std::this_thread::yield();
    const StepTrace::Written written = stop();
    EXPECT_EQ(written.outcome, Outcome::kDone);
    const int64_t num_steps = std::ssize(events_of(written.file, "X"));
    EXPECT_GE(num_steps, 2);
    EXPECT_LE(num_steps, written.num_records);
  }
  is_over = true;
  engine.join();
}

}  // namespace
}  // namespace augur::server
