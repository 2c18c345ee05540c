#include "tests/schedule/toy_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <stdexcept>
#include <utility>

#include "engine/text/detokenizer.h"

namespace augur::test {
namespace {

uint64_t hash_step(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

float unit(uint64_t hash) {
  return static_cast<float>(hash_step(hash, 7) >> 40) / (1 << 24);
}

void require(bool cond, const std::string& message) {
  if (!cond) throw std::runtime_error(message);
}

}  // namespace

std::vector<float> toy_logits(std::span<const int32_t> context) {
  uint64_t hash = 1;
  for (size_t i = 0; i < context.size(); ++i) hash = hash_step(hash, i * 100 + context[i]);
  std::vector<float> logits(kToyVocab);
  for (int32_t v = 0; v < kToyVocab; ++v) logits[v] = -8 * unit(hash_step(hash, v));
  return logits;
}

LogitResult toy_result(std::span<const int32_t> context, const LogitRow& row) {
  const std::vector<float> logits = toy_logits(context);
  LogitResult result;
  int32_t target = row.target_id;
  if (row.wants_sample) {
    const SamplingRow& sampling = row.sampling;
    std::vector<float> adjusted = logits;
    for (const LogitBias& bias : sampling.logit_bias) adjusted[bias.token_id] += bias.bias;
    for (const int32_t id : sampling.prompt_ids) adjusted[id] -= sampling.repetition_penalty - 1;
    for (const int32_t id : sampling.output_ids) adjusted[id] -= sampling.presence_penalty;
    if (sampling.temperature > 0) {
      for (int32_t v = 0; v < kToyVocab; ++v) {
        const uint64_t draw = hash_step(hash_step(sampling.seed, sampling.draw_idx), v);
        adjusted[v] += sampling.temperature * 8 * unit(draw);
      }
    }
    result.sampled_id =
        static_cast<int32_t>(std::max_element(adjusted.begin(), adjusted.end()) - adjusted.begin());
    if (target < 0) target = result.sampled_id;
  }
  if (row.wants_logprob || row.top_n > 0) result.logprob = logits.at(target);
  std::vector<int32_t> order(kToyVocab);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  for (int i = 0; i < row.top_n; ++i) result.top.push_back({order[i], logits[order[i]]});
  return result;
}

const Tokenizer& toy_tokenizer() {
  // Byte-level, so a space is written Ġ, a newline Ċ, and the bytes of é are written Ã and ©.
  static const Tokenizer tokenizer = Tokenizer::from_json(R"({
    "added_tokens": [{"id": 23, "content": "<eos>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "merges": [], "vocab": {
      "a": 0, "b": 1, "c": 2, "ab": 3, "ba": 4, "abc": 5, "bca": 6, "cab": 7, "aa": 8, "bb": 9,
      "cc": 10, "abab": 11, "Ġa": 13, "Ġb": 14, ".Ġ": 15, "Ċ": 16, "ĊĊ": 17,
      "Ã": 18, "©": 19, "Ã©b": 20, "cÃ": 21, "©Ã": 22}}})",
                                                          "toy tokenizer");
  return tokenizer;
}

ToyRunner::ToyRunner(const Limits& limits)
    : limits_(limits), cache_(limits.num_kv_blocks * limits.block_size) {}

