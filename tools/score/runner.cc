#include "tools/score/runner.h"

#include <utility>

#include "tools/score/interrupt.h"

namespace augur::score {

uint64_t seed_of_line(uint64_t seed, int64_t line_number) {
  // SplitMix64 (Steele, Lea and Flood 2014): neighbouring lines get unrelated seeds, so that the
  // seeds seed + i of one line's completions meet nobody else's.
  uint64_t mixed = seed + static_cast<uint64_t>(line_number) * 0x9e3779b97f4a7c15;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

Runner::Runner(Engine& engine,
               WorkQueue& queue,
               ResultWriter& writer,
               const RunnerSettings& settings,
               std::function<void(const RunProgress&)> report)
    : engine_(engine),
      queue_(queue),
      writer_(writer),
      settings_(settings),
      report_(std::move(report)) {}

std::optional<StrictStop> Runner::run() {
  bool expects_more = true;
  while (caught_signal() == 0) {
    if (expects_more) expects_more = feed();
    if (stop_) expects_more = false;
    const bool has_stepped = engine_.step();
    is_idle_ = !has_stepped;
    collect();
    writer_.flush_if_due();
    const EngineCounters& counters = engine_.counters();
    progress_.tokens = counters.prefill_tokens + counters.decode_tokens;
    report_(progress_);
    if (!has_stepped && !expects_more) break;
  }
  queue_.close();
  return stop_;
}

bool Runner::feed() {
  while (!stop_ && engine_.num_waiting() < settings_.max_waiting) {
    WorkItem item;
    switch (queue_.pop(item, /*wait=*/is_idle_)) {
      case WorkQueue::Pop::kItem:
        start(std::move(item));
        break;
      case WorkQueue::Pop::kEmpty:
        return true;
      case WorkQueue::Pop::kEnd:
        return false;
    }
  }
  return true;
}

void Runner::start(WorkItem&& item) {
  if (const auto* problem = std::get_if<LineProblem>(&item.content)) {
    finish_bad(item, problem->reason);
  } else if (const auto* held = std::get_if<HeldRow>(&item.content)) {
    finish(item, held->is_bad, held->text, held->totals);
  } else {
    start_document(std::move(item));
  }
}

Request Runner::make_request(const WorkItem& item) const {
  const auto& document = std::get<EncodedDocument>(item.content);
  Request request{.id = std::to_string(item.line_number), .prompt_ids = document.ids};
  if (settings_.mode == Mode::kScore) {
    request.score_prompt = true;
    request.score_from = document.score_from;
    request.prompt_top_logprobs = settings_.top_logprobs;
    request.sampling.max_tokens = 0;
  } else {
    request.sampling = settings_.sampling;
    request.sampling.seed = seed_of_line(settings_.sampling.seed.value_or(0), item.line_number);
  }
  return request;
}

void Runner::start_document(WorkItem&& item) {
  is_idle_ = false;
  Request request = make_request(item);
  if (settings_.mode == Mode::kScore && std::get<EncodedDocument>(item.content).num_scored() < 1) {
    finish_document(item, RequestResult{});  // one token: nothing to predict, no need of the model
    return;
  }
  if (const std::string problem = engine_.check(request); !problem.empty()) {
    finish_bad(item, problem);
    return;
  }
  request.on_finished = [finished = finished_, item = std::make_shared<const WorkItem>(
                                                   std::move(item))](RequestResult&& result) {
    finished->push_back({item, std::move(result)});
  };
  engine_.submit(std::move(request));
}

void Runner::collect() {
  // Not from within the callback: what the writer throws must not pass through the engine.
  for (const Finished& done : *finished_) finish_document(*done.item, done.result);
  finished_->clear();
}

void Runner::finish_document(const WorkItem& item, const RequestResult& result) {
  if (!result.error.empty()) {
    finish_bad(item, result.error);
    return;
  }
  try {
    const ResultRow row = settings_.mode == Mode::kScore
                              ? score_row(item.id_json, std::get<EncodedDocument>(item.content),
                                          result.prompt_logprobs, settings_.rows)
                              : generate_row(item.id_json, result, settings_.rows);
    finish(item, /*is_bad=*/false, row.text, row.totals);
  } catch (const BadLine& bad) {
    finish_bad(item, bad.what());
  }
}

void Runner::finish_bad(const WorkItem& item, const std::string& reason) {
  if (settings_.is_strict) {
    // Not done: with the line mended, --resume goes on from here.
    if (!stop_) stop_ = StrictStop{item.line_number, reason};
    return;
  }
  finish(item, /*is_bad=*/true, error_row(item.line_number, item.id_json, reason),
         Totals{.bad_lines = 1});
}

void Runner::finish(const WorkItem& item, bool is_bad, std::string text, const Totals& totals) {
  progress_.documents += totals.documents;
  progress_.bad_lines += totals.bad_lines;
  progress_.input_bytes += item.line_bytes;
  queue_.release(writer_.add({.sequence = item.sequence,
                              .line_number = item.line_number,
                              .line_hash = item.line_hash,
                              .is_bad = is_bad,
                              .text = std::move(text),
                              .totals = totals,
                              .weight = item.weight()}));
}

}  // namespace augur::score
