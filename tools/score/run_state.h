// The journal beside an output file, from which an interrupted run goes on.
//
// OUTPUT.state is JSON lines, only ever appended to:
//   header  what the run was asked for; a later run must ask the same
//   batch   written before its rows are: which lines they are of, and where they will stand in the
//           output and in the errors file
//   kept    after a batch that was only written in part: which of its lines count
//   held    a row that was ready but had to wait for an earlier line when the run was stopped
// So at any moment the rows that stand whole in the output are known, and nothing else counts.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tools/score/line_set.h"
#include "tools/score/output_file.h"
#include "tools/score/totals.h"

namespace augur::score {

/// A run that cannot be resumed, or an output that would be overwritten.
class ResumeError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A finished row that is not in the output yet.
struct HeldRow {
  uint64_t line_hash = 0;
  std::string text;  // ends with a line break
  bool is_bad = false;
  Totals totals;
};

/// What one flush adds.
struct BatchRecord {
  LineSet rows;              // lines whose rows go to the output, in this order
  LineSet bad;               // lines that go to the errors file, in this order
  int64_t output_begin = 0;  // bytes of the output before and after
  int64_t output_end = 0;
  int64_t errors_begin = 0;  // bytes of the errors file before and after
  int64_t errors_end = 0;
  uint64_t hash_sum = 0;  // of the lines' hashes, modulo 2^64
  Totals totals;          // of these lines
};

/// What an earlier run has done.
struct ResumePoint {
  LineSet done;           // lines with a row or an error
  LineSet unverified;     // of those, lines whose hashes were lost with a batch written in part
  uint64_t hash_sum = 0;  // of the hashes of the other lines done, modulo 2^64
  std::map<int64_t, HeldRow> held;  // by line; not done
  Totals totals;                    // of the lines done
  int64_t output_bytes = 0;         // the output is to be cut to this
  int64_t errors_bytes = 0;
};

/// Reads the journal of an earlier run, cuts the journal, `output` and `errors` (null: there is
/// none) back to what counts, and says what that is. Throws ResumeError when `settings` are not
/// those of the earlier run, naming what differs, or when the file is not such a journal.
ResumePoint recover(OutputFile& state,
                    OutputFile& output,
                    OutputFile* errors,
                    const boost::json::object& settings);

// Lines of the journal.
std::string header_record(const boost::json::object& settings);
std::string batch_record(const BatchRecord& batch);
std::string held_record(int64_t line, const HeldRow& row);

}  // namespace augur::score
