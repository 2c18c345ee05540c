#include "engine/server/step_trace.h"

#include <errno.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "engine/log.h"
#include "engine/server/chrome_trace.h"
#include "engine/server/trace_file.h"
#include "kernels/require.h"

namespace augur::server {
namespace {

using Clock = std::chrono::steady_clock;

/// Writes a recording to a file and closes it. Returns errno, 0 when all is well.
int write_file(int fd, const Recording& recording) {
  int error = 0;
  write_chrome_trace(recording, [fd, &error](std::string_view piece) {
    while (!piece.empty() && error == 0) {
      const ssize_t num_written = write(fd, piece.data(), piece.size());
      if (num_written >= 0) {
        piece.remove_prefix(num_written);
      } else if (errno != EINTR) {
        error = errno;
      }
    }
    return error == 0;
  });
  if (close(fd) != 0 && error == 0) error = errno;
  return error;
}

}  // namespace

class StepTrace::Impl {
 public:
  explicit Impl(const TraceOptions& options) : options_(options) {
    AUGUR_REQUIRE(options.max_records >= 1,
                  "max_records is " + std::to_string(options.max_records));
    if (options.folder.empty()) return;
    folder_.emplace(options.folder);
    writer_ = std::thread([this] { write_recordings(); });
  }
  ~Impl() {
    if (!folder_) return;
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
      if (state_ == State::kRecording) end_recording();
      wakes_.notify_one();
    }
    writer_.join();
  }

  Started start(const std::string& file_name, int64_t num_steps);
  void stop(std::function<void(const Written&)> on_written);
  bool is_recording() const { return is_recording_.load(std::memory_order_relaxed); }
  void on_step(const StepReport& report);
  void on_events(std::span<const LoopEvent> events);

 private:
  enum class State : uint8_t { kIdle, kRecording, kWriting };

  // With the mutex held.
  std::string make_name();
  void add(TraceRecord&& record);
  void end_recording();

  // On the writer's thread.
  void write_recordings();

  const TraceOptions options_;
  std::optional<TraceFolder> folder_;
  std::thread writer_;
  std::atomic<bool> is_recording_{false};

  std::mutex mutex_;  // guards what follows
  std::condition_variable wakes_;
  bool is_ending_ = false;
  State state_ = State::kIdle;
  int64_t num_made_names_ = 0;
  int fd_ = -1;  // of the file, while recording and writing
  std::string file_;
  Clock::time_point begin_;
  Clock::time_point end_;
  int64_t num_steps_left_ = 0;  // 0: no bound
  std::vector<TraceRecord> records_;
  int64_t num_dropped_ = 0;
  std::vector<std::function<void(const Written&)>> on_written_;
};

StepTrace::Started StepTrace::Impl::start(const std::string& file_name, int64_t num_steps) {
  if (!folder_) {
    return {.outcome = Outcome::kDisabled, .error = "no folder for traces is configured"};
  }
  if (!file_name.empty() && !is_plain_file_name(file_name)) {
    return {.outcome = Outcome::kBadName,
            .error =
                "the file name is not plain; accepted: up to 128 letters, digits, '.', '_' "
                "and '-', beginning with none of '.' and '-'"};
  }
  const std::lock_guard lock(mutex_);
  if (state_ != State::kIdle) {
    return {.outcome = Outcome::kBusy,
            .error = fmt::format("{} is being {}", file_,
                                 state_ == State::kRecording ? "recorded" : "written")};
  }
  const std::string name = file_name.empty() ? make_name() : file_name;
  const std::string file = (folder_->path() / name).string();
  const int fd = folder_->create(name);
  if (fd < 0) {
    return {.outcome = errno == EEXIST ? Outcome::kExists : Outcome::kFailed,
            .error = fmt::format("{} cannot be made: {}", file, std::strerror(errno))};
  }
  fd_ = fd;
  file_ = file;
  records_.reserve(options_.max_records);  // so that no step waits for memory
  num_dropped_ = 0;
  num_steps_left_ = num_steps;
  begin_ = Clock::now();
  state_ = State::kRecording;
  is_recording_ = true;
  return {.file = file};
}

std::string StepTrace::Impl::make_name() {
  const std::time_t now = std::time(nullptr);
  return fmt::format("augur-trace-{:%Y%m%d-%H%M%S}-{}-{}.json", fmt::gmtime(now), getpid(),
                     ++num_made_names_);
}

