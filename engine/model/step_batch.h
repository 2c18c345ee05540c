// One step of the model: the rows it computes and what is wanted of them. Host memory.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/kv_format.h"
#include "kernels/sampling.h"

namespace augur {

/// A row whose next-token distribution is wanted: scored against a known next token, sampled,
/// or both read for log-probabilities.
struct LogitRow {
  int32_t row_idx = 0;     // row of the batch
  int32_t target_id = -1;  // score this token; -1: the sampled one, when the row is sampled
  int32_t top_n = 0;       // so many of the likeliest tokens are reported
  bool wants_sample = false;
  bool wants_logprob = false;  // of the target (given or sampled); top_n > 0 implies it
  SamplingRow sampling;        // read when wants_sample; its spans outlive the step
};

/// Rows of prefill chunks and decode steps together, sequence after sequence. Every sequence's
/// rows are consecutive positions that end at context_len - 1. Sequences may share blocks of a
/// common prompt; none reads a slot that another writes in the same step.
struct StepBatch {
  // [num_tokens]; ~i stands for what logit row i of the step before this one sampled, which the
  // host need not know yet.
  std::vector<int32_t> token_ids;
  std::vector<int32_t> positions;    // [num_tokens]
  std::vector<int64_t> kv_slots;     // [num_tokens], block * block_size + offset
  std::vector<int32_t> query_start;  // [num_seqs + 1]
  std::vector<int32_t> context_len;  // [num_seqs]
  std::vector<int32_t> block_table;  // [num_seqs, block_table_stride], -1 past a sequence's blocks
  int64_t block_table_stride = 0;
  // [num_seqs], or empty where nobody watches routing: a number for each sequence that no other
  // has.
  std::vector<int64_t> sequence_ids;
  int num_decode_seqs = 0;           // the first so many sequences have one row each
  std::vector<LogitRow> logit_rows;  // by rising row_idx, one a row; up to num_tokens of them

  int64_t num_tokens() const { return static_cast<int64_t>(token_ids.size()); }
  int num_seqs() const { return static_cast<int>(context_len.size()); }
};

/// A step that could not be run because of some of its sequences; without them it can be.
class StepFailed : public std::runtime_error {
 public:
  StepFailed(std::vector<int> failed_seqs, const std::string& reason)
      : std::runtime_error(reason), seqs(std::move(failed_seqs)) {}
  std::vector<int> seqs;  // of the batch, rising
};

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0;
};

/// What a step found, one entry per logit row of the batch.
struct LogitResult {
  int32_t sampled_id = -1;        // when wants_sample
  float logprob = 0;              // when wants_logprob or top_n > 0
  std::vector<TokenLogprob> top;  // top_n entries, likeliest first
};

/// What runs steps. The engine schedules against this; the decoder implements it, and tests of
/// the scheduler put a small deterministic one in its place.
///
/// A step is queued with launch() and its results are taken with collect(), in the same order. Two
/// may be under way, so that the host prepares one while the device runs the other.
class ModelRunner {
 public:
  struct Limits {
    int64_t max_tokens = 0;   // rows of one step
    int64_t max_seqs = 0;     // sequences of one step
    int64_t max_context = 0;  // positions of one sequence
    int64_t num_kv_blocks = 0;
    int block_size = 0;  // positions of one KV block
    KvFormat kv_format = KvFormat::kNative;
    int64_t vocab_size = 0;
    int max_top_n = 64;               // alternatives reported per row
    int64_t num_low_bit_experts = 0;  // of a layer, in a second form beside the first; or 0
  };
  virtual ~ModelRunner() = default;
  virtual const Limits& limits() const = 0;
  /// Queues one step. `batch` may be changed at once; the spans of its sampling rows too.
  /// Requires fewer than kMaxSteps steps under way. Throws StepFailed, and has queued nothing then.
  virtual void launch(const StepBatch& batch) = 0;
  /// Waits for the oldest step under way; `results` gets an entry per logit row, in their order.
  virtual void collect(std::vector<LogitResult>& results) = 0;
  static constexpr int kMaxSteps = 2;
  /// Whether launch() returns before the step has run, so that a second one is worth queueing.
  virtual bool runs_ahead() const { return false; }

  void run(const StepBatch& batch, std::vector<LogitResult>& results) {
    launch(batch);
    collect(results);
  }
};

}  // namespace augur
