#include "engine/model/decoder.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

constexpr int64_t kMaxLogitBytes = int64_t{8} << 20;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

int64_t qkv_width(const AttentionConfig& attention) {
  return int64_t{attention.num_heads + 2 * attention.num_kv_heads} * attention.head_dim;
}

}  // namespace

// Every buffer of the decoder, taken in one place, so that planning and allocating agree.
// `take(bytes)` returns memory, or null while only counting.
struct DecoderBuffers {
  template <typename Take>
  static void lay_out(const ModelConfig& config,
                      const ModelRunner::Limits& limits,
                      DType activation_dtype,
                      Decoder::Activations& activations,
                      Decoder::StepInputs& inputs,
                      Take&& take) {
    const int64_t max_tokens = limits.max_tokens;
    const int64_t num_logit_rows = Decoder::max_logit_rows(config, limits);
    const auto tensor = [&](DType dtype, int64_t num_rows, int64_t num_cols) {
      return dense(take(num_rows * num_cols * dtype_bytes(dtype)), dtype, num_rows, num_cols);
    };
    const auto ints = [&](int64_t count) { return static_cast<int32_t*>(take(count * 4)); };
    const auto floats = [&](int64_t count) { return static_cast<float*>(take(count * 4)); };

    const int64_t q_width = int64_t{config.attention.num_heads} * config.attention.head_dim;
    activations.hidden = tensor(DType::kF32, max_tokens, config.hidden_size);
    activations.delta = tensor(DType::kF32, max_tokens, config.hidden_size);
    activations.normed = tensor(activation_dtype, max_tokens, config.hidden_size);
    activations.qkv = tensor(DType::kF32, max_tokens, qkv_width(config.attention));
    activations.q = tensor(activation_dtype, max_tokens, q_width);
    activations.attended = tensor(activation_dtype, max_tokens, q_width);
    if (config.moe.num_experts > 0) {
      activations.gate_input = tensor(DType::kF32, max_tokens, config.hidden_size);
      activations.routing.experts = ints(max_tokens * config.moe.top_k);
      activations.routing.weights = floats(max_tokens * config.moe.top_k);
      activations.routing.logits = floats(max_tokens * config.moe.num_experts);
    }
    activations.last = tensor(activation_dtype, num_logit_rows, config.hidden_size);
    activations.logits = tensor(DType::kF32, num_logit_rows, config.vocab_size);
    activations.logit_row_idx = ints(num_logit_rows);
    activations.targets = ints(num_logit_rows);
    activations.target_logprobs = floats(num_logit_rows);
    activations.top_ids = ints(num_logit_rows * limits.max_top_n);
    activations.top_logprobs = floats(num_logit_rows * limits.max_top_n);

    inputs.token_ids = ints(max_tokens);
    inputs.positions = ints(max_tokens);
    inputs.kv_slots = static_cast<int64_t*>(take(max_tokens * 8));
    inputs.query_start = ints(limits.max_seqs + 1);
    inputs.context_len = ints(limits.max_seqs);
    inputs.block_table = ints(limits.max_seqs * ceil_div(limits.max_context, limits.block_size));
  }
};

Decoder::Decoder(const ModelConfig& config,
                 const ModelWeights& weights,
                 Ops& ops,
                 const Limits& limits)
    : config_(config), weights_(weights), ops_(ops), limits_(limits) {
  AUGUR_REQUIRE(limits.max_tokens > 0 && limits.max_seqs > 0 && limits.block_size > 0,
                "limits of zero");
  DecoderBuffers::lay_out(config, limits, ops.activation_dtype(), activations_, inputs_,
                          [&](int64_t num_bytes) {
                            buffers_.push_back(ops_.allocate(num_bytes));
                            return static_cast<void*>(buffers_.back().data());
                          });
  const int64_t block_bytes = ops.kv_block_bytes(limits.block_size, config.attention.num_kv_heads,
                                                 config.attention.head_dim);
  for (int layer_idx = 0; layer_idx < config.num_layers(); ++layer_idx) {
    buffers_.push_back(ops.allocate(limits.num_kv_blocks * block_bytes));
    kv_layers_.push_back({.data = buffers_.back().data(),
                          .num_blocks = limits.num_kv_blocks,
                          .block_size = limits.block_size,
                          .num_kv_heads = config.attention.num_kv_heads,
                          .head_dim = config.attention.head_dim});
  }
  const int64_t num_logit_rows = activations_.logits.num_rows;
  host_ids_.resize(num_logit_rows * std::max(1, limits.max_top_n));
  host_logprobs_.resize(num_logit_rows * std::max(1, limits.max_top_n));
}

int64_t Decoder::max_logit_rows(const ModelConfig& config, const Limits& limits) {
  return std::clamp<int64_t>(kMaxLogitBytes / (4 * config.vocab_size), 16,
                             std::max<int64_t>(16, limits.max_tokens));
}