void ToyRunner::check_shape(const StepBatch& batch) const {
  const int num_seqs = batch.num_seqs();
  require(batch.num_tokens() >= 1 && batch.num_tokens() <= limits_.max_tokens,
          fmt::format("{} rows", batch.num_tokens()));
  require(num_seqs >= 1 && num_seqs <= limits_.max_seqs, fmt::format("{} sequences", num_seqs));
  require(batch.positions.size() == batch.token_ids.size(), "positions");
  require(batch.kv_slots.size() == batch.token_ids.size(), "kv_slots");
  require(batch.query_start.size() == static_cast<size_t>(num_seqs) + 1, "query_start");
  require(batch.query_start.front() == 0 && batch.query_start.back() == batch.num_tokens(),
          "query_start does not span the rows");
  require(static_cast<int64_t>(batch.block_table.size()) == num_seqs * batch.block_table_stride,
          "block_table");
  std::set<int64_t> slots(batch.kv_slots.begin(), batch.kv_slots.end());
  require(slots.size() == batch.kv_slots.size(), "two rows share a slot");
  for (const int32_t id : batch.token_ids) require(id >= 0 && id < kToyVocab, "token id");
  int32_t last_row = -1;
  for (const LogitRow& row : batch.logit_rows) {
    require(row.row_idx > last_row && row.row_idx < batch.num_tokens(), "logit rows do not rise");
    last_row = row.row_idx;
    require(row.wants_sample || row.wants_logprob, "a logit row wants nothing");
    require(row.wants_sample == (row.target_id == -1), "target of a sampled row");
  }
}

std::vector<int32_t> ToyRunner::read_context(const StepBatch& batch, int seq_idx) const {
  std::vector<int32_t> context;
  const int num_own = batch.query_start[seq_idx + 1] - batch.query_start[seq_idx];
  for (int32_t position = 0; position < batch.context_len[seq_idx]; ++position) {
    const int64_t entry = position / limits_.block_size;
    require(entry < batch.block_table_stride, "context beyond the block table");
    const int32_t block = batch.block_table[seq_idx * batch.block_table_stride + entry];
    require(block >= 0 && block < limits_.num_kv_blocks, fmt::format("block {}", block));
    const Slot& slot = cache_[block * limits_.block_size + position % limits_.block_size];
    require(slot.written_in != num_launched_ || position >= batch.context_len[seq_idx] - num_own,
            "a slot is read that another sequence writes in the same step");
    require(slot.position == position,
            fmt::format("position {} read at position {}", slot.position, position));
    context.push_back(slot.token_id);
  }
  return context;
}

void ToyRunner::collect(std::vector<LogitResult>& results) {
  require(!under_way_.empty(), "no step is under way");
  results = std::move(under_way_.front());
  under_way_.erase(under_way_.begin());
}

void ToyRunner::launch(const StepBatch& asked) {
  StepBatch batch = asked;
  for (int32_t& id : batch.token_ids) {
    if (id < 0) id = sampled_ids_.at(~id);
  }
  if (fails_) throw std::runtime_error("told to fail");
  std::vector<int> failing;
  for (int s = 0; s < batch.num_seqs(); ++s) {
    const auto first = batch.token_ids.begin() + batch.query_start[s];
    const auto end = batch.token_ids.begin() + batch.query_start[s + 1];
    if (std::find(first, end, failing_token_) != end) failing.push_back(s);
  }
  if (!failing.empty()) throw StepFailed(failing, "the token cannot be run");
  require(under_way_.size() < kMaxSteps, "too many steps under way");
  check_shape(batch);
  ++num_launched_;
  num_rows_run_ += batch.num_tokens();
  num_logit_rows_ += static_cast<int64_t>(batch.logit_rows.size());
  most_rows_ = std::max(most_rows_, batch.num_tokens());
  most_seqs_ = std::max<int64_t>(most_seqs_, batch.num_seqs());
  for (int64_t row = 0; row < batch.num_tokens(); ++row) {
    cache_.at(batch.kv_slots[row]) = {batch.token_ids[row], batch.positions[row], num_launched_};
  }
  std::vector<LogitResult> results;
  size_t next_logit_row = 0;
  for (int s = 0; s < batch.num_seqs(); ++s) {
    const int32_t first = batch.query_start[s];
    const int32_t end = batch.query_start[s + 1];
    require(end > first, "a sequence without rows");
    const std::vector<int32_t> context = read_context(batch, s);
    for (int32_t row = first; row < end; ++row) {
      const int32_t position = batch.context_len[s] - (end - row);
      require(batch.positions[row] == position, "rows are not the end of the context");
      require(context[position] == batch.token_ids[row], "a row was not written where it is read");
    }
    for (; next_logit_row < batch.logit_rows.size(); ++next_logit_row) {
      const LogitRow& row = batch.logit_rows[next_logit_row];
      if (row.row_idx >= end) break;
      const size_t length = batch.positions[row.row_idx] + 1;
      results.push_back(toy_result(std::span(context).first(length), row));
    }
  }
  sampled_ids_.clear();
  for (const LogitResult& result : results) sampled_ids_.push_back(result.sampled_id);
  under_way_.push_back(std::move(results));
}

