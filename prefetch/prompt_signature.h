// Predicts by which experts a text has used: its own so far, and those of a prompt known before.
//
// While a prompt runs, the choices of its tokens are counted by layer and expert, and what was
// counted is kept under the hash of the tokens up to there: every `checkpoint_tokens` positions and
// at the prompt's end. When a prompt with the same beginning comes, its experts are known before
// its first layer runs. A running sequence counts its own choices too, recent tokens more.
// Threading: one thread. Routing is read in host memory.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "cache/expert_signature.h"
#include "prefetch/moe_layers.h"
#include "prefetch/predictor.h"
#include "prefetch/sequence_states.h"
#include "prefetch/signature_store.h"

namespace augur {

class PromptSignature final : public Predictor {
 public:
  struct Options {
    int64_t checkpoint_tokens = 64;
    size_t capacity = 1024;        // signatures kept: 24 KiB each for 48 layers of 128 experts
    int64_t max_idle_steps = 512;  // after which a sequence is forgotten
    size_t max_sequences = 256;    // see SequenceStates; twice the size of a signature each
  };

  /// Requires checkpoint_tokens >= 1.
  PromptSignature(MoeLayers layers, const Options& options);

  std::string_view name() const override { return "prompt_signature"; }
  void on_step(const StepRows& rows) override;
  /// Counts all rows, however many.
  void on_routing(const RoutingView& routing) override;
  void on_step_end() override;
  /// Ranks by the sequence's recent use and, as if it were some tokens of that, by the signature of
  /// the longest known beginning of its prompt.
  void predict(int target_layer, const Guesses& guesses) override;

  /// Tells of a sequence before its first step. Optional: without it, a prompt is looked up as its
  /// tokens come, and one that begins behind position 0 (its beginning was in the KV cache) is
  /// neither looked up nor kept. With it, what is known of that beginning stands for it.
  void begin_sequence(int64_t sequence_id, std::span<const int32_t> prompt_ids);

  /// Of the longest known beginning of a prompt, at a checkpoint or the whole; null when there is
  /// none. Valid until the next call of anything that is not const.
  const ExpertSignature* signature_for(std::span<const int32_t> prompt_ids);

  /// What is kept under a PrefixHash, or null; and keeping it, for those who store it elsewhere.
  /// Requires a signature of this model's shape: end_layer() layers.
  std::shared_ptr<const ExpertSignature> signature(uint64_t prefix_hash);
  void insert(uint64_t prefix_hash, ExpertSignature signature);

 private:
  struct Sequence {
    explicit Sequence(const ExpertSignature& none, size_t num_recent)
        : prompt(none), recent(num_recent) {}
    void clear();

    // What is known from before.
    std::shared_ptr<const ExpertSignature> known;
    int64_t num_known_tokens = 0;
    std::vector<int32_t> prompt_ids;  // as told, until the prompt has ended
    // The prompt, as far as it ran: its hash and its choices, if they are known from its start on.
    PrefixHash hash;
    int64_t num_tokens = 0;
    ExpertSignature prompt;
    bool is_prompt_counted = false;
    // Choices of this sequence, decayed.
    std::vector<float> recent;  // [num_layers, num_experts]
  };

  // Consecutive rows of one prompt up to a checkpoint or the last row; they count once the step has
  // ended well.
  struct Segment {
    Sequence* sequence = nullptr;
    int64_t first_row = 0;
    int64_t num_rows = 0;
    PrefixHash hash;  // of the tokens up to its end
    bool ends_at_checkpoint = false;
    ExpertSignature counts;
  };

  // The rows of one sequence in the step.
  struct Part {
    Sequence* sequence = nullptr;
    int64_t first_row = 0;
    int64_t num_rows = 0;
  };

  Sequence& sequence(int64_t sequence_id);
  void begin_part(const StepRows& rows, const Part& part);
  void skip_to(Sequence& sequence, int64_t position);
  void end_prompt(Sequence& sequence);
  void keep(const Sequence& sequence);
  Segment& next_segment();
  void look_up(Sequence& sequence, std::span<const int32_t> prompt_ids);
  void look_up(Sequence& sequence, const PrefixHash& hash, int64_t num_tokens);
  void count_recent(const Part& part, int index, const RoutingView& routing);
  void score(const Sequence& sequence, int index);

  const MoeLayers layers_;
  const Options options_;
  const ExpertSignature none_;
  SignatureStore store_;
  SequenceStates<Sequence> sequences_;
  std::vector<Part> parts_;        // of the step under way
  std::vector<Segment> segments_;  // the first num_segments_ are of the step under way
  size_t num_segments_ = 0;
  std::vector<float> scores_;
  std::vector<int32_t> order_;
};

}  // namespace augur
