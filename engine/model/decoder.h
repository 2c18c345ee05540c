// The forward pass, written once for all models and backends.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/routing_observer.h"
#include "configs/model_config.h"
#include "engine/model/model_weights.h"
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
  static StepLimits step_limits(const ModelConfig& config, const Limits& limits);
  /// Bytes of the decoder's own activations; the KV cache and the scratch of Ops come on top.
  static int64_t activation_bytes(const ModelConfig& config,
                                  const Limits& limits,
                                  DType activation_dtype);
  static int64_t kv_cache_bytes(const ModelConfig& config, const Limits& limits, const Ops& ops);
  /// Rows of logits computed at once: a whole step's for a small vocabulary, fewer for a large
  /// one, so that they stay within 8 MiB and near the caches.
  static int64_t max_logit_rows(const ModelConfig& config, const Limits& limits);

  const Limits& limits() const override { return limits_; }
  void run(const StepBatch& batch, std::vector<LogitResult>& results) override;

  /// The logits of the last max_logit_rows rows, or fewer, that the last step read: for tests and
  /// tools, in the backend's memory.
  const Tensor& last_logits() const { return last_logits_; }

  /// Told of every MoE layer's routing from the next step on; null for nobody.
  void set_routing_observer(RoutingObserver* observer) { observer_ = observer; }

 private:
  friend struct DecoderBuffers;

  struct StepInputs {  // the step under way, in the backend's memory
    int32_t* token_ids = nullptr;
    int32_t* positions = nullptr;
    int64_t* kv_slots = nullptr;
    int32_t* query_start = nullptr;
    int32_t* context_len = nullptr;
    int32_t* block_table = nullptr;
  };
  struct Activations {  // max_tokens rows each, but for the last group
    Tensor hidden;      // f32, the residual stream
    Tensor delta;       // f32, what a half-layer adds to it
    Tensor normed;
    Tensor gate_input;  // f32
    Tensor qkv;         // f32
    Tensor q;
    Tensor attended;
    RoutingBuffers routing;
    // Rows whose logits are wanted, max_logit_rows at a time.
    Tensor last;    // their normed hidden states
    Tensor logits;  // f32
    int32_t* logit_row_idx = nullptr;
    int32_t* targets = nullptr;
    float* target_logprobs = nullptr;
    int32_t* top_ids = nullptr;  // [max_logit_rows, max_top_n]
    float* top_logprobs = nullptr;
  };

  AttentionBatch upload(const StepBatch& batch);
  void add_norm(const float* weight, int64_t num_tokens, bool is_first, Tensor gate_input);
  void attend(int layer_idx, const AttentionBatch& batch);
  void feed_forward(int layer_idx, int64_t num_tokens);
  void read_logits(const StepBatch& batch, std::vector<LogitResult>& results);
  void read_logit_chunk(std::span<const LogitRow> rows, std::span<LogitResult> results);
  void draw(const Tensor& logits, std::span<const LogitRow> rows, std::span<LogitResult> results);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  Ops& ops_;
  const Limits limits_;
  RoutingObserver* observer_ = nullptr;
  std::vector<Buffer> buffers_;
  Activations activations_;
  StepInputs inputs_;
  Tensor last_logits_;
  std::vector<KvCacheLayer> kv_layers_;
  // Host side of one chunk of logit rows.
  std::vector<int32_t> host_ids_;
  std::vector<float> host_logprobs_;
  std::vector<SamplingRow> sampling_rows_;
};

}  // namespace augur
