// Steps of sequences that begin, go on, and end at random: prompts whole or in chunks beside decode
// rows, alone or together. Their tokens are random too, or, where there are texts, follow one of
// them up to a random place: then many sequences share what comes first.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "engine/model/step_batch.h"

namespace augur::test {

class RandomSteps {
 public:
  /// The same texts whatever the seed.
  RandomSteps(const ModelRunner::Limits& limits, uint64_t seed, int num_texts = 0)
      : limits_(limits),
        blocks_per_seq_((limits.max_context + limits.block_size - 1) / limits.block_size),
        random_(seed),
        lengths_(limits.max_seqs),
        ids_(limits.max_seqs),
        text_of_(limits.max_seqs),
        departures_(limits.max_seqs) {
    std::mt19937_64 text_random(1);
    texts_.resize(num_texts);
    for (std::vector<int32_t>& text : texts_) {
      text.resize(limits.max_context);
      for (int32_t& token : text) token = static_cast<int32_t>(text_random() % limits.vocab_size);
    }
  }

  /// One to max_seqs sequences; logits of every row are read.
  StepBatch next() {
    std::vector<int> seqs(limits_.max_seqs);
    for (size_t i = 0; i < seqs.size(); ++i) seqs[i] = static_cast<int>(i);
    std::shuffle(seqs.begin(), seqs.end(), random_);
    seqs.resize(1 + random_() % seqs.size());
    std::vector<int64_t> counts(limits_.max_seqs);
    for (const int seq : seqs) {
      if (lengths_[seq] + 24 > limits_.max_context) lengths_[seq] = 0;
      if (lengths_[seq] == 0) begin(seq);
      counts[seq] = lengths_[seq] == 0 || random_() % 4 == 0 ? 2 + random_() % 9 : 1;
    }
    std::stable_sort(seqs.begin(), seqs.end(),
                     [&](int a, int b) { return (counts[a] == 1) > (counts[b] == 1); });
    StepBatch batch;
    batch.block_table_stride = blocks_per_seq_;
    batch.query_start = {0};
    for (const int seq : seqs) add(batch, seq, counts[seq]);
    return batch;
  }

 private:
  void begin(int seq) {
    ids_[seq] = next_id_++;
    if (texts_.empty()) return;
    text_of_[seq] = random_() % texts_.size();
    departures_[seq] = static_cast<int64_t>(random_() % limits_.max_context);
  }

  int32_t token_at(int seq, int64_t position) {
    if (!texts_.empty() && position < departures_[seq]) return texts_[text_of_[seq]][position];
    return static_cast<int32_t>(random_() % limits_.vocab_size);
  }

  void add(StepBatch& batch, int seq, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t position = lengths_[seq]++;
      batch.logit_rows.push_back({.row_idx = static_cast<int32_t>(batch.num_tokens()),
                                  .target_id = 0,
                                  .wants_logprob = true});
      batch.token_ids.push_back(token_at(seq, position));
      batch.positions.push_back(static_cast<int32_t>(position));
      batch.kv_slots.push_back(seq * blocks_per_seq_ * limits_.block_size + position);
    }
    batch.num_decode_seqs += count == 1;
    batch.query_start.push_back(static_cast<int32_t>(batch.num_tokens()));
    batch.context_len.push_back(static_cast<int32_t>(lengths_[seq]));
    batch.sequence_ids.push_back(ids_[seq]);
    for (int64_t block = 0; block < blocks_per_seq_; ++block) {
      batch.block_table.push_back(static_cast<int32_t>(seq * blocks_per_seq_ + block));
    }
  }

  const ModelRunner::Limits limits_;
  const int64_t blocks_per_seq_;
  std::mt19937_64 random_;
  std::vector<int64_t> lengths_;  // by sequence
  std::vector<int64_t> ids_;
  std::vector<std::vector<int32_t>> texts_;
  std::vector<size_t> text_of_;      // by sequence
  std::vector<int64_t> departures_;  // by sequence: the position from which it goes its own way
  int64_t next_id_ = 0;
};

}  // namespace augur::test