StepLimits Decoder::step_limits(const ModelConfig& config, const Limits& limits) {
  StepLimits step;
  step.max_tokens = limits.max_tokens;
  step.max_logit_rows = max_logit_rows(config, limits);
  step.max_context = limits.max_context;
  step.hidden_size = config.hidden_size;
  step.vocab_size = config.vocab_size;
  step.num_heads = config.attention.num_heads;
  step.head_dim = config.attention.head_dim;
  const bool has_dense_layer = std::find(config.layers.begin(), config.layers.end(),
                                         LayerKind::kDense) != config.layers.end();
  step.mlp_intermediate_size = std::max(has_dense_layer ? config.dense_intermediate_size : 0,
                                        config.moe.shared_intermediate_size);
  step.expert_intermediate_size = config.moe.intermediate_size;
  step.num_experts = config.moe.num_experts;
  step.top_k = config.moe.top_k;
  return step;
}

int64_t Decoder::activation_bytes(const ModelConfig& config,
                                  const Limits& limits,
                                  DType activation_dtype) {
  int64_t total_bytes = 0;
  Activations activations;
  StepInputs inputs;
  DecoderBuffers::lay_out(config, limits, activation_dtype, activations, inputs,
                          [&](int64_t num_bytes) {
                            total_bytes += num_bytes;
                            return static_cast<void*>(nullptr);
                          });
  return total_bytes;
}

int64_t Decoder::kv_cache_bytes(const ModelConfig& config, const Limits& limits, const Ops& ops) {
  return limits.num_kv_blocks * config.num_layers() *
         ops.kv_block_bytes(limits.block_size, config.attention.num_kv_heads,
                            config.attention.head_dim);
}

void Decoder::run(const StepBatch& batch, std::vector<LogitResult>& results) {
  AUGUR_REQUIRE(batch.num_tokens() <= limits_.max_tokens && batch.num_seqs() <= limits_.max_seqs,
                std::to_string(batch.num_tokens()) + " tokens of " +
                    std::to_string(batch.num_seqs()) + " sequences");
  results.assign(batch.logit_rows.size(), {});
  const int64_t num_tokens = batch.num_tokens();
  if (num_tokens == 0) return;

  const AttentionBatch attention = upload(batch);
  ops_.embed({.table = weights_.embedding,
              .token_ids = inputs_.token_ids,
              .out = activations_.hidden.rows(0, num_tokens)});
  for (int layer_idx = 0; layer_idx < config_.num_layers(); ++layer_idx) {
    attend(layer_idx, attention);
    feed_forward(layer_idx, num_tokens);
  }
  add_norm(weights_.final_norm, num_tokens, /*is_first=*/false, /*gate_input=*/{});
  read_logits(batch, results);
}

AttentionBatch Decoder::upload(const StepBatch& batch) {
  const auto copy = [&](auto* to, const auto& from) {
    ops_.upload(to, from.data(), static_cast<int64_t>(from.size() * sizeof(from[0])));
  };
  const int64_t max_blocks = ceil_div(limits_.max_context, limits_.block_size);
  AUGUR_REQUIRE(batch.block_table_stride <= max_blocks, std::to_string(batch.block_table_stride));
  copy(inputs_.token_ids, batch.token_ids);
  copy(inputs_.positions, batch.positions);
  copy(inputs_.kv_slots, batch.kv_slots);
  copy(inputs_.query_start, batch.query_start);
  copy(inputs_.context_len, batch.context_len);
  copy(inputs_.block_table, batch.block_table);
  return {.num_seqs = batch.num_seqs(),
          .num_tokens = batch.num_tokens(),
          .query_start = inputs_.query_start,
          .context_len = inputs_.context_len,
          .block_table = inputs_.block_table,
          .block_table_stride = batch.block_table_stride};
}

void Decoder::add_norm(const float* weight, int64_t num_tokens, bool is_first, Tensor gate_input) {
  ops_.add_rms_norm({.hidden = activations_.hidden.rows(0, num_tokens),
                     .delta = is_first ? Tensor{} : activations_.delta.rows(0, num_tokens),
                     .weight = weight,
                     .eps = config_.rms_norm_eps,
                     .out = activations_.normed.rows(0, num_tokens),
                     .out_f32 = gate_input});
}

void Decoder::attend(int layer_idx, const AttentionBatch& batch) {
  const LayerWeights& layer = weights_.layers[layer_idx];
  const AttentionConfig& attention = config_.attention;
  const int64_t num_tokens = batch.num_tokens;
  add_norm(layer.input_norm, num_tokens, /*is_first=*/layer_idx == 0, /*gate_input=*/{});
  ops_.linear({.x = activations_.normed.rows(0, num_tokens),
               .weight = layer.qkv,
               .bias = layer.qkv_bias,
               .out = activations_.qkv.rows(0, num_tokens)});
  ops_.rope_and_cache({.qkv = activations_.qkv.rows(0, num_tokens),
                       .num_heads = attention.num_heads,
                       .q_norm = layer.q_norm,
                       .k_norm = layer.k_norm,
                       .norm_eps = config_.rms_norm_eps,
                       .rope = weights_.rope,
                       .positions = inputs_.positions,
                       .kv_slots = inputs_.kv_slots,
                       .cache = kv_layers_[layer_idx],
                       .q_out = activations_.q.rows(0, num_tokens)});
  ops_.attention({.q = activations_.q.rows(0, num_tokens),
                  .num_heads = attention.num_heads,
                  .scale = 1.0f / std::sqrt(static_cast<float>(attention.head_dim)),
                  .cache = kv_layers_[layer_idx],
                  .batch = batch,
                  .out = activations_.attended.rows(0, num_tokens)});
  ops_.linear({.x = activations_.attended.rows(0, num_tokens),
               .weight = layer.output,
               .bias = layer.output_bias,
               .out = activations_.delta.rows(0, num_tokens)});
}

