#include "engine/text/pre_tokenizer.h"

#include <optional>

#include "engine/text/byte_alphabet.h"

namespace augur {
namespace {

struct Span {
  size_t begin;
  size_t end;
  bool is_delimiter;
};

// Joins delimiters with their neighbours as the behavior says. Spans come in order, without gaps.
class SpanJoiner {
 public:
  explicit SpanJoiner(SplitBehavior behavior) : behavior_(behavior) {}

  // The span that is complete now that `span` follows, if any.
  std::optional<Span> push(Span span) {
    if (!waiting_) {
      waiting_ = last_ = span;
      return std::nullopt;
    }
    const bool joins = [&] {
      switch (behavior_) {
        case SplitBehavior::kMergedWithPrevious:
          return span.is_delimiter && !last_->is_delimiter;
        case SplitBehavior::kMergedWithNext:
          return !span.is_delimiter && last_->is_delimiter;
        case SplitBehavior::kContiguous:
          return span.is_delimiter == last_->is_delimiter;
        default:
          return false;
      }
    }();
    last_ = span;
    if (joins) {
      waiting_->end = span.end;
      return std::nullopt;
    }
    return std::exchange(waiting_, span);
  }
  std::optional<Span> finish() { return waiting_; }

 private:
  SplitBehavior behavior_;
  std::optional<Span> waiting_;
  std::optional<Span> last_;  // as it came, before joining
};

}  // namespace

void PreTokenizer::run_step(size_t step_idx,
                            std::string_view piece,
                            bool is_input_start,
                            WordSink& sink) const {
  if (piece.empty()) return;
  if (step_idx == steps_.size()) return sink.take(piece);
  const PreTokenizerStep& step = steps_[step_idx];
  switch (step.kind) {
    case PreTokenizerStep::Kind::kSplit:
      return split(step_idx, piece, is_input_start, sink);
    case PreTokenizerStep::Kind::kEnsureStartsWith:
      if (piece.starts_with(step.text) || (step.only_at_start && !is_input_start)) {
        return run_step(step_idx + 1, piece, is_input_start, sink);
      }
      return run_step(step_idx + 1, std::string(step.text).append(piece), is_input_start, sink);
    case PreTokenizerStep::Kind::kReplaceSpaces: {
      std::string replaced;
      for (const char c : piece) {
        if (c == ' ') {
          replaced += step.text;
        } else {
          replaced += c;
        }
      }
      return run_step(step_idx + 1, replaced, is_input_start, sink);
    }
    case PreTokenizerStep::Kind::kByteLevel: {
      std::string stand_ins;
      append_stand_ins(piece, stand_ins);
      return run_step(step_idx + 1, stand_ins, is_input_start, sink);
    }
  }
}

void PreTokenizer::split(size_t step_idx,
                         std::string_view piece,
                         bool is_input_start,
                         WordSink& sink) const {
  const PreTokenizerStep& step = steps_[step_idx];
  const auto emit = [&](const Span& span) {
    if (step.behavior == SplitBehavior::kRemoved && span.is_delimiter) return;
    run_step(step_idx + 1, piece.substr(span.begin, span.end - span.begin),
             is_input_start && span.begin == 0, sink);
  };
  const bool joins =
      step.behavior != SplitBehavior::kRemoved && step.behavior != SplitBehavior::kIsolated;
  SpanJoiner joiner(step.behavior);
  const auto push = [&](size_t begin, size_t end, bool is_match) {
    const Span span{begin, end, is_match != step.invert};
    if (!joins) return emit(span);
    if (const std::optional<Span> joined = joiner.push(span)) emit(*joined);
  };
  size_t previous_end = 0;
  MatchCursor cursor(*step.pattern, piece);
  while (const auto match = cursor.next()) {
    if (match->begin > previous_end) push(previous_end, match->begin, false);
    push(match->begin, match->end, true);
    previous_end = match->end;
  }
  if (previous_end < piece.size()) push(previous_end, piece.size(), false);
  if (const std::optional<Span> last = joiner.finish()) emit(*last);
}

}  // namespace augur
