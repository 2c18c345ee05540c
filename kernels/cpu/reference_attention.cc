#include "kernels/cpu/reference_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernels/cpu/reference_checks.h"
#include "kernels/cpu/reference_kernels.h"
#include "kernels/cpu/row_math.h"

namespace augur::cpu {
namespace {

void require_cache(const KvCacheLayer& cache, const ReferenceScratch& scratch) {
  AUGUR_REQUIRE(cache.block_size >= 1 && cache.num_kv_heads >= 1 && cache.head_dim >= 1,
                "blocks of " + std::to_string(cache.block_size) + " positions, " +
                    std::to_string(cache.num_kv_heads) + " heads of " +
                    std::to_string(cache.head_dim));
  AUGUR_REQUIRE(cache.format == KvFormat::kNative || cache.head_dim <= scratch.max_cols(),
                "heads of " + std::to_string(cache.head_dim) + "; reserved for rows of " +
                    std::to_string(scratch.max_cols()));
}

std::byte* block_of(const KvCacheLayer& cache, int64_t block) {
  return cache.data + block * reference_kv_block_bytes(cache.block_size, cache.num_kv_heads,
                                                       cache.head_dim, cache.format);
}

// Value d of the key at `offset` in its block lies at [d * block_size + offset].
float* keys_of(const KvCacheLayer& cache, int64_t block, int64_t kv_head) {
  return reinterpret_cast<float*>(block_of(cache, block)) +
         kv_head * cache.head_dim * cache.block_size;
}

// Value d at `offset` lies at [offset * head_dim + d].
float* values_of(const KvCacheLayer& cache, int64_t block, int64_t kv_head) {
  return keys_of(cache, block, cache.num_kv_heads + kv_head);
}

// In int8: one key (head kv_head) or value (head num_kv_heads + kv_head) of one position.
struct QuantisedHead {
  float* scale;
  int8_t* values;  // [head_dim]
};

QuantisedHead quantised_head(const KvCacheLayer& cache, int64_t block, int64_t head, int64_t at) {
  float* const scales = reinterpret_cast<float*>(block_of(cache, block));
  const int64_t num_vectors = int64_t{2} * cache.num_kv_heads * cache.block_size;
  const int64_t vector = head * cache.block_size + at;
  return {scales + vector,
          reinterpret_cast<int8_t*>(scales + num_vectors) + vector * cache.head_dim};
}

void quantise(const float* from, int64_t head_dim, const QuantisedHead& to) {
  float largest = 0;
  bool is_finite = true;
  for (int64_t d = 0; d < head_dim; ++d) {
    largest = std::max(largest, std::abs(from[d]));
    is_finite = is_finite && std::isfinite(from[d]);
  }
  if (!is_finite || largest < kLeastQuantised) {
    *to.scale = is_finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    std::fill(to.values, to.values + head_dim, int8_t{0});
    return;
  }
  *to.scale = largest / 127.0f;
  const float inverse = 127.0f / largest;
  for (int64_t d = 0; d < head_dim; ++d) {
    to.values[d] = static_cast<int8_t>(std::nearbyint(from[d] * inverse));
  }
}

// Keys or values of a few positions as the kernels take them: value d of position p lies at
// [d * d_stride + p * p_stride].
struct Run {
  const float* data;
  int64_t d_stride, p_stride;
};

// Widens positions [at, at + count) of a block to float32: keys with positions side by side, values
// with dimensions side by side.
Run widen(
    const KvCacheLayer& cache, int64_t block, int64_t head, int64_t at, int64_t count, float* to) {
  const bool is_key = head < cache.num_kv_heads;
  const Run run = is_key ? Run{to, count, 1} : Run{to, 1, cache.head_dim};
  for (int64_t p = 0; p < count; ++p) {
    const QuantisedHead from = quantised_head(cache, block, head, at + p);
    for (int64_t d = 0; d < cache.head_dim; ++d) {
      to[d * run.d_stride + p * run.p_stride] = static_cast<float>(from.values[d]) * *from.scale;
    }
  }
  return run;
}

// Normalises a head by its root mean square, where a weight is given, then turns its first
// rotary_dim values by the angles of `position`.
void norm_and_turn(const RopeAndCacheArgs& args,
                   const float* from,
                   const float* weight,
                   int64_t position,
                   float* to) {
  const int head_dim = args.cache.head_dim;
  std::copy(from, from + head_dim, to);
  if (weight != nullptr) {
    double sum_of_squares = 0;
    for (int d = 0; d < head_dim; ++d) sum_of_squares += double{from[d]} * from[d];
    const auto scale =
        static_cast<float>(1.0 / std::sqrt(sum_of_squares / head_dim + args.norm_eps));
    for (int d = 0; d < head_dim; ++d) to[d] = from[d] * scale * weight[d];
  }
  const int half = args.rope.rotary_dim / 2;
  for (int i = 0; i < half; ++i) {
    const float cos = args.rope.cos[position * half + i];
    const float sin = args.rope.sin[position * half + i];
    float& first = to[args.rope.is_interleaved ? 2 * i : i];
    float& second = to[args.rope.is_interleaved ? 2 * i + 1 : i + half];
    const float turned = first * cos - second * sin;
    second = second * cos + first * sin;
    first = turned;
  }
}

void require_batch(const AttentionArgs& args, const ReferenceScratch& scratch) {
  const AttentionBatch& batch = args.batch;
  if (batch.num_tokens == 0) return;
  AUGUR_REQUIRE(batch.num_seqs >= 1 && batch.query_start[0] == 0 &&
                    batch.query_start[batch.num_seqs] == batch.num_tokens,
                std::to_string(batch.num_seqs) + " sequences do not cover " +
                    std::to_string(batch.num_tokens) + " rows");
  for (int s = 0; s < batch.num_seqs; ++s) {
    const int64_t num_rows = batch.query_start[s + 1] - batch.query_start[s];
    const int64_t context = batch.context_len[s];
    AUGUR_REQUIRE(num_rows >= 0, "query_start falls at sequence " + std::to_string(s));
    if (num_rows == 0) continue;
    AUGUR_REQUIRE(context >= num_rows && context <= scratch.limits().max_context,
                  "sequence " + std::to_string(s) + " has context " + std::to_string(context) +
                      " and " + std::to_string(num_rows) + " rows; reserved for " +
                      std::to_string(scratch.limits().max_context));
    const int64_t num_blocks = (context + args.cache.block_size - 1) / args.cache.block_size;
    AUGUR_REQUIRE(num_blocks <= batch.block_table_stride,
                  "sequence " + std::to_string(s) + " needs " + std::to_string(num_blocks) +
                      " blocks, its row of the table holds " +
                      std::to_string(batch.block_table_stride));
    require_in_range(batch.block_table + s * batch.block_table_stride, num_blocks,
                     args.cache.num_blocks, "block");
  }
}

// `widened` has room for [kLanes, head_dim].
void attend(const AttentionArgs& args, int64_t row, int64_t head, float* scores, float* widened) {
  const KvCacheLayer& cache = args.cache;
  const AttentionBatch& batch = args.batch;
  const ReferenceKernels& kernels = reference_kernels();
  const int64_t head_dim = cache.head_dim;
  const int64_t kv_head = head / (args.num_heads / cache.num_kv_heads);
  const int64_t seq =
      std::upper_bound(batch.query_start, batch.query_start + batch.num_seqs + 1, row) -
      batch.query_start - 1;
  const int64_t num_positions = batch.context_len[seq] - (batch.query_start[seq + 1] - row) + 1;
  const int32_t* const blocks = batch.block_table + seq * batch.block_table_stride;
  const float* const q = args.q.row<float>(row) + head * head_dim;
  float* const out = args.out.row<float>(row) + head * head_dim;

  // Positions are taken block by block, in int8 as many at a time as `widened` holds.
  const bool is_int8 = cache.format == KvFormat::kInt8;
  const int64_t longest_run = is_int8 ? kLanes : cache.block_size;
  const auto run_at = [&](int64_t start) {
    return std::min(
        {longest_run, cache.block_size - start % cache.block_size, num_positions - start});
  };
  for (int64_t start = 0, count; start < num_positions; start += count) {
    count = run_at(start);
    const int64_t block = blocks[start / cache.block_size];
    const int64_t at = start % cache.block_size;
    const Run keys = is_int8 ? widen(cache, block, kv_head, at, count, widened)
                             : Run{keys_of(cache, block, kv_head) + at, cache.block_size, 1};
    kernels.score_keys(q, head_dim, keys.data, keys.d_stride, count, args.scale, scores + start);
  }
  const float largest = row_math().max_value(scores, num_positions);
  row_math().exp_scaled(scores, num_positions, largest, 1.0f, scores);
  double total = 0;
  for (int64_t p = 0; p < num_positions; ++p) total += scores[p];

  std::fill(out, out + head_dim, 0.0f);
  for (int64_t start = 0, count; start < num_positions; start += count) {
    count = run_at(start);
    const int64_t block = blocks[start / cache.block_size];
    const int64_t at = start % cache.block_size;
    const Run values = is_int8
                           ? widen(cache, block, cache.num_kv_heads + kv_head, at, count, widened)
                           : Run{values_of(cache, block, kv_head) + at * head_dim, 1, head_dim};
    kernels.add_values(scores + start, count, values.data, head_dim, out);
  }
  for (int64_t d = 0; d < head_dim; ++d) out[d] = static_cast<float>(out[d] / total);
}

}  // namespace

int64_t reference_kv_block_bytes(int block_size, int num_kv_heads, int head_dim, KvFormat format) {
  constexpr int64_t kFloatBytes = sizeof(float);
  const int64_t num_vectors = int64_t{2} * num_kv_heads * block_size;
  if (format == KvFormat::kNative) return num_vectors * head_dim * kFloatBytes;
  // Whole floats, so that the scales of the next block are aligned.
  return (num_vectors * (head_dim + kFloatBytes) + kFloatBytes - 1) / kFloatBytes * kFloatBytes;
}

void reference_rope_and_cache(const RopeAndCacheArgs& args,
                              const ReferenceScratch& scratch,
                              WorkerPool& pool) {
  const KvCacheLayer& cache = args.cache;
  require_cache(cache, scratch);
  const int64_t num_tokens = args.qkv.num_rows;
  const int64_t head_dim = cache.head_dim;
  const int num_qk_heads = args.num_heads + cache.num_kv_heads;
  require_f32(args.qkv, num_tokens, (num_qk_heads + cache.num_kv_heads) * head_dim, "qkv");
  require_f32(args.q_out, num_tokens, args.num_heads * head_dim, "q_out");
  AUGUR_REQUIRE(args.rope.rotary_dim >= 0 && args.rope.rotary_dim <= head_dim &&
                    args.rope.rotary_dim % 2 == 0,
                std::to_string(args.rope.rotary_dim));
  require_in_range(args.kv_slots, num_tokens, cache.num_blocks * cache.block_size, "kv slot");

  pool.parallel_for(num_tokens, [&](int64_t token, int worker_idx) {
    const float* const qkv = args.qkv.row<float>(token);
    const int64_t position = args.positions[token];
    float* const q_out = args.q_out.row<float>(token);
    for (int h = 0; h < args.num_heads; ++h) {
      norm_and_turn(args, qkv + h * head_dim, args.q_norm, position, q_out + h * head_dim);
    }
    const int64_t block = args.kv_slots[token] / cache.block_size;
    const int64_t offset = args.kv_slots[token] % cache.block_size;
    for (int h = 0; h < cache.num_kv_heads; ++h) {
      const float* const k = qkv + (args.num_heads + h) * head_dim;
      const float* const v = qkv + (num_qk_heads + h) * head_dim;
      if (cache.format == KvFormat::kInt8) {
        float* const key = scratch.panel(worker_idx);
        norm_and_turn(args, k, args.k_norm, position, key);
        quantise(key, head_dim, quantised_head(cache, block, h, offset));
        quantise(v, head_dim, quantised_head(cache, block, cache.num_kv_heads + h, offset));
        continue;
      }
      // The key is made where its value goes, then moved across the block's positions.
      float* const value = values_of(cache, block, h) + offset * head_dim;
      norm_and_turn(args, k, args.k_norm, position, value);
      float* const keys = keys_of(cache, block, h);
      for (int64_t d = 0; d < head_dim; ++d) keys[d * cache.block_size + offset] = value[d];
      std::copy(v, v + head_dim, value);
    }
  });
}

void reference_attention(const AttentionArgs& args,
                         const ReferenceScratch& scratch,
                         WorkerPool& pool) {
  require_cache(args.cache, scratch);
  AUGUR_REQUIRE(args.num_heads >= 1 && args.num_heads % args.cache.num_kv_heads == 0,
                std::to_string(args.num_heads) + " heads, " +
                    std::to_string(args.cache.num_kv_heads) + " KV heads");
  const int64_t num_cols = int64_t{args.num_heads} * args.cache.head_dim;
  require_f32(args.q, args.batch.num_tokens, num_cols, "q");
  require_f32(args.out, args.batch.num_tokens, num_cols, "out");
  require_batch(args, scratch);
  pool.parallel_for(args.batch.num_tokens * args.num_heads, [&](int64_t chunk, int worker_idx) {
    attend(args, chunk / args.num_heads, chunk % args.num_heads, scratch.scores(worker_idx),
           scratch.panel(worker_idx));
  });
}

}  // namespace augur::cpu
