#include "tools/score/run_state.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

namespace augur::score {
namespace {

namespace json = boost::json;

constexpr int64_t kFormatVersion = 1;

std::string hash_to_text(uint64_t hash) {
  char digits[17] = {};
  const auto end = std::to_chars(digits, digits + 16, hash, 16).ptr;
  return std::string(digits, end);
}

/// Reads fields of a record; the first that is missing or of another type throws.
class RecordReader {
 public:
  RecordReader(const json::object& record, std::string where)
      : record_(record), where_(std::move(where)) {}

  int64_t count(std::string_view key) const {
    const json::value& value = at(key);
    if (!value.is_int64() || value.get_int64() < 0) refuse(key);
    return value.get_int64();
  }
  bool boolean(std::string_view key) const {
    if (!at(key).is_bool()) refuse(key);
    return at(key).get_bool();
  }
  std::string text(std::string_view key) const {
    if (!at(key).is_string()) refuse(key);
    return std::string(at(key).get_string());
  }
  LineSet lines(std::string_view key) const {
    const std::optional<LineSet> lines = LineSet::parse(text(key));
    if (!lines) refuse(key);
    return *lines;
  }
  uint64_t hash(std::string_view key) const {
    const std::string digits = text(key);
    uint64_t hash = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), hash, 16);
    if (error != std::errc() || end != digits.data() + digits.size()) refuse(key);
    return hash;
  }
  Totals totals() const {
    if (!at("totals").is_object()) refuse("totals");
    const std::optional<Totals> totals = totals_from_json(at("totals").get_object());
    if (!totals) refuse("totals");
    return *totals;
  }

 private:
  const json::value& at(std::string_view key) const {
    const json::value* value = record_.if_contains({key.data(), key.size()});
    if (value == nullptr) refuse(key);
    return *value;
  }
  [[noreturn]] void refuse(std::string_view key) const {
    throw ResumeError(where_ + ": has no good \"" + std::string(key) +
                      "\"; the file is damaged, --overwrite starts anew");
  }

  const json::object& record_;
  const std::string where_;
};

BatchRecord read_batch(const RecordReader& reader) {
  return BatchRecord{.rows = reader.lines("rows"),
                     .bad = reader.lines("bad"),
                     .output_begin = reader.count("output_begin"),
                     .output_end = reader.count("output_end"),
                     .errors_begin = reader.count("errors_begin"),
                     .errors_end = reader.count("errors_end"),
                     .hash_sum = reader.hash("hash_sum"),
                     .totals = reader.totals()};
}

/// The settings, by name, in which two runs differ: "top_k (5, now 10)".
std::string differences(const json::object& before, const json::object& now) {
  std::string text;
  const auto add = [&](std::string_view key, const std::string& was, const std::string& is) {
    text += (text.empty() ? "" : ", ") + std::string(key) + " (" + was.substr(0, 200) + ", now " +
            is.substr(0, 200) + ")";
  };
  for (const auto& [key, value] : before) {
    const json::value* other = now.if_contains(key);
    if (other == nullptr)
      add(key, json::serialize(value), "absent");
    else if (*other != value)
      add(key, json::serialize(value), json::serialize(*other));
  }
  for (const auto& [key, value] : now)
    if (!before.contains(key)) add(key, "absent", json::serialize(value));
  return text;
}

void check_header(const json::object& header,
                  const std::string& where,
                  const json::object& settings) {
  const json::value* version = header.if_contains("augur_score_state");
  if (version == nullptr || !version->is_int64())
    throw ResumeError(where + ": is not the state of an augur-score run");
  if (version->get_int64() != kFormatVersion)
    throw ResumeError(where + ": was written by another version of augur-score (format " +
                      json::serialize(*version) + ", accepted: " + std::to_string(kFormatVersion) +
                      ")");
  const json::value* before = header.if_contains("settings");
  if (before == nullptr || !before->is_object())
    throw ResumeError(where + ": has no settings; --overwrite starts anew");
  const std::string difference = differences(before->get_object(), settings);
  if (!difference.empty())
    throw ResumeError("the earlier run was asked for something else: " + difference +
                      "; use the same settings, or --overwrite to start anew");
}