RequestResult expected_result(const Request& request,
                              int64_t max_context,
                              std::span<const int32_t> eos_token_ids) {
  const SamplingParams& params = request.sampling;
  RequestResult result;
  result.id = request.id;
  result.num_prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
  if (request.score_prompt) {
    for (size_t i = request.score_from; i < request.prompt_ids.size(); ++i) {
      LogitRow row{.target_id = request.prompt_ids[i],
                   .top_n = request.prompt_top_logprobs,
                   .wants_logprob = true};
      LogitResult scored = toy_result(std::span(request.prompt_ids).first(i), row);
      result.prompt_logprobs.push_back({request.prompt_ids[i], scored.logprob, scored.top});
    }
  }
  for (int i = 0; i < (params.max_tokens > 0 ? params.n : 0); ++i) {
    Completion completion;
    std::vector<int32_t> context = request.prompt_ids;
    Detokenizer stream(toy_tokenizer(), params.skip_special_tokens);
    std::string text;
    while (completion.finish_reason == FinishReason::kNone) {
      const int64_t num_output = static_cast<int64_t>(completion.output_ids.size());
      std::vector<LogitBias> bias = params.logit_bias;
      std::set<int32_t> stop_ids(params.stop_token_ids.begin(), params.stop_token_ids.end());
      if (!params.ignore_eos) stop_ids.insert(eos_token_ids.begin(), eos_token_ids.end());
      if (num_output < params.min_tokens) {
        for (const int32_t id : stop_ids) bias.push_back({id, -INFINITY});
      }
      LogitRow row{.top_n = std::max(params.logprobs, 0),
                   .wants_sample = true,
                   .wants_logprob = params.logprobs >= 0};
      row.sampling.temperature = params.temperature;
      row.sampling.repetition_penalty = params.repetition_penalty;
      row.sampling.presence_penalty = params.presence_penalty;
      row.sampling.seed = *params.seed + i;
      row.sampling.draw_idx = num_output;
      row.sampling.logit_bias = bias;
      row.sampling.prompt_ids = request.prompt_ids;
      row.sampling.output_ids = completion.output_ids;
      const LogitResult drawn = toy_result(context, row);
      const int32_t id = drawn.sampled_id;
      context.push_back(id);
      completion.output_ids.push_back(id);
      if (params.logprobs >= 0) completion.logprobs.push_back({id, drawn.logprob, drawn.top});

      const bool is_stop_id = stop_ids.contains(id);
      const bool is_full = num_output + 1 == params.max_tokens ||
                           static_cast<int64_t>(context.size()) == max_context;
      if (is_stop_id || is_full) {
        completion.finish_reason = is_stop_id ? FinishReason::kStop : FinishReason::kLength;
      }
      const size_t old_bytes = text.size();
      if (!is_stop_id || params.include_stop_in_output) text += stream.push(id);
      if (is_stop_id || is_full) text += stream.finish();
      for (size_t end = old_bytes + 1; end <= text.size(); ++end) {
        if (num_output < params.min_tokens) break;
        const std::string* match = nullptr;
        for (const std::string& stop : params.stop) {
          if (!std::string_view(text).substr(0, end).ends_with(stop)) continue;
          if (match == nullptr || stop.size() > match->size()) match = &stop;
        }
        if (match == nullptr) continue;
        completion.finish_reason = FinishReason::kStop;
        completion.matched_stop = *match;
        text.resize(params.include_stop_in_output ? end : end - match->size());
        break;
      }
    }
    completion.text = text;
    result.completions.push_back(std::move(completion));
  }
  return result;
}

}  // namespace augur::test
