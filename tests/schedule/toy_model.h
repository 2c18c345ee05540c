// A deterministic toy language model behind the runner's interface, and what it should answer.
//
// Logits are a hash of the whole context, so a wrong token, position, slot or block anywhere before
// a row changes what follows. ToyRunner reads that context back from a paged cache of its own and
// reports the first inconsistency it meets.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model/step_batch.h"
#include "engine/schedule/request.h"
#include "engine/text/tokenizer.h"

namespace augur::test {

inline constexpr int32_t kToyVocab = 24;
inline constexpr int32_t kToyEos = 23;

/// The model's own log-probabilities (not normalised: nothing here reads their sum) after
/// `context`.
std::vector<float> toy_logits(std::span<const int32_t> context);
LogitResult toy_result(std::span<const int32_t> context, const LogitRow& row);

/// Its tokens are short runs of a, b, c, spaces, newlines and a two-byte character; some end inside
/// the character, one is special (kToyEos), and one id is no token.
const Tokenizer& toy_tokenizer();

class ToyRunner : public ModelRunner {
 public:
  explicit ToyRunner(const Limits& limits);
  const Limits& limits() const override { return limits_; }
  /// Throws std::runtime_error saying what is inconsistent.
  bool runs_ahead() const override { return runs_ahead_; }
  void launch(const StepBatch& batch) override;
  void collect(std::vector<LogitResult>& results) override;

  int64_t num_rows_run() const { return num_rows_run_; }
  int num_under_way() const { return static_cast<int>(under_way_.size()); }
  int64_t num_logit_rows() const { return num_logit_rows_; }
  int64_t most_rows() const { return most_rows_; }
  int64_t most_seqs() const { return most_seqs_; }
  /// While set, launch throws std::runtime_error before it does anything.
  void set_failing(bool fails) { fails_ = fails; }
  /// launch throws StepFailed for sequences with a row of this token, before it does anything.
  void fail_on(int32_t token_id) { failing_token_ = token_id; }
  void set_runs_ahead(bool runs_ahead) { runs_ahead_ = runs_ahead; }

 private:
  struct Slot {
    int32_t token_id = -1;
    int32_t position = -1;
    int64_t written_in = -1;  // the step
  };
  void check_shape(const StepBatch& batch) const;
  std::vector<int32_t> read_context(const StepBatch& batch, int seq_idx) const;

  const Limits limits_;
  std::vector<std::vector<LogitResult>> under_way_;  // oldest first
  std::vector<Slot> cache_;
  int32_t failing_token_ = -1;
  int64_t num_launched_ = 0;
  int64_t num_rows_run_ = 0;
  int64_t num_logit_rows_ = 0;
  int64_t most_rows_ = 0;
  int64_t most_seqs_ = 0;
  bool fails_ = false;
  bool runs_ahead_ = false;
  std::vector<int32_t> sampled_ids_;  // by logit row of the last step
};

/// What an engine should answer, computed plainly: one token after the other, whole texts searched
/// for stop strings. Requires a seed in the request.
RequestResult expected_result(const Request& request,
                              int64_t max_context,
                              std::span<const int32_t> eos_token_ids);

}  // namespace augur::test
