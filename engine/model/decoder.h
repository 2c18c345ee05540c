// The forward pass, written once for all models and backends.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "cache/routing_observer.h"
#include "configs/model_config.h"
#include "engine/model/model_weights.h"
#include "engine/model/route_memory.h"
#include "engine/model/step_batch.h"
#include "kernels/ops.h"

namespace augur {

/// Runs steps of one model on one backend. All memory is allocated at construction.
/// Threading: one thread.
class Decoder : public ModelRunner {
 public:
  /// `ops` and `weights` outlive the decoder; `ops` is reserved for step_limits(config, limits).
  Decoder(const ModelConfig& config, const ModelWeights& weights, Ops& ops, const Limits& limits);

  /// What Ops::reserve must be told for a decoder with these limits.
  static StepLimits step_limits(const ModelConfig& config, const Limits& limits, const Ops& ops);
  /// Bytes of the decoder's own activations; the KV cache and the scratch of Ops come on top.
  static int64_t activation_bytes(const ModelConfig& config, const Limits& limits, const Ops& ops);
  static int64_t kv_cache_bytes(const ModelConfig& config, const Limits& limits, const Ops& ops);
  /// Rows of logits computed at once: a whole step's for a small vocabulary, fewer for a large
  /// one, so that they stay within Ops::max_logit_bytes.
  static int64_t max_logit_rows(const ModelConfig& config, const Limits& limits, const Ops& ops);
  /// The numbers of sequences that a decode step is padded to where steps are recorded: 1, 2, 4,
  /// 8, then by 8 up to 64 and by an eighth beyond, and max_seqs.
  static std::vector<int64_t> decode_sizes(int64_t max_seqs);

  /// Records the decode steps of every size, where the backend can: from then on a step in which
  /// every sequence has one row is padded to one of them and run as recorded.
  void record_decode_steps();

  const Limits& limits() const override { return limits_; }
  bool runs_ahead() const override { return !decode_steps_.empty(); }
  void launch(const StepBatch& batch) override;
  void collect(std::vector<LogitResult>& results) override;

  /// The logits of the last max_logit_rows rows, or fewer, that the last step read: for tests and
  /// tools, in the backend's memory.
  const Tensor& last_logits() const { return last_logits_; }

  /// `observer` is told of every MoE layer's routing from the next step on, and outlives the
  /// decoder. Steps then run as they are, not as recorded.
  void add_routing_observer(RoutingObserver& observer) { observers_.push_back(&observer); }
  /// The observer is told no more. Between steps.
  void remove_routing_observer(RoutingObserver& observer) { std::erase(observers_, &observer); }

  /// `memory` sees every step from the next one on, before other observers, and answers for the
  /// gates where it can; it outlives the decoder or is taken back with null. Requires a backend
  /// whose memory the host reads. Steps then run as they are, not as recorded.
  void set_route_memory(RouteMemory* memory);

  /// Experts to take instead of the gates' choices, for measuring: [num_layers, max_tokens, top_k]
  /// in the backend's memory; null for the gates' own. Call before record_decode_steps.
  void force_routing(const int32_t* experts) { forced_routing_ = experts; }
  /// Then gates say nothing of what runs, and who predicts by them is wrong.
  bool is_routing_forced() const { return forced_routing_ != nullptr; }

 private:
  friend struct DecoderBuffers;

