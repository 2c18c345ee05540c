#include "engine/server/chrome_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <unordered_set>

namespace augur::server {
namespace {

using Time = std::chrono::steady_clock::time_point;

constexpr size_t kPieceBytes = 64 << 10;

constexpr int kProcess = 1;
constexpr int kEngineThread = 1;
constexpr int kRequestThread = 2;

/// `text` as a JSON string. What is not printable ASCII becomes '?': ids are, and viewers need no
/// more.
std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else {
      result += byte < 0x20 || byte >= 0x7f ? '?' : c;
    }
  }
  return result + "\"";
}

const char* step_name(const StepReport& step) {
  if (step.decode_tokens == 0) return "prefill";
  return step.prefill_tokens == 0 ? "decode" : "mixed";
}

class Writer {
 public:
  Writer(const Recording& recording, const std::function<bool(std::string_view)>& write)
      : recording_(recording), write_(write) {}

  void run() {
    piece_ += "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
    name("process_name", kEngineThread, "augur");
    name("thread_name", kEngineThread, "engine");
    name("thread_name", kRequestThread, "requests");
    std::unordered_set<uint64_t> finished;
    for (const TraceRecord& record : recording_.records) {
      if (record.kind == TraceRecord::Kind::kFinished) finished.insert(record.ticket);
    }
    for (const TraceRecord& record : recording_.records) {
      switch (record.kind) {
        case TraceRecord::Kind::kStep:
          add_step(record.step);
          break;
        case TraceRecord::Kind::kStarted:
          // The end of a request knows all of its times.
          if (!finished.contains(record.ticket)) add_request(record, recording_.end);
          break;
        case TraceRecord::Kind::kFinished:
          add_request(record, record.times.finished);
          break;
      }
      if (piece_.size() >= kPieceBytes && !hand_over()) return;
    }
    fmt::format_to(std::back_inserter(piece_), "\n],\"otherData\":{{\"dropped_records\":{}}}}}\n",
                   recording_.num_dropped);
    hand_over();
  }

 private:
  bool hand_over() {
    const bool goes_on = write_(piece_);
    piece_.clear();
    return goes_on;
  }

  /// Microseconds since the recording began.
  double at(Time time) const {
    return std::chrono::duration<double, std::micro>(time - recording_.begin).count();
  }

  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    piece_ += is_first_ ? "\n" : ",\n";
    is_first_ = false;
    fmt::format_to(std::back_inserter(piece_), format, std::forward<Args>(args)...);
  }

  void name(const char* what, int thread, const char* text) {
    add(R"({{"ph":"M","pid":{},"tid":{},"name":"{}","args":{{"name":"{}"}}}})", kProcess, thread,
        what, text);
  }

  void add_step(const StepReport& step) {
    add(R"({{"ph":"X","pid":{},"tid":{},"cat":"step","name":"{}","ts":{:.3f},"dur":{:.3f},)"
        R"("args":{{"prefill_tokens":{},"decode_tokens":{},"running":{},"waiting":{}}}}})",
        kProcess, kEngineThread, step_name(step), at(step.begin), at(step.end) - at(step.begin),
        step.prefill_tokens, step.decode_tokens, step.num_running, step.num_waiting);
  }

  /// Its phases one after the other; those it did not come to are left out.
  void add_request(const TraceRecord& record, Time end) {
    const RequestTimes& times = record.times;
    const Time started = times.started == Time() ? end : times.started;
    const Time first_token = times.first_token == Time() ? end : times.first_token;
    add_phase(record, "queued", times.submitted, started);
    if (times.started != Time()) add_phase(record, "prefill", started, first_token);
    if (times.first_token != Time()) add_phase(record, "decode", first_token, end);
  }

  void add_phase(const TraceRecord& record, const char* phase, Time begin, Time end) {
    const double begin_us = std::max(0.0, at(begin));
    const double end_us = std::max(begin_us, at(std::min(end, recording_.end)));
    if (at(end) < 0) return;  // over before the recording
    add(R"({{"ph":"b","cat":"request","id":"{:#x}","pid":{},"tid":{},"name":"{}","ts":{:.3f},)"
        R"("args":{{"request":{},"prompt_tokens":{},"cached_tokens":{},"output_tokens":{},)"
        R"("aborted":{}}}}})",
        record.ticket, kProcess, kRequestThread, phase, begin_us, quoted(record.id),
        record.num_prompt_tokens, record.num_cached_tokens, record.num_output_tokens,
        record.cause != AbortCause::kNone);
    add(R"({{"ph":"e","cat":"request","id":"{:#x}","pid":{},"tid":{},"name":"{}","ts":{:.3f}}})",
        record.ticket, kProcess, kRequestThread, phase, end_us);
  }

  const Recording& recording_;
  const std::function<bool(std::string_view)>& write_;
  std::string piece_;
  bool is_first_ = true;
};

}  // namespace

void write_chrome_trace(const Recording& recording,
                        const std::function<bool(std::string_view piece)>& write) {
  Writer(recording, write).run();
}

}  // namespace augur::server
