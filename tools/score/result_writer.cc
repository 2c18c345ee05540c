#include "tools/score/result_writer.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "engine/log.h"

namespace augur::score {
namespace {

// Often enough that a reader of the output sees it grow, seldom enough that the journal stays
// small beside the output.
constexpr auto kFlushInterval = std::chrono::seconds(1);
constexpr int64_t kFlushBytes = 4 << 20;
constexpr int kMaxTold = 20;

}  // namespace

ResultWriter::ResultWriter(ResultFiles files, bool keep_order)
    : files_(std::move(files)), keep_order_(keep_order) {}

int64_t ResultWriter::release(FinishedLine&& line) {
  const int64_t weight = line.weight;
  ready_bytes_ += static_cast<int64_t>(line.text.size());
  ready_.push_back(std::move(line));
  return weight;
}

int64_t ResultWriter::add(FinishedLine line) {
  int64_t weight = 0;
  if (!keep_order_) {
    weight = release(std::move(line));
  } else {
    const int64_t sequence = line.sequence;
    waiting_.emplace(sequence, std::move(line));
    for (auto next = waiting_.begin(); next != waiting_.end() && next->first == next_sequence_;
         next = waiting_.erase(next), ++next_sequence_)
      weight += release(std::move(next->second));
  }
  if (ready_bytes_ >= kFlushBytes) flush();
  return weight;
}

void ResultWriter::flush_if_due(Clock::time_point now) {
  if (now - last_flush_ < kFlushInterval) return;
  flush();
  last_flush_ = now;
}

void ResultWriter::flush() {
  if (ready_.empty()) return;
  // The journal names a batch's lines as a set, so they stand in the order of their numbers.
  std::sort(ready_.begin(), ready_.end(), [](const FinishedLine& a, const FinishedLine& b) {
    return a.line_number < b.line_number;
  });
  BatchRecord batch;
  std::string rows;
  std::string errors;
  for (const FinishedLine& line : ready_) {
    (line.is_bad ? errors : rows) += line.text;
    (line.is_bad ? batch.bad : batch.rows).insert(line.line_number);
    batch.hash_sum += line.line_hash;
    batch.totals += line.totals;
  }
  if (files_.errors_path.empty()) {
    tell_bad_lines();
    errors.clear();
  }
  if (!errors.empty() && !files_.errors) files_.errors.emplace(files_.errors_path);
  if (files_.state) {
    batch.output_begin = files_.output.num_bytes();
    batch.output_end = batch.output_begin + static_cast<int64_t>(rows.size());
    batch.errors_begin = files_.errors ? files_.errors->num_bytes() : 0;
    batch.errors_end = batch.errors_begin + static_cast<int64_t>(errors.size());
    files_.state->append(batch_record(batch));
  }
  if (!errors.empty()) files_.errors->append(errors);
  if (!rows.empty()) files_.output.append(rows);
  written_ += batch.totals;
  ready_.clear();
  ready_bytes_ = 0;
}

void ResultWriter::tell_bad_lines() {
  for (const FinishedLine& line : ready_) {
    if (!line.is_bad || num_told_ > kMaxTold) continue;
    if (num_told_++ < kMaxTold)
      log_warning("bad line: {}", std::string_view(line.text).substr(0, line.text.size() - 1));
    else
      log_warning("more lines are bad; --errors FILE would list them");
  }
}

void ResultWriter::finish() {
  flush();
  if (files_.state) {
    for (auto& [sequence, line] : waiting_)
      files_.state->append(held_record(line.line_number, HeldRow{.line_hash = line.line_hash,
                                                                 .text = line.text,
                                                                 .is_bad = line.is_bad,
                                                                 .totals = line.totals}));
    waiting_.clear();
    files_.state->sync();
  }
  if (files_.errors) files_.errors->sync();
  files_.output.sync();
}

}  // namespace augur::score