void Decoder::feed_forward(int layer_idx, int64_t num_tokens) {
  const LayerWeights& layer = weights_.layers[layer_idx];
  const Tensor normed = activations_.normed.rows(0, num_tokens);
  const Tensor delta = activations_.delta.rows(0, num_tokens);
  if (config_.layers[layer_idx] == LayerKind::kDense) {
    add_norm(layer.post_attention_norm, num_tokens, /*is_first=*/false, /*gate_input=*/{});
    ops_.mlp({.x = normed, .weights = layer.mlp, .out = delta});
    return;
  }
  const Tensor gate_input = activations_.gate_input.rows(0, num_tokens);
  add_norm(layer.post_attention_norm, num_tokens, /*is_first=*/false, gate_input);
  moe_layer(ops_, config_.moe, layer_idx, layer.moe, activations_.routing, gate_input, normed,
            delta, observer_);
}

void Decoder::read_logits(const StepBatch& batch, std::vector<LogitResult>& results) {
  const std::span<const LogitRow> rows = batch.logit_rows;
  const auto max_rows = static_cast<size_t>(activations_.logits.num_rows);
  for (size_t first = 0; first < rows.size(); first += max_rows) {
    const size_t count = std::min(max_rows, rows.size() - first);
    read_logit_chunk(rows.subspan(first, count), std::span(results).subspan(first, count));
  }
}

void Decoder::read_logit_chunk(std::span<const LogitRow> rows, std::span<LogitResult> results) {
  const auto num_rows = static_cast<int64_t>(rows.size());
  for (int64_t i = 0; i < num_rows; ++i) host_ids_[i] = rows[i].row_idx;
  ops_.upload(activations_.logit_row_idx, host_ids_.data(), num_rows * 4);
  const Tensor last = activations_.last.rows(0, num_rows);
  const Tensor logits = activations_.logits.rows(0, num_rows);
  ops_.gather_rows({.x = activations_.normed, .rows = activations_.logit_row_idx, .out = last});
  ops_.linear({.x = last, .weight = weights_.lm_head, .bias = nullptr, .out = logits});
  last_logits_ = logits;

  draw(logits, rows, results);

  int top_n = 0;
  bool wants_logprob = false;
  for (int64_t i = 0; i < num_rows; ++i) {
    top_n = std::max<int>(top_n, rows[i].top_n);
    wants_logprob |= rows[i].wants_logprob || rows[i].top_n > 0;
    host_ids_[i] = rows[i].target_id >= 0 ? rows[i].target_id : results[i].sampled_id;
  }
  if (!wants_logprob) return;
  AUGUR_REQUIRE(top_n <= limits_.max_top_n, std::to_string(top_n));
  ops_.upload(activations_.targets, host_ids_.data(), num_rows * 4);
  ops_.logprobs({.logits = logits,
                 .targets = activations_.targets,
                 .target_logprob = activations_.target_logprobs,
                 .top_n = top_n,
                 .top_ids = activations_.top_ids,
                 .top_logprobs = activations_.top_logprobs});
  ops_.download(host_logprobs_.data(), activations_.target_logprobs, num_rows * 4);
  for (int64_t i = 0; i < num_rows; ++i) results[i].logprob = host_logprobs_[i];
  if (top_n == 0) return;
  ops_.download(host_ids_.data(), activations_.top_ids, num_rows * top_n * 4);
  ops_.download(host_logprobs_.data(), activations_.top_logprobs, num_rows * top_n * 4);
  for (int64_t i = 0; i < num_rows; ++i) {
    for (int64_t j = i * top_n; j < i * top_n + rows[i].top_n; ++j) {
      results[i].top.push_back({host_ids_[j], host_logprobs_[j]});
    }
  }
}

// Rows that only score are drawn greedily too when they share a chunk with rows that sample: one
// pass over them costs less than moving the others together.
void Decoder::draw(const Tensor& logits,
                   std::span<const LogitRow> rows,
                   std::span<LogitResult> results) {
  const bool wants_sample =
      std::any_of(rows.begin(), rows.end(), [](const LogitRow& row) { return row.wants_sample; });
  if (!wants_sample) return;
  sampling_rows_.clear();
  for (const LogitRow& row : rows) {
    sampling_rows_.push_back(row.wants_sample ? row.sampling : SamplingRow{.temperature = 0});
  }
  ops_.sample({.logits = logits, .rows = sampling_rows_, .token_ids = activations_.targets});
  ops_.download(host_ids_.data(), activations_.targets, static_cast<int64_t>(rows.size()) * 4);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].wants_sample) results[i].sampled_id = host_ids_[i];
  }
}

}  // namespace augur
