#include "engine/model/decoder.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Arrays of a step's inputs begin at multiples of this.
constexpr int64_t kInputAlignment = 16;

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
                      const Ops& ops,
                      Decoder::Activations& activations,
                      Take&& take) {
    const int64_t max_tokens = limits.max_tokens;
    const int64_t num_logit_rows = Decoder::max_logit_rows(config, limits, ops);
    const DType activation_dtype = ops.activation_dtype();
    const DType intermediate_dtype = ops.intermediate_dtype();
    const auto tensor = [&](DType dtype, int64_t num_rows, int64_t num_cols) {
      return dense(take(num_rows * num_cols * dtype_bytes(dtype)), dtype, num_rows, num_cols);
    };
    const auto ints = [&](int64_t count) { return static_cast<int32_t*>(take(count * 4)); };
    const auto floats = [&](int64_t count) { return static_cast<float*>(take(count * 4)); };

    const int64_t q_width = int64_t{config.attention.num_heads} * config.attention.head_dim;
    activations.hidden = tensor(DType::kF32, max_tokens, config.hidden_size);
    activations.delta = tensor(intermediate_dtype, max_tokens, config.hidden_size);
    activations.normed = tensor(activation_dtype, max_tokens, config.hidden_size);
    activations.qkv = tensor(intermediate_dtype, max_tokens, qkv_width(config.attention));
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
    activations.sampled = ints(max_tokens);
    activations.target_logprobs = floats(num_logit_rows);
    activations.top_ids = ints(num_logit_rows * limits.max_top_n);
    activations.top_logprobs = floats(num_logit_rows * limits.max_top_n);
    activations.inputs = static_cast<std::byte*>(take(input_bytes(limits)));
  }

  // The most that a step's inputs take: see place_inputs.
  static int64_t input_bytes(const ModelRunner::Limits& limits) {
    const int64_t max_blocks = ceil_div(limits.max_context, limits.block_size);
    return limits.max_tokens * 24 + (limits.max_seqs + 1) * 8 + limits.max_seqs * max_blocks * 4 +
           8 * kInputAlignment;
  }
};

Decoder::Decoder(const ModelConfig& config,
                 const ModelWeights& weights,
                 Ops& ops,
                 const Limits& limits)
    : config_(config), weights_(weights), ops_(ops), limits_(limits) {
  if (weights.expert_memory != nullptr) observers_.push_back(weights.expert_memory.get());
  AUGUR_REQUIRE(limits.max_tokens > 0 && limits.max_seqs > 0 && limits.block_size > 0,
                "limits of zero");
  DecoderBuffers::lay_out(config, limits, ops, activations_, [&](int64_t num_bytes) {
    buffers_.push_back(ops_.allocate(num_bytes));
    return static_cast<void*>(buffers_.back().data());
  });
  const int64_t block_bytes = ops.kv_block_bytes(limits.block_size, config.attention.num_kv_heads,
                                                 config.attention.head_dim, limits.kv_format);
  for (int layer_idx = 0; layer_idx < config.num_layers(); ++layer_idx) {
    buffers_.push_back(ops.allocate(limits.num_kv_blocks * block_bytes));
    kv_layers_.push_back({.data = buffers_.back().data(),
                          .num_blocks = limits.num_kv_blocks,
                          .block_size = limits.block_size,
                          .num_kv_heads = config.attention.num_kv_heads,
                          .head_dim = config.attention.head_dim,
                          .format = limits.kv_format});
  }
  host_inputs_.resize(DecoderBuffers::input_bytes(limits));
  for (Step& step : steps_) {
    step.host = ops.allocate_host(limits.max_tokens * 8 * (1 + int64_t{limits.max_top_n}));
  }
}

int64_t Decoder::max_logit_rows(const ModelConfig& config, const Limits& limits, const Ops& ops) {
  return std::clamp<int64_t>(ops.max_logit_bytes() / (4 * config.vocab_size), 16,
                             std::max<int64_t>(16, limits.max_tokens));
}

