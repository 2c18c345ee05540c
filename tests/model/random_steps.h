// Steps of sequences that begin, go on, and end at random: prompts whole or in chunks beside decode
// rows, alone or together.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "engine/model/step_batch.h"

namespace augur::test {

class RandomSteps {
 public:
  RandomSteps(const ModelRunner::Limits& limits, uint64_t seed)
      : limits_(limits),
        blocks_per_seq_((limits.max_context + limits.block_size - 1) / limits.block_size),
        random_(seed),
        lengths_(limits.max_seqs),
        ids_(limits.max_seqs) {}

  /// One to max_seqs sequences; logits of every row are read.
  StepBatch next() {
    std::vector<int> seqs(limits_.max_seqs);
    for (size_t i = 0; i < seqs.size(); ++i) seqs[i] = static_cast<int>(i);
    std::shuffle(seqs.begin(), seqs.end(), random_);
    seqs.resize(1 + random_() % seqs.size());
    std::vector<int64_t> counts(limits_.max_seqs);
    for (const int seq : seqs) {
      if (lengths_[seq] + 24 > limits_.max_context) lengths_[seq] = 0;
      if (lengths_[seq] == 0) ids_[seq] = next_id_++;
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
  void add(StepBatch& batch, int seq, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t position = lengths_[seq]++;
      batch.logit_rows.push_back({.row_idx = static_cast<int32_t>(batch.num_tokens()),
                                  .target_id = 0,
                                  .wants_logprob = true});
      batch.token_ids.push_back(static_cast<int32_t>(random_() % limits_.vocab_size));
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
  int64_t next_id_ = 0;
};

}  // namespace augur::test
