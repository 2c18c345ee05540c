// A recording of what the engine did, for chrome://tracing or Perfetto: its steps, and the lives of
// requests beside them (queued, prefill, decode).
//
// States: idle -> recording -> writing -> idle. What is told while nobody records is dropped at the
// cost of a look at a flag. The buffer is bounded and made when a recording starts; what does not
// fit is counted, and the trace says so.
// Threading: any thread. A thread of its own writes the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "engine/server/engine_loop.h"

namespace augur::server {

struct TraceOptions {
  std::filesystem::path folder;   // where traces go; empty: nothing can be recorded
  int64_t max_records = 1 << 17;  // steps, starts and ends of requests; some 200 bytes each
};

class StepTrace {
 public:
  enum class Outcome : uint8_t {
    kDone,
    kDisabled,  // no folder is configured
    kBusy,      // start: a recording is under way or being written
    kIdle,      // stop: none is under way
    kBadName,
    kExists,  // a file of that name
    kFailed,  // the file cannot be made or written
  };
  struct Started {
    Outcome outcome = Outcome::kDone;
    std::string file;   // its path, when done
    std::string error;  // for people, else
  };
  struct Written {
    Outcome outcome = Outcome::kDone;
    std::string file;
    std::string error;
    int64_t num_records = 0;
    int64_t num_dropped = 0;  // that did not fit
  };

  /// Throws ConfigError when the folder is named but not there.
  explicit StepTrace(const TraceOptions& options);
  /// Writes what is being recorded.
  ~StepTrace();

  /// Begins a recording. `file_name` is one plain name (is_plain_file_name), or empty: one is made.
  /// The file is made at once, so that what is wrong with it shows now. After `num_steps` steps the
  /// recording ends by itself; 0: it does not.
  Started start(const std::string& file_name, int64_t num_steps);
  /// Ends the recording. `on_written` is called from the writing thread when the file is there, or
  /// at once when there is none to write.
  void stop(std::function<void(const Written&)> on_written);
  bool is_recording() const;

  void on_step(const StepReport& report);
  /// Of these, starts and ends of requests are recorded. Before anything is moved out of them.
  void on_events(std::span<const LoopEvent> events);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur::server