StepLimits Decoder::step_limits(const ModelConfig& config, const Limits& limits, const Ops& ops) {
  StepLimits step;
  step.max_tokens = limits.max_tokens;
  step.max_seqs = limits.max_seqs;
  step.max_logit_rows = max_logit_rows(config, limits, ops);
  step.max_context = limits.max_context;
  step.hidden_size = config.hidden_size;
  step.vocab_size = config.vocab_size;
  step.num_heads = config.attention.num_heads;
  step.num_kv_heads = config.attention.num_kv_heads;
  step.head_dim = config.attention.head_dim;
  const bool has_dense_layer = std::find(config.layers.begin(), config.layers.end(),
                                         LayerKind::kDense) != config.layers.end();
  step.mlp_intermediate_size = std::max(has_dense_layer ? config.dense_intermediate_size : 0,
                                        config.moe.shared_intermediate_size);
  step.expert_intermediate_size = config.moe.intermediate_size;
  step.num_experts = config.moe.num_experts;
  step.top_k = config.moe.top_k;
  step.num_low_bit_experts = limits.num_low_bit_experts;
  return step;
}

int64_t Decoder::activation_bytes(const ModelConfig& config, const Limits& limits, const Ops& ops) {
  int64_t total_bytes = 0;
  Activations activations;
  DecoderBuffers::lay_out(config, limits, ops, activations, [&](int64_t num_bytes) {
    total_bytes += num_bytes;
    return static_cast<void*>(nullptr);
  });
  return total_bytes;
}

int64_t Decoder::kv_cache_bytes(const ModelConfig& config, const Limits& limits, const Ops& ops) {
  return limits.num_kv_blocks * config.num_layers() *
         ops.kv_block_bytes(limits.block_size, config.attention.num_kv_heads,
                            config.attention.head_dim, limits.kv_format);
}

void Decoder::record_decode_steps() {
  is_recording_ = true;
  for (int64_t num_seqs : decode_sizes(std::min(limits_.max_seqs, limits_.max_tokens))) {
    const StepInputs inputs = place_inputs(
        {.num_tokens = num_seqs, .num_seqs = num_seqs, .block_table_stride = max_blocks_per_seq()});
    std::unique_ptr<RecordedOps> step = ops_.record([&] {
      run_layers(inputs, {.num_seqs = static_cast<int>(num_seqs),
                          .num_tokens = num_seqs,
                          .query_start = inputs.query_start,
                          .context_len = inputs.context_len,
                          .block_table = inputs.block_table,
                          .block_table_stride = max_blocks_per_seq(),
                          .num_decode_seqs = static_cast<int>(num_seqs)});
    });
    if (step == nullptr) break;
    decode_steps_[num_seqs] = std::move(step);
  }
  is_recording_ = false;
}

std::vector<int64_t> Decoder::decode_sizes(int64_t max_seqs) {
  std::vector<int64_t> sizes;
  for (int64_t size = 1; size < max_seqs;
       size += size < 8 ? size : std::max<int64_t>(8, size / 8)) {
    sizes.push_back(size);
  }
  sizes.push_back(max_seqs);
  return sizes;
}

void Decoder::set_route_memory(RouteMemory* memory) {
  AUGUR_REQUIRE(memory == nullptr || ops_.uses_host_memory(),
                "the host cannot read the routing of this backend");
  if (route_memory_ != nullptr) std::erase(observers_, route_memory_);
  route_memory_ = memory;
  // First, so that predictors find it knowing of the step.
  if (memory != nullptr) observers_.insert(observers_.begin(), memory);
}

void Decoder::launch(const StepBatch& batch) {
  AUGUR_REQUIRE(batch.num_tokens() <= limits_.max_tokens && batch.num_seqs() <= limits_.max_seqs,
                std::to_string(batch.num_tokens()) + " tokens of " +
                    std::to_string(batch.num_seqs()) + " sequences");
  AUGUR_REQUIRE(batch.block_table_stride <= max_blocks_per_seq(),
                std::to_string(batch.block_table_stride));
  AUGUR_REQUIRE(num_launched_ - num_collected_ < kMaxSteps, "too many steps under way");
  Step& step = steps_[num_launched_ % kMaxSteps];
  step.rows.assign(batch.logit_rows.begin(), batch.logit_rows.end());
  step.chunks.clear();
  if (batch.num_tokens() > 0) {
    const bool is_decode = batch.num_decode_seqs == batch.num_seqs();
    const auto recorded = is_decode && observers_.empty()
                              ? decode_steps_.lower_bound(batch.num_seqs())
                              : decode_steps_.end();
    const bool is_recorded = recorded != decode_steps_.end();
    const int64_t num_padded = is_recorded ? recorded->first - batch.num_seqs() : 0;
    const StepInputs inputs =
        upload(batch, num_padded, is_recorded ? max_blocks_per_seq() : batch.block_table_stride);
    if (is_recorded) {
      recorded->second->run();
    } else {
      run_observed(batch, inputs);
    }
    read_logits(batch, inputs, step);
  }
  step.mark = ops_.mark();
  ++num_launched_;
}