struct Record {
  json::object fields;
  std::string where;  // for errors
  int64_t end = 0;    // bytes of the journal up to and with this record

  const json::object* part(std::string_view key) const {
    const json::value* value = fields.if_contains({key.data(), key.size()});
    return value != nullptr && value->is_object() ? &value->get_object() : nullptr;
  }
};

/// Reads the journal record by record: that of a run of days is long.
class JournalReader {
 public:
  explicit JournalReader(const OutputFile& state) : state_(state) {}

  /// The next record. Nothing at the end, or at a half line there, for which no row was written.
  std::optional<Record> next() {
    size_t line_break;
    while ((line_break = text_.find('\n', begin_)) == text_.npos) {
      const std::string more = state_.read(read_bytes_, kChunkBytes);
      if (more.empty()) return {};
      read_bytes_ += static_cast<int64_t>(more.size());
      text_.erase(0, begin_);
      begin_ = 0;
      text_ += more;
    }
    Record record{.where = state_.name() + ":" + std::to_string(++line_number_)};
    json::error_code error;
    json::value value = json::parse({text_.data() + begin_, line_break - begin_}, error);
    if (error || !value.is_object())
      throw ResumeError(record.where +
                        ": is not a JSON object; the file is damaged, --overwrite "
                        "starts anew");
    record.fields = std::move(value.get_object());
    begin_ = line_break + 1;
    record.end = read_bytes_ - static_cast<int64_t>(text_.size() - begin_);
    return record;
  }

 private:
  static constexpr int64_t kChunkBytes = 1 << 20;
  const OutputFile& state_;
  std::string text_;  // read and not yet taken: from begin_ on
  size_t begin_ = 0;
  int64_t read_bytes_ = 0;
  int64_t line_number_ = 0;
};

/// Whether the file reaches up to `end` and a line ends there.
bool has_whole_lines_up_to(const OutputFile* file, int64_t end) {
  if (end == 0) return true;
  return file != nullptr && file->num_bytes() >= end && file->read(end - 1, 1) == "\n";
}

/// The bytes of [begin, end) that are whole lines, counted into `num_lines`, at most `max_lines`.
std::string whole_lines(
    const OutputFile* file, int64_t begin, int64_t end, int64_t max_lines, int64_t& num_lines) {
  num_lines = 0;
  if (file == nullptr) return "";
  std::string text = file->read(begin, std::min(end, file->num_bytes()) - begin);
  size_t whole = 0;
  while (num_lines < max_lines) {
    const size_t line_break = text.find('\n', whole);
    if (line_break == text.npos) break;
    whole = line_break + 1;
    ++num_lines;
  }
  text.resize(whole);
  return text;
}

/// The lines of a batch that stand whole in the files, when it was written in part.
BatchRecord kept_part(const BatchRecord& batch,
                      const OutputFile& output,
                      const OutputFile* errors) {
  BatchRecord kept{.output_begin = batch.output_begin, .errors_begin = batch.errors_begin};
  int64_t num_rows = 0;
  int64_t num_bad = 0;
  const std::string rows =
      whole_lines(&output, batch.output_begin, batch.output_end, batch.rows.size(), num_rows);
  const std::string bad =
      whole_lines(errors, batch.errors_begin, batch.errors_end, batch.bad.size(), num_bad);
  for (size_t begin = 0; begin < rows.size();) {
    const size_t end = rows.find('\n', begin);
    json::error_code error;
    const json::value row = json::parse({rows.data() + begin, end - begin}, error);
    const std::optional<Totals> totals =
        error || !row.is_object() ? std::nullopt : totals_of_row(row.get_object());
    if (!totals) {  // a disk that lost power can leave lines of zeros
      num_rows = std::count(rows.begin(), rows.begin() + static_cast<ptrdiff_t>(begin), '\n');
      kept.output_end = batch.output_begin + static_cast<int64_t>(begin);
      break;
    }
    kept.totals += *totals;
    begin = end + 1;
    kept.output_end = batch.output_begin + static_cast<int64_t>(begin);
  }
  kept.output_end = std::max(kept.output_end, kept.output_begin);
  kept.errors_end = batch.errors_begin + static_cast<int64_t>(bad.size());
  kept.rows = batch.rows.first_lines(num_rows);
  kept.bad = batch.bad.first_lines(num_bad);
  kept.totals.bad_lines = num_bad;
  return kept;
}

