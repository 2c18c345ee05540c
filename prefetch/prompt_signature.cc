#include "prefetch/prompt_signature.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "kernels/require.h"
#include "prefetch/rank_experts.h"

namespace augur {
namespace {

// A token's choices count half after 14 further tokens of its sequence. A shorter memory would
// recall a little more of the very next token, as Recency does; this one is for what lasts.
constexpr float kRecentDecay = 0.95f;
// What is known from before counts like so many tokens of the sequence itself: enough to rank by at
// first, a fifth of what its own recent tokens count for once there are a few dozen.
constexpr float kKnownTokens = 4;

}  // namespace

void PromptSignature::Sequence::clear() {
  known = nullptr;
  num_known_tokens = 0;
  prompt_ids.clear();
  hash = {};
  num_tokens = 0;
  is_prompt_counted = false;
  std::fill(recent.begin(), recent.end(), 0.0f);
}

PromptSignature::PromptSignature(MoeLayers layers, const Options& options)
    : layers_(std::move(layers)),
      options_(options),
      none_(layers_.end_layer(), layers_.num_experts()),
      store_(options.capacity),
      sequences_(options.max_idle_steps, options.max_sequences),
      scores_(layers_.num_experts()) {
  AUGUR_REQUIRE(options.checkpoint_tokens >= 1, std::to_string(options.checkpoint_tokens));
}

PromptSignature::Sequence& PromptSignature::sequence(int64_t sequence_id) {
  const size_t num_recent = static_cast<size_t>(layers_.num_layers()) * layers_.num_experts();
  const auto make = [&] { return std::make_unique<Sequence>(none_, num_recent); };
  return *sequences_.get(sequence_id, make).first;
}

const ExpertSignature* PromptSignature::signature_for(std::span<const int32_t> prompt_ids) {
  Sequence found(none_, 0);
  look_up(found, prompt_ids);
  return found.known.get();
}

void PromptSignature::begin_sequence(int64_t sequence_id, std::span<const int32_t> prompt_ids) {
  Sequence& begun = sequence(sequence_id);
  begun.clear();
  begun.prompt_ids.assign(prompt_ids.begin(), prompt_ids.end());
  look_up(begun, prompt_ids);
}

std::shared_ptr<const ExpertSignature> PromptSignature::signature(uint64_t prefix_hash) {
  return store_.find(prefix_hash);
}

void PromptSignature::insert(uint64_t prefix_hash, ExpertSignature signature) {
  AUGUR_REQUIRE(signature.num_layers() == none_.num_layers() &&
                    signature.num_experts() == none_.num_experts(),
                "a signature of another model");
  store_.insert(prefix_hash, std::move(signature));
}

void PromptSignature::look_up(Sequence& sequence, std::span<const int32_t> prompt_ids) {
  PrefixHash hash;
  for (size_t i = 0; i < prompt_ids.size(); ++i) {
    hash.extend(prompt_ids[i]);
    const auto num_tokens = static_cast<int64_t>(i) + 1;
    if (num_tokens % options_.checkpoint_tokens == 0 || i + 1 == prompt_ids.size()) {
      look_up(sequence, hash, num_tokens);
    }
  }
}

void PromptSignature::look_up(Sequence& sequence, const PrefixHash& hash, int64_t num_tokens) {
  if (num_tokens <= sequence.num_known_tokens) return;
  if (auto found = store_.find(hash.value())) {
    sequence.known = std::move(found);
    sequence.num_known_tokens = num_tokens;
  }
}

void PromptSignature::on_step(const StepRows& rows) {
  sequences_.on_step();
  parts_.clear();
  num_segments_ = 0;
  for (int64_t row = 0; row < rows.num_tokens;) {
    const int32_t sequence_idx = rows.sequence_of_row[row];
    Part part = {&sequence(rows.sequence_ids[sequence_idx]), row, 0};
    while (row < rows.num_tokens && rows.sequence_of_row[row] == sequence_idx) ++row;
    part.num_rows = row - part.first_row;
    begin_part(rows, part);
    parts_.push_back(part);
  }
}

void PromptSignature::begin_part(const StepRows& rows, const Part& part) {
  Sequence& sequence = *part.sequence;
  if (part.first_row < rows.num_decode_tokens) {
    end_prompt(sequence);
    return;
  }
  const int64_t position = rows.positions[part.first_row];
  if (position == 0) {
    sequence.hash = {};
    sequence.num_tokens = 0;
    sequence.prompt = none_;
    sequence.is_prompt_counted = true;
  } else if (!sequence.is_prompt_counted || position != sequence.num_tokens) {
    skip_to(sequence, position);
  }
  if (!sequence.is_prompt_counted) return;
  PrefixHash hash = sequence.hash;
  int64_t num_tokens = sequence.num_tokens;
  const int64_t end_row = part.first_row + part.num_rows;
  for (int64_t row = part.first_row; row < end_row;) {
    Segment& segment = next_segment();
    segment.sequence = &sequence;
    segment.first_row = row;
    do {
      hash.extend(rows.token_ids[row++]);
      ++num_tokens;
      segment.ends_at_checkpoint = num_tokens % options_.checkpoint_tokens == 0;
    } while (row < end_row && !segment.ends_at_checkpoint);
    segment.num_rows = row - segment.first_row;
    segment.hash = hash;
    look_up(sequence, hash, num_tokens);
  }
}

void PromptSignature::skip_to(Sequence& sequence, int64_t position) {
  // Which experts the tokens before used must be known from before; where that ends a little short
  // of them (or goes beyond), the shares are nearly the same.
  sequence.is_prompt_counted =
      sequence.known != nullptr && position <= static_cast<int64_t>(sequence.prompt_ids.size());
  if (!sequence.is_prompt_counted) return;
  sequence.hash = PrefixHash(std::span(sequence.prompt_ids).first(position));
  sequence.num_tokens = position;
  sequence.prompt = *sequence.known;
}

void PromptSignature::end_prompt(Sequence& sequence) {
  if (sequence.is_prompt_counted && sequence.num_tokens > 0) keep(sequence);
  sequence.is_prompt_counted = false;
  sequence.prompt_ids.clear();
}

void PromptSignature::keep(const Sequence& sequence) {
  if (store_.find(sequence.hash.value()) == nullptr) {
    store_.insert(sequence.hash.value(), sequence.prompt);
  }
}

PromptSignature::Segment& PromptSignature::next_segment() {
  if (num_segments_ == segments_.size()) {
    segments_.push_back({.counts = none_});
  } else {
    segments_[num_segments_].counts = none_;
  }
  return segments_[num_segments_++];
}

void PromptSignature::on_routing(const RoutingView& routing) {
  const int index = layers_.checked_index(routing);
  for (const Part& part : parts_) count_recent(part, index, routing);
  for (size_t i = 0; i < num_segments_; ++i) {
    Segment& segment = segments_[i];
    const int64_t first = segment.first_row * routing.top_k;
    const int64_t count = segment.num_rows * routing.top_k;
    segment.counts.add(routing.layer_idx, {routing.experts + first, static_cast<size_t>(count)});
  }
}

void PromptSignature::count_recent(const Part& part, int index, const RoutingView& routing) {
  const int64_t end_row = part.first_row + part.num_rows;
  AUGUR_REQUIRE(end_row <= routing.num_tokens, std::to_string(routing.num_tokens) + " rows");
  float* const recent = part.sequence->recent.data() + int64_t{index} * layers_.num_experts();
  // The rows of a chunk count as if they came at once.
  const float decay = std::pow(kRecentDecay, static_cast<float>(part.num_rows));
  for (int e = 0; e < layers_.num_experts(); ++e) recent[e] *= decay;
  for (int64_t row = part.first_row; row < end_row; ++row) {
    for (const int32_t expert : choices_of(routing, row)) {
      if (expert >= 0) recent[expert] += 1;
    }
  }
}

void PromptSignature::on_step_end() {
  for (size_t i = 0; i < num_segments_; ++i) {
    const Segment& segment = segments_[i];
    Sequence& sequence = *segment.sequence;
    sequence.prompt.add(segment.counts);
    sequence.hash = segment.hash;
    sequence.num_tokens += segment.num_rows;
    if (segment.ends_at_checkpoint) keep(sequence);
  }
  num_segments_ = 0;
}

void PromptSignature::score(const Sequence& sequence, int index) {
  const int num_experts = layers_.num_experts();
  const float* const recent = sequence.recent.data() + int64_t{index} * num_experts;
  std::copy_n(recent, num_experts, scores_.begin());
  if (sequence.known == nullptr) return;
  const std::span<const uint32_t> counts = sequence.known->counts(layers_.layer(index));
  const float scale = kKnownTokens / static_cast<float>(sequence.num_known_tokens);
  for (int e = 0; e < num_experts; ++e) scores_[e] += scale * static_cast<float>(counts[e]);
}

void PromptSignature::predict(int target_layer, const Guesses& guesses) {
  const int index = layers_.index_of(target_layer);
  if (guesses.num_tokens > kMaxGuessedRows) return;
  for (const Part& part : parts_) {
    AUGUR_REQUIRE(part.first_row + part.num_rows <= guesses.num_tokens,
                  std::to_string(guesses.num_tokens) + " rows of guesses");
    score(*part.sequence, index);
    int32_t* const first = guesses.row(part.first_row);
    rank_experts(scores_, {first, static_cast<size_t>(guesses.width)}, order_);
    for (int64_t row = part.first_row + 1; row < part.first_row + part.num_rows; ++row) {
      std::copy_n(first, guesses.width, guesses.row(row));
    }
  }
}

}  // namespace augur