void Decoder::run_observed(const StepBatch& batch, const StepInputs& inputs) {
  if (!observers_.empty()) {
    const StepRows rows = describe_rows(batch);
    for (RoutingObserver* observer : observers_) observer->on_step(rows);
  }
  try {
    run_layers(inputs, {.num_seqs = batch.num_seqs(),
                        .num_tokens = batch.num_tokens(),
                        .query_start = inputs.query_start,
                        .context_len = inputs.context_len,
                        .block_table = inputs.block_table,
                        .block_table_stride = batch.block_table_stride,
                        .num_decode_seqs = batch.num_decode_seqs});
  } catch (const ExpertUnavailable& error) {
    // The routing of the layer that failed is still there.
    throw StepFailed(sequences_with(error.key.expert, batch), error.what());
  }
  for (RoutingObserver* observer : observers_) observer->on_step_end();
}

StepRows Decoder::describe_rows(const StepBatch& batch) {
  sequence_of_row_.resize(batch.num_tokens());
  for (int s = 0; s < batch.num_seqs(); ++s) {
    std::fill(sequence_of_row_.begin() + batch.query_start[s],
              sequence_of_row_.begin() + batch.query_start[s + 1], s);
  }
  return {.num_tokens = batch.num_tokens(),
          .num_decode_tokens = batch.num_decode_seqs,
          .token_ids = batch.token_ids,
          .positions = batch.positions,
          .sequence_of_row = sequence_of_row_,
          .sequence_ids = batch.sequence_ids};
}

std::vector<int> Decoder::sequences_with(int32_t expert, const StepBatch& batch) const {
  std::vector<int> seqs;
  const int top_k = config_.moe.top_k;
  for (int s = 0; s < batch.num_seqs(); ++s) {
    const int32_t* const first = activations_.routing.experts + batch.query_start[s] * top_k;
    const int32_t* const last = activations_.routing.experts + batch.query_start[s + 1] * top_k;
    if (std::find(first, last, expert) != last) seqs.push_back(s);
  }
  return seqs;
}

void Decoder::collect(std::vector<LogitResult>& results) {
  AUGUR_REQUIRE(num_collected_ < num_launched_, "no step is under way");
  const Step& step = steps_[num_collected_ % kMaxSteps];
  ops_.wait(step.mark);
  ++num_collected_;
  results.assign(step.rows.size(), {});
  const HostResults host = host_results(step);
  for (const LogitChunk& chunk : step.chunks) {
    for (int64_t i = chunk.first; i < chunk.first + chunk.count; ++i) {
      const LogitRow& row = step.rows[i];
      LogitResult& result = results[i];
      if (row.wants_sample) result.sampled_id = host.sampled[i];
      if (row.wants_logprob || row.top_n > 0) result.logprob = host.logprobs[i];
      for (int32_t j = 0; j < row.top_n; ++j) {
        const int64_t place = chunk.first * limits_.max_top_n + (i - chunk.first) * chunk.top_n + j;
        result.top.push_back({host.top_ids[place], host.top_logprobs[place]});
      }
    }
  }
}

Decoder::HostResults Decoder::host_results(const Step& step) const {
  HostResults host;
  host.sampled = step.host.as<int32_t>();
  host.logprobs = step.host.as<float>() + limits_.max_tokens;
  host.top_ids = host.sampled + 2 * limits_.max_tokens;
  host.top_logprobs = host.logprobs + limits_.max_tokens * (1 + int64_t{limits_.max_top_n});
  return host;
}

int64_t Decoder::max_blocks_per_seq() const {
  return ceil_div(limits_.max_context, limits_.block_size);
}

Decoder::StepInputs Decoder::place_inputs(const InputSizes& sizes) const {
  StepInputs inputs;
  int64_t offset = 0;
  const auto take = [&]<typename T>(T*& array, int64_t count) {
    array = reinterpret_cast<T*>(activations_.inputs + offset);
    offset = ceil_div(offset + count * static_cast<int64_t>(sizeof(T)), kInputAlignment) *
             kInputAlignment;
  };
  take(inputs.num_valid, 1);
  take(inputs.token_ids, sizes.num_tokens);
  take(inputs.positions, sizes.num_tokens);
  take(inputs.kv_slots, sizes.num_tokens);
  take(inputs.query_start, sizes.num_seqs + 1);
  take(inputs.context_len, sizes.num_seqs);
  take(inputs.block_table, sizes.num_seqs * sizes.block_table_stride);
  // What a recorded step does not read comes last.
  take(inputs.logit_row_idx, sizes.num_logit_rows);
  take(inputs.targets, sizes.num_logit_rows);
  inputs.num_bytes = offset;
  return inputs;
}

