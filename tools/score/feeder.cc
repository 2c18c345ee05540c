#include "tools/score/feeder.h"

#include <algorithm>
#include <utility>

namespace augur::score {

void sort_window(std::vector<WorkItem>& window) {
  const auto num_tokens = [](const WorkItem& item) {
    const auto* document = std::get_if<EncodedDocument>(&item.content);
    return document != nullptr ? document->ids.size() : SIZE_MAX;
  };
  // Stable, so that equal lengths stay in order and early lines are written early.
  std::stable_sort(window.begin(), window.end(), [&](const WorkItem& a, const WorkItem& b) {
    return num_tokens(a) > num_tokens(b);
  });
}

Feeder::Feeder(LineReader& reader,
               const TextCodec& codec,
               const FeederSettings& settings,
               const ResumePoint& resume,
               WorkQueue& queue)
    : reader_(reader), codec_(codec), settings_(settings), resume_(resume), queue_(queue) {}

std::optional<WorkItem> Feeder::make_item(const InputLine& line) {
  if (line.is_blank()) return {};
  WorkItem item{.line_number = line.number, .line_hash = line.hash, .line_bytes = line.num_bytes};
  if (const auto held = resume_.held.find(line.number); held != resume_.held.end()) {
    item.content = held->second;
    return item;
  }
  try {
    if (line.is_too_long)
      throw BadLine("is " + std::to_string(line.num_bytes) + " bytes long, accepted: at most " +
                    std::to_string(LineReader::kMaxLineBytes));
    const Document document = parse_document(line.text, line.number, settings_.encode.mode);
    item.id_json = document.id_json;
    item.content = encode_document(document, codec_, settings_.encode);
  } catch (const BadLine& bad) {
    if (item.id_json.empty()) item.id_json = bad.id_json();
    item.content = LineProblem{bad.what()};
  }
  return item;
}

bool Feeder::hand_over() {
  if (window_.empty()) return true;
  sort_window(window_);
  window_tokens_ = 0;
  return queue_.push(std::exchange(window_, {}));
}

void Feeder::check_done_lines() const {
  if (hash_sum_ != resume_.hash_sum)
    throw ResumeError("lines of the input that are done (up to line " +
                      std::to_string(resume_.done.max()) +
                      ") have changed since; use the same input, or --overwrite to start anew");
}

void Feeder::take(const InputLine& line) {
  if (resume_.done.contains(line.number)) {
    if (!resume_.unverified.contains(line.number)) hash_sum_ += line.hash;
    passed_bytes_ += line.num_bytes;
    return;
  }
  const auto held = resume_.held.find(line.number);
  if (held != resume_.held.end() && held->second.line_hash != line.hash)
    throw ResumeError("line " + std::to_string(line.number) +
                      " of the input has changed since it was done; use the same input, or "
                      "--overwrite to start anew");
  std::optional<WorkItem> item = make_item(line);
  if (!item) {
    passed_bytes_ += line.num_bytes;
    return;
  }
  item->sequence = next_sequence_++;
  window_tokens_ += item->weight();
  window_.push_back(std::move(*item));
}

void Feeder::run() {
  int64_t last_known = resume_.done.max();
  if (!resume_.held.empty()) last_known = std::max(last_known, resume_.held.rbegin()->first);
  is_checked_ = last_known == 0;
  reader_.set_while_waiting([this] {
    // A slow pipe: the model gets what there is rather than wait for a full window.
    if (is_checked_ && queue_.is_drained()) hand_over();
    return !queue_.is_closed();
  });

  InputLine line;
  int64_t num_lines = 0;
  while (!queue_.is_closed() && reader_.next(line)) {
    num_lines = line.number;
    take(line);
    if (!is_checked_ && line.number >= last_known) {
      check_done_lines();
      is_checked_ = true;
    }
    // Until the lines done are known to be the same nothing new may start. What is open among
    // them is at most what the earlier run had in flight.
    const bool is_full = window_tokens_ >= settings_.window_tokens ||
                         static_cast<int64_t>(window_.size()) >= settings_.window_items;
    if (is_checked_ && is_full && !hand_over()) return;
  }
  if (queue_.is_closed()) return;
  if (!is_checked_)
    throw ResumeError("the input ends at line " + std::to_string(num_lines) + ", but line " +
                      std::to_string(last_known) +
                      " is done; use the same input, or --overwrite to start anew");
  hand_over();
}

FeederThread::FeederThread(Feeder& feeder, WorkQueue& queue)
    : queue_(queue), thread_([&feeder, &queue] {
        try {
          feeder.run();
          queue.end();
        } catch (...) {
          queue.end(std::current_exception());
        }
      }) {}

FeederThread::~FeederThread() {
  queue_.close();
  thread_.join();
}

}  // namespace augur::score
