// Puts finished lines into the output and the errors file, in order or as they come.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tools/score/output_file.h"
#include "tools/score/run_state.h"
#include "tools/score/totals.h"

namespace augur::score {

/// A line that is done.
struct FinishedLine {
  int64_t sequence = 0;
  int64_t line_number = 0;
  uint64_t line_hash = 0;
  bool is_bad = false;
  std::string text;  // the row, or the entry for the errors file; ends with a line break
  Totals totals;
  int64_t weight = 0;  // what add() returns when the line is let go
};

/// Where the results go.
struct ResultFiles {
  OutputFile output;
  std::string errors_path;           // empty: the first bad lines are logged
  std::optional<OutputFile> errors;  // opened with the first bad line when absent
  std::optional<OutputFile> state;   // absent: the run cannot be resumed (pipes, devices)
};

/// Threading: one thread.
class ResultWriter {
 public:
  using Clock = std::chrono::steady_clock;

  ResultWriter(ResultFiles files, bool keep_order);

  /// Takes a line. Returns the weight of the lines that no longer wait for an earlier one.
  /// Throws OutputError when a flush fails.
  int64_t add(FinishedLine line);
  /// Flushes when enough has gathered, or when the last flush is a second ago.
  void flush_if_due(Clock::time_point now = Clock::now());
  /// Writes everything that is next in order. Throws OutputError.
  void flush();
  /// At the end, or when stopped: flushes, notes the rows that wait for an earlier line in the
  /// journal, and returns when all is on the disk. Throws OutputError.
  void finish();

  /// Of the lines written by this run.
  const Totals& written() const { return written_; }
  /// Lines that wait for an earlier one.
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }

 private:
  /// Puts the line into the next flush. Returns its weight.
  int64_t release(FinishedLine&& line);
  /// Logs the bad lines of the next flush, until enough have been.
  void tell_bad_lines();

  ResultFiles files_;
  const bool keep_order_;
  std::map<int64_t, FinishedLine> waiting_;  // by sequence, until all before are released
  int64_t next_sequence_ = 0;
  std::vector<FinishedLine> ready_;  // for the next flush
  int64_t ready_bytes_ = 0;
  Clock::time_point last_flush_ = Clock::now();
  Totals written_;
  int num_told_ = 0;
};

}  // namespace augur::score