json::object batch_to_json(const BatchRecord& batch) {
  return {{"rows", batch.rows.to_string()},           {"bad", batch.bad.to_string()},
          {"output_begin", batch.output_begin},       {"output_end", batch.output_end},
          {"errors_begin", batch.errors_begin},       {"errors_end", batch.errors_end},
          {"hash_sum", hash_to_text(batch.hash_sum)}, {"totals", totals_to_json(batch.totals)}};
}

std::string line_of(json::object record) {
  return json::serialize(record) + "\n";
}

void count_batch(const BatchRecord& batch, bool is_verified, ResumePoint& point) {
  for (const LineSet* lines : {&batch.rows, &batch.bad}) {
    point.done.insert_all(*lines);
    if (!is_verified) point.unverified.insert_all(*lines);
  }
  point.hash_sum += batch.hash_sum;
  point.totals += batch.totals;
  point.output_bytes = batch.output_end;
  point.errors_bytes = batch.errors_end;
}

}  // namespace

std::string header_record(const json::object& settings) {
  return line_of({{"augur_score_state", kFormatVersion}, {"settings", settings}});
}

std::string batch_record(const BatchRecord& batch) {
  return line_of({{"batch", batch_to_json(batch)}});
}

std::string held_record(int64_t line, const HeldRow& row) {
  return line_of({{"held",
                   {{"line", line},
                    {"line_hash", hash_to_text(row.line_hash)},
                    {"is_bad", row.is_bad},
                    {"text", row.text},
                    {"totals", totals_to_json(row.totals)}}}});
}

ResumePoint recover(OutputFile& state,
                    OutputFile& output,
                    OutputFile* errors,
                    const json::object& settings) {
  JournalReader journal(state);
  std::optional<Record> record = journal.next();
  if (!record) throw ResumeError(state.name() + ": is empty; --overwrite starts anew");
  check_header(record->fields, record->where, settings);

  ResumePoint point;
  int64_t state_bytes = record->end;
  std::string kept_line;
  record = journal.next();
  while (record) {
    std::optional<Record> after = journal.next();
    state_bytes = record->end;
    if (const json::object* held = record->part("held")) {
      const RecordReader reader(*held, record->where);
      point.held[reader.count("line")] = HeldRow{.line_hash = reader.hash("line_hash"),
                                                 .text = reader.text("text"),
                                                 .is_bad = reader.boolean("is_bad"),
                                                 .totals = reader.totals()};
    } else if (const json::object* fields = record->part("batch")) {
      const BatchRecord batch = read_batch(RecordReader(*fields, record->where));
      // A batch that an earlier recovery found written in part is followed by what counts of it.
      if (const json::object* kept = after ? after->part("kept") : nullptr) {
        count_batch(read_batch(RecordReader(*kept, after->where)), /*is_verified=*/false, point);
        state_bytes = after->end;
        after = journal.next();
      } else if (has_whole_lines_up_to(&output, batch.output_end) &&
                 has_whole_lines_up_to(errors, batch.errors_end)) {
        count_batch(batch, /*is_verified=*/true, point);
      } else {
        // Batches after one that is not whole lost what they stand on (only a crash of the whole
        // machine does that): they are done again.
        const BatchRecord whole_part = kept_part(batch, output, errors);
        count_batch(whole_part, /*is_verified=*/false, point);
        kept_line = line_of({{"kept", batch_to_json(whole_part)}});
        break;
      }
    } else {
      throw ResumeError(record->where +
                        ": is no record of augur-score; the file is damaged, "
                        "--overwrite starts anew");
    }
    record = std::move(after);
  }
  for (auto held = point.held.begin(); held != point.held.end();)
    held = point.done.contains(held->first) ? point.held.erase(held) : std::next(held);

  state.truncate(state_bytes);
  if (!kept_line.empty()) state.append(kept_line);
  output.truncate(point.output_bytes);
  if (errors != nullptr) errors->truncate(point.errors_bytes);
  return point;
}

}  // namespace augur::score
