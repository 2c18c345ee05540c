// Reads, checks and encodes the input, ahead of the model, and hands it over in windows.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "tools/score/encode.h"
#include "tools/score/line_reader.h"
#include "tools/score/run_state.h"
#include "tools/score/work_queue.h"

namespace augur::score {

struct FeederSettings {
  EncodeSettings encode;
  /// A window is handed over when it holds so many tokens, or so many items.
  int64_t window_tokens = 65536;
  int64_t window_items = 4096;
};

/// Sorts a window: documents from long to short, so that a step's sequences are of like length
/// and the last steps of the run are filled with small ones; what needs no model goes first.
void sort_window(std::vector<WorkItem>& window);

/// Threading: run() on any one thread; FeederThread gives it its own.
class Feeder {
 public:
  /// All references outlive the feeder. `resume`: lines done are passed over, after checking that
  /// they are still the lines that were done; held rows are handed over as they are.
  Feeder(LineReader& reader,
         const TextCodec& codec,
         const FeederSettings& settings,
         const ResumePoint& resume,
         WorkQueue& queue);

  /// Until the end of the input, or until the queue is closed. Throws InputError, and ResumeError
  /// when the input is not the one that was done.
  void run();

  /// Bytes of the input lines that need nothing: done by an earlier run, or blank. Any thread.
  int64_t passed_bytes() const { return passed_bytes_; }

 private:
  /// Counts a line that is done, or adds what it gives to the window.
  void take(const InputLine& line);
  /// What becomes of a line that is not done: nothing for a blank one.
  std::optional<WorkItem> make_item(const InputLine& line);
  void check_done_lines() const;
  bool hand_over();

  LineReader& reader_;
  const TextCodec& codec_;
  const FeederSettings settings_;
  const ResumePoint& resume_;
  WorkQueue& queue_;
  std::atomic<int64_t> passed_bytes_ = 0;
  std::vector<WorkItem> window_;
  int64_t window_tokens_ = 0;
  int64_t next_sequence_ = 0;
  uint64_t hash_sum_ = 0;    // of the lines done, as they are now
  bool is_checked_ = false;  // the lines done are the ones that were done
};

/// Runs a feeder on a thread of its own; what it throws comes out of WorkQueue::pop. The end of
/// its life closes the queue and waits for the thread.
class FeederThread {
 public:
  FeederThread(Feeder& feeder, WorkQueue& queue);
  ~FeederThread();
  FeederThread(const FeederThread&) = delete;
  FeederThread& operator=(const FeederThread&) = delete;

 private:
  WorkQueue& queue_;
  std::thread thread_;
};

}  // namespace augur::score