void StepTrace::Impl::stop(std::function<void(const Written&)> on_written) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::kRecording) {
      on_written_.push_back(std::move(on_written));
      end_recording();
      return;
    }
  }
  on_written(
      {.outcome = folder_ ? Outcome::kIdle : Outcome::kDisabled,
       .error = folder_ ? "nothing is being recorded" : "no folder for traces is configured"});
}

void StepTrace::Impl::end_recording() {
  state_ = State::kWriting;
  is_recording_ = false;
  end_ = Clock::now();
  wakes_.notify_one();
}

void StepTrace::Impl::add(TraceRecord&& record) {
  if (std::ssize(records_) < options_.max_records) {
    records_.push_back(std::move(record));
  } else {
    ++num_dropped_;
  }
}

void StepTrace::Impl::on_step(const StepReport& report) {
  if (!is_recording()) return;
  const std::lock_guard lock(mutex_);
  if (state_ != State::kRecording) return;
  add({.kind = TraceRecord::Kind::kStep, .step = report});
  if (num_steps_left_ > 0 && --num_steps_left_ == 0) end_recording();
}

void StepTrace::Impl::on_events(std::span<const LoopEvent> events) {
  if (!is_recording()) return;
  const std::lock_guard lock(mutex_);
  if (state_ != State::kRecording) return;
  for (const LoopEvent& event : events) {
    if (event.kind == LoopEvent::Kind::kStarted) {
      add({.kind = TraceRecord::Kind::kStarted,
           .ticket = event.ticket,
           .times = event.start.times,
           .num_prompt_tokens = event.start.num_prompt_tokens,
           .num_cached_tokens = event.start.num_cached_tokens});
    } else if (event.kind == LoopEvent::Kind::kFinished) {
      const RequestResult& result = event.result;
      int64_t num_output_tokens = 0;
      for (const Completion& completion : result.completions) {
        num_output_tokens += std::ssize(completion.output_ids);
      }
      add({.kind = TraceRecord::Kind::kFinished,
           .ticket = event.ticket,
           .times = result.times,
           .id = result.id,
           .num_prompt_tokens = result.num_prompt_tokens,
           .num_cached_tokens = result.num_cached_tokens,
           .num_output_tokens = num_output_tokens,
           .cause = event.cause});
    }
  }
}

void StepTrace::Impl::write_recordings() {
  pthread_setname_np(pthread_self(), "augur-trace");
  std::unique_lock lock(mutex_);
  for (;;) {
    wakes_.wait(lock, [this] { return is_ending_ || state_ == State::kWriting; });
    if (state_ != State::kWriting) return;
    // Nobody touches the records in this state.
    lock.unlock();
    const int error = write_file(fd_, {records_, begin_, end_, num_dropped_});
    Written written{
        .file = file_, .num_records = std::ssize(records_), .num_dropped = num_dropped_};
    if (error != 0) {
      written.outcome = Outcome::kFailed;
      written.error = fmt::format("{} cannot be written: {}", file_, std::strerror(error));
      log_error("{}", written.error);
    } else {
      log_info("wrote the trace {}: {} records, {} dropped", file_, written.num_records,
               written.num_dropped);
    }
    std::vector<TraceRecord>().swap(records_);  // its memory is not kept for the next one
    lock.lock();
    state_ = State::kIdle;
    fd_ = -1;
    std::vector<std::function<void(const Written&)>> callbacks = std::exchange(on_written_, {});
    lock.unlock();
    for (const auto& on_written : callbacks) on_written(written);
    lock.lock();
  }
}

StepTrace::StepTrace(const TraceOptions& options) : impl_(std::make_unique<Impl>(options)) {}
StepTrace::~StepTrace() = default;

StepTrace::Started StepTrace::start(const std::string& file_name, int64_t num_steps) {
  return impl_->start(file_name, num_steps);
}
void StepTrace::stop(std::function<void(const Written&)> on_written) {
  impl_->stop(std::move(on_written));
}
bool StepTrace::is_recording() const {
  return impl_->is_recording();
}
void StepTrace::on_step(const StepReport& report) {
  impl_->on_step(report);
}
void StepTrace::on_events(std::span<const LoopEvent> events) {
  impl_->on_events(events);
}

}  // namespace augur::server