  struct InputSizes {
    int64_t num_tokens = 0;
    int64_t num_seqs = 0;
    int64_t block_table_stride = 0;
    int64_t num_logit_rows = 0;
  };
  // The inputs of a step, one after another in the backend's memory. Where each lies is a function
  // of the sizes alone, so a recorded step finds its own.
  struct StepInputs {
    int32_t* num_valid = nullptr;  // rows before those that pad the step
    int32_t* token_ids = nullptr;
    int32_t* positions = nullptr;
    int64_t* kv_slots = nullptr;
    int32_t* query_start = nullptr;
    int32_t* context_len = nullptr;
    int32_t* logit_row_idx = nullptr;
    int32_t* targets = nullptr;
    int32_t* block_table = nullptr;
    int64_t num_bytes = 0;
  };
  struct Activations {  // max_tokens rows each, but for the last group
    Tensor hidden;      // f32, the residual stream
    Tensor delta;       // intermediate dtype, what a half-layer adds to it
    Tensor normed;
    Tensor gate_input;  // f32
    Tensor qkv;         // intermediate dtype
    Tensor q;
    Tensor attended;
    RoutingBuffers routing;
    int32_t* sampled = nullptr;   // by logit row, until the next step has read them
    std::byte* inputs = nullptr;  // of the step under way: StepInputs
    // Rows whose logits are wanted, max_logit_rows at a time.
    Tensor last;    // their normed hidden states
    Tensor logits;  // f32
    float* target_logprobs = nullptr;
    int32_t* top_ids = nullptr;  // [max_logit_rows, max_top_n]
    float* top_logprobs = nullptr;
  };
  struct LogitChunk {
    int64_t first = 0;  // logit row
    int64_t count = 0;
    int top_n = 0;
  };
  // A step under way, and where its results arrive.
  struct Step {
    std::vector<LogitRow> rows;
    std::vector<LogitChunk> chunks;
    Buffer host;
    uint64_t mark = 0;
  };
  struct HostResults {              // inside Step::host
    int32_t* sampled = nullptr;     // [max_tokens]
    float* logprobs = nullptr;      // [max_tokens]
    int32_t* top_ids = nullptr;     // chunk by chunk, from first * max_top_n on, top_n a row
    float* top_logprobs = nullptr;  // likewise
  };

  int64_t max_blocks_per_seq() const;
  StepInputs place_inputs(const InputSizes& sizes) const;
  HostResults host_results(const Step& step) const;
  StepInputs upload(const StepBatch& batch, int64_t num_padded, int64_t block_table_stride);
  /// Runs a step that is not recorded, observed where somebody observes.
  void run_observed(const StepBatch& batch, const StepInputs& inputs);
  StepRows describe_rows(const StepBatch& batch);
  std::vector<int> sequences_with(int32_t expert, const StepBatch& batch) const;
  void run_layers(const StepInputs& inputs, const AttentionBatch& batch);
  void add_norm(const float* weight, int64_t num_tokens, bool is_first, Tensor gate_input);
  void attend(int layer_idx, const StepInputs& inputs, const AttentionBatch& batch);
  void feed_forward(int layer_idx, const StepInputs& inputs, const AttentionBatch& batch);
  void read_logits(const StepBatch& batch, const StepInputs& inputs, Step& step);
  int largest_top_n(std::span<const LogitRow> rows) const;
  void read_logit_chunk(std::span<const LogitRow> rows,
                        const LogitChunk& chunk,
                        const StepInputs& inputs,
                        const Step& step);
  void draw(const Tensor& logits, std::span<const LogitRow> rows, int32_t* sampled);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  Ops& ops_;
  const Limits limits_;
  std::vector<RoutingObserver*> observers_;
  RouteMemory* route_memory_ = nullptr;
  const int32_t* forced_routing_ = nullptr;
  std::vector<Buffer> buffers_;
  Activations activations_;
  std::vector<KvCacheLayer> kv_layers_;
  std::map<int64_t, std::unique_ptr<RecordedOps>> decode_steps_;  // by number of sequences
  bool is_recording_ = false;
  std::array<Step, kMaxSteps> steps_;
  int64_t num_launched_ = 0;
  int64_t num_collected_ = 0;
  Tensor last_logits_;
  // Of one launch; they keep their memory.
  std::vector<std::byte> host_inputs_;
  std::vector<SamplingRow> sampling_rows_;
  std::vector<int32_t> sequence_of_row_;
};

}  // namespace augur