// One copy brings all inputs of a step. Rows and sequences that pad it come last: one row of one
// sequence each, at no position, with nothing in the cache.
Decoder::StepInputs Decoder::upload(const StepBatch& batch,
                                    int64_t num_padded,
                                    int64_t block_table_stride) {
  const int64_t num_tokens = batch.num_tokens() + num_padded;
  const int64_t num_seqs = batch.num_seqs() + num_padded;
  const StepInputs inputs =
      place_inputs({.num_tokens = num_tokens,
                    .num_seqs = num_seqs,
                    .block_table_stride = block_table_stride,
                    .num_logit_rows = static_cast<int64_t>(batch.logit_rows.size())});
  const auto host = [&]<typename T>(T* array) {
    return reinterpret_cast<T*>(host_inputs_.data() +
                                (reinterpret_cast<std::byte*>(array) - activations_.inputs));
  };
  const auto copy = [&]<typename T>(T* array, const std::vector<T>& values, int64_t count, T rest) {
    T* const to = host(array);
    std::copy(values.begin(), values.end(), to);
    std::fill(to + values.size(), to + count, rest);
  };
  *host(inputs.num_valid) = static_cast<int32_t>(batch.num_tokens());
  copy(inputs.token_ids, batch.token_ids, num_tokens, 0);
  copy(inputs.positions, batch.positions, num_tokens, 0);
  copy(inputs.kv_slots, batch.kv_slots, num_tokens, int64_t{-1});
  copy(inputs.query_start, batch.query_start, num_seqs + 1, 0);
  for (int64_t i = 1; i <= num_padded; ++i) {
    host(inputs.query_start)[batch.num_seqs() + i] = static_cast<int32_t>(batch.num_tokens() + i);
  }
  copy(inputs.context_len, batch.context_len, num_seqs, 0);
  for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
    host(inputs.logit_row_idx)[i] = batch.logit_rows[i].row_idx;
    host(inputs.targets)[i] = batch.logit_rows[i].target_id;
  }
  int32_t* const table = host(inputs.block_table);
  for (int64_t s = 0; s < num_seqs; ++s) {
    const bool is_real = s < batch.num_seqs();
    const int32_t* const from = batch.block_table.data() + s * batch.block_table_stride;
    int32_t* const to = table + s * block_table_stride;
    int32_t* const end = is_real ? std::copy(from, from + batch.block_table_stride, to) : to;
    std::fill(end, to + block_table_stride, -1);
  }
  ops_.upload(activations_.inputs, host_inputs_.data(), inputs.num_bytes);
  return inputs;
}

void Decoder::run_layers(const StepInputs& inputs, const AttentionBatch& batch) {
  ops_.embed({.table = weights_.embedding,
              .token_ids = inputs.token_ids,
              .sampled_ids = activations_.sampled,
              .out = activations_.hidden.rows(0, batch.num_tokens)});
  for (int layer_idx = 0; layer_idx < config_.num_layers(); ++layer_idx) {
    attend(layer_idx, inputs, batch);
    feed_forward(layer_idx, inputs, batch);
  }
  add_norm(weights_.final_norm, batch.num_tokens, /*is_first=*/false, /*gate_input=*/{});
}

void Decoder::add_norm(const float* weight, int64_t num_tokens, bool is_first, Tensor gate_input) {
  ops_.add_rms_norm({.hidden = activations_.hidden.rows(0, num_tokens),
                     .delta = is_first ? Tensor{} : activations_.delta.rows(0, num_tokens),
                     .weight = weight,
                     .eps = config_.rms_norm_eps,
                     .out = activations_.normed.rows(0, num_tokens),
                     .out_f32 = gate_input});
}

void Decoder::attend(int layer_idx, const StepInputs& inputs, const AttentionBatch& batch) {
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
                       .positions = inputs.positions,
                       .kv_slots = inputs.kv_slots,
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

void Decoder::feed_forward(int layer_idx, const StepInputs& inputs, const AttentionBatch& batch) {
  const int64_t num_tokens = batch.num_tokens;
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
  RoutingBuffers routing = activations_.routing;
  if (is_recording_) routing.num_valid = inputs.num_valid;  // only recorded steps are padded
  if (forced_routing_ != nullptr) {
    routing.forced = forced_routing_ + layer_idx * limits_.max_tokens * config_.moe.top_k;
  }
  ExpertMemory* const memory = weights_.expert_memory.get();
  moe_layer(ops_, config_.moe, layer_idx, layer.moe, routing, gate_input, normed, delta, observers_,
            route_memory_, memory, weights_.low_bit_experts.get());
  if (memory != nullptr) memory->end_layer();
}

void Decoder::read_logits(const StepBatch& batch, const StepInputs& inputs, Step& step) {
  const auto num_rows = static_cast<int64_t>(batch.logit_rows.size());
  const int64_t max_rows = activations_.logits.num_rows;
  for (int64_t first = 0; first < num_rows; first += max_rows) {
    const int64_t count = std::min(max_rows, num_rows - first);
    const std::span<const LogitRow> rows = std::span(batch.logit_rows).subspan(first, count);
    const LogitChunk chunk = {.first = first, .count = count, .top_n = largest_top_n(rows)};
    step.chunks.push_back(chunk);
    read_logit_chunk(rows, chunk, inputs, step);
  }
}

int Decoder::largest_top_n(std::span<const LogitRow> rows) const {
  int top_n = 0;
  for (const LogitRow& row : rows) top_n = std::max<int>(top_n, row.top_n);
  AUGUR_REQUIRE(top_n <= limits_.max_top_n, std::to_string(top_n));
  return top_n;
}

void Decoder::read_logit_chunk(std::span<const LogitRow> rows,
                               const LogitChunk& chunk,
                               const StepInputs& inputs,
                               const Step& step) {
  // In a decode step every row is wanted, in order.
  const int64_t first_row = rows[0].row_idx;
  const bool is_consecutive = rows.back().row_idx == first_row + chunk.count - 1;
  const Tensor last = is_consecutive ? activations_.normed.rows(first_row, chunk.count)
                                     : activations_.last.rows(0, chunk.count);
  const Tensor logits = activations_.logits.rows(0, chunk.count);
  if (!is_consecutive) {
    ops_.gather_rows(
        {.x = activations_.normed, .rows = inputs.logit_row_idx + chunk.first, .out = last});
  }
  ops_.linear({.x = last, .weight = weights_.lm_head, .bias = nullptr, .out = logits});
  last_logits_ = logits;

  const HostResults host = host_results(step);
  int32_t* const sampled = activations_.sampled + chunk.first;
  const bool wants_sample =
      std::any_of(rows.begin(), rows.end(), [](const LogitRow& row) { return row.wants_sample; });
  if (wants_sample) {
    draw(logits, rows, sampled);
    ops_.download(host.sampled + chunk.first, sampled, chunk.count * 4);
  }
  const bool wants_logprob = std::any_of(rows.begin(), rows.end(), [](const LogitRow& row) {
    return row.wants_logprob || row.top_n > 0;
  });
  if (!wants_logprob) return;
  ops_.logprobs({.logits = logits,
                 .targets = inputs.targets + chunk.first,
                 .target_logprob = activations_.target_logprobs,
                 .top_n = chunk.top_n,
                 .top_ids = activations_.top_ids,
                 .top_logprobs = activations_.top_logprobs,
                 .sampled_ids = wants_sample ? sampled : nullptr});
  ops_.download(host.logprobs + chunk.first, activations_.target_logprobs, chunk.count * 4);
  if (chunk.top_n == 0) return;
  const int64_t place = chunk.first * limits_.max_top_n;
  ops_.download(host.top_ids + place, activations_.top_ids, chunk.count * chunk.top_n * 4);
  ops_.download(host.top_logprobs + place, activations_.top_logprobs,
                chunk.count * chunk.top_n * 4);
}

// Rows that only score are drawn greedily too when they share a chunk with rows that sample: one
// pass over them costs less than moving the others together.
void Decoder::draw(const Tensor& logits, std::span<const LogitRow> rows, int32_t* sampled) {
  sampling_rows_.clear();
  for (const LogitRow& row : rows) {
    sampling_rows_.push_back(row.wants_sample ? row.sampling : SamplingRow{.temperature = 0});
  }
  ops_.sample({.logits = logits, .rows = sampling_rows_, .token_ids = sampled});
}

}  // namespace augur
