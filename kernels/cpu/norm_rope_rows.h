// Templates of the row kernels of norm_rope.h; included by the units of one instruction set each.
#pragma once

#include "kernels/cpu/token_kernels.h"

namespace augur::cpu {

/// 1 / rms of num_cols values: four running sums, so that additions overlap, in a fixed order.
template <typename V>
inline float inverse_rms(const float* x, int64_t num_cols, float eps) {
  typename V::F sums[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  int64_t col = 0;
  for (; col + 64 <= num_cols; col += 64) {
    for (int i = 0; i < 4; ++i) {
      const typename V::F values = V::load(x + col + 16 * i);
      sums[i] = V::fma(values, values, sums[i]);
    }
  }
  for (; col < num_cols; col += 16) {
    const typename V::F values = V::load_first(x + col, num_cols - col);
    sums[0] = V::fma(values, values, sums[0]);
  }
  const float sum = V::reduce_add(V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3])));
  return 1.0f / __builtin_sqrtf(sum / static_cast<float>(num_cols) + eps);
}

template <typename V>
void norm_rows(const NormRows& args) {
  using F = typename V::F;
  const int64_t num_cols = args.num_cols;
  const int64_t whole_cols = num_cols / 16 * 16;
  for (int64_t row = 0; row < args.num_rows; ++row) {
    float* hidden = args.hidden + row * args.hidden_stride;
    if (args.delta != nullptr) {
      const float* delta = args.delta + row * args.delta_stride;
      for (int64_t col = 0; col < whole_cols; col += 16) {
        V::store(hidden + col, V::add(V::load(hidden + col), V::load(delta + col)));
      }
      for (int64_t col = whole_cols; col < num_cols; ++col) hidden[col] += delta[col];
    }
    const F scale = V::set1(inverse_rms<V>(hidden, num_cols, args.eps));
    uint16_t* out = args.out + row * args.out_stride;
    float* out_f32 = args.out_f32 == nullptr ? nullptr : args.out_f32 + row * args.out_f32_stride;
    for (int64_t col = 0; col < whole_cols; col += 16) {
      const F values = V::mul(V::mul(V::load(hidden + col), scale), V::load(args.weight + col));
      V::store_bf16(out + col, values);
      if (out_f32 != nullptr) V::store(out_f32 + col, values);
    }
    if (const int64_t left = num_cols - whole_cols; left > 0) {
      const F values = V::mul(V::mul(V::load_first(hidden + whole_cols, left), scale),
                              V::load_first(args.weight + whole_cols, left));
      V::store_bf16_first(out + whole_cols, values, left);
      if (out_f32 != nullptr) V::store_first(out_f32 + whole_cols, values, left);
    }
  }
}

/// Turns the pairs (2i, 2i + 1) of a head's first rotary_dim values in place. A template only so
/// that each unit keeps its own.
template <typename V>
inline void rotate_interleaved(const RopeToken& args, float* head) {
  for (int i = 0; i < args.rotary_dim / 2; ++i) {
    const float even = head[2 * i];
    const float odd = head[2 * i + 1];
    head[2 * i] = even * args.cos[i] - odd * args.sin[i];
    head[2 * i + 1] = odd * args.cos[i] + even * args.sin[i];
  }
}

template <typename V>
inline void put_first(uint16_t* to, typename V::F x, int64_t count) {
  V::store_bf16_first(to, x, count);
}
template <typename V>
inline void put_first(float* to, typename V::F x, int64_t count) {
  V::store_first(to, x, count);
}

/// A head, normalised where `norm` is given and turned; rounded where `To` is bf16.
template <typename V, typename To>
inline void prepare_head(const RopeToken& args, const float* from, const float* norm, To* to) {
  using F = typename V::F;
  const int head_dim = args.head_dim;
  const int rotary_dim = args.rotary_dim;
  const F scale = V::set1(norm == nullptr ? 1.0f : inverse_rms<V>(from, head_dim, args.eps));
  const auto normalised = [&](int col, int count) {
    const F x = V::load_first(from + col, count);
    if (norm == nullptr) return x;
    return V::mul(V::mul(x, scale), V::load_first(norm + col, count));
  };

  if (!args.is_interleaved) {
    const int half = rotary_dim / 2;
    for (int i = 0; i < half; i += 16) {
      const int count = half - i;
      const F cos = V::load_first(args.cos + i, count);
      const F sin = V::load_first(args.sin + i, count);
      const F lower = normalised(i, count);
      const F upper = normalised(half + i, count);
      put_first<V>(to + i, V::fms(lower, cos, V::mul(upper, sin)), count);
      put_first<V>(to + half + i, V::fma(upper, cos, V::mul(lower, sin)), count);
    }
    for (int col = rotary_dim; col < head_dim; col += 16) {
      put_first<V>(to + col, normalised(col, head_dim - col), head_dim - col);
    }
    return;
  }
  alignas(64) float head[kMaxHeadDim];
  for (int col = 0; col < head_dim; col += 16)
    V::store(head + col, normalised(col, head_dim - col));
  rotate_interleaved<V>(args, head);
  for (int col = 0; col < head_dim; col += 16) {
    put_first<V>(to + col, V::load(head + col), head_dim - col);
  }
}

/// Quantises a head as KvFormat::kInt8 says; returns its scale.
template <typename V>
inline float quantise_head(const float* head, int head_dim, int8_t* to) {
  using F = typename V::F;
  F largest = V::zero();
  F poison = V::zero();  // 0, or NaN where a value is not finite
  for (int col = 0; col < head_dim; col += 16) {
    const F x = V::load_first(head + col, head_dim - col);
    largest = V::max(V::max(x, V::sub(V::zero(), x)), largest);
    poison = V::fma(x, V::zero(), poison);
  }
  const float maximum = V::reduce_max(largest);
  const bool is_zero = maximum < kLeastQuantised;
  const F inverse = V::set1(is_zero ? 0.0f : 127.0f / maximum);
  const F lowest = V::set1(-127.0f);
  for (int col = 0; col < head_dim; col += 16) {
    const F x = V::load_first(head + col, head_dim - col);
    // The maximum turns a NaN into a number, which no conversion may meet.
    V::store_int8_first(to + col, V::max(V::round(V::mul(x, inverse)), lowest), head_dim - col);
  }
  return (is_zero ? 0.0f : maximum / 127.0f) + V::reduce_add(poison);
}

/// The cache's part of rope_token in int8. `from`: the key heads, then the value heads.
template <typename V>
inline void cache_int8(const RopeToken& args, const float* from) {
  const int head_dim = args.head_dim;
  alignas(64) float key[kMaxHeadDim];
  alignas(64) int8_t quantised[kMaxHeadDim];
  const auto scale_of_head = [&](float* scale, int head_idx) {
    return reinterpret_cast<float*>(reinterpret_cast<std::byte*>(scale) +
                                    head_idx * args.head_bytes);
  };
  for (int head_idx = 0; head_idx < args.num_kv_heads; ++head_idx, from += head_dim) {
    prepare_head<V>(args, from, args.k_norm, key);
    *scale_of_head(args.key_scale, head_idx) = quantise_head<V>(key, head_dim, quantised);
    // A dimension every 16 bytes: the positions of a group lie between.
    int8_t* keys = reinterpret_cast<int8_t*>(args.keys + head_idx * args.head_bytes);
    for (int col = 0; col < head_dim; ++col) keys[col * 16] = quantised[col];
  }
  for (int head_idx = 0; head_idx < args.num_kv_heads; ++head_idx, from += head_dim) {
    *scale_of_head(args.value_scale, head_idx) = quantise_head<V>(from, head_dim, quantised);
    std::byte* values = args.values + head_idx * args.head_bytes + args.value_parity * 16;
    for (int col = 0; col < head_dim; col += 16) {
      const int count = head_dim - col < 16 ? head_dim - col : 16;
      __builtin_memcpy(values + col * 2, quantised + col, count);
    }
  }
}

/// The cache's part of rope_token in bf16.
template <typename V>
inline void cache_bf16(const RopeToken& args, const float* from) {
  const int head_dim = args.head_dim;
  alignas(64) uint32_t pairs[kMaxHeadDim / 2];
  for (int head_idx = 0; head_idx < args.num_kv_heads; ++head_idx, from += head_dim) {
    prepare_head<V>(args, from, args.k_norm, reinterpret_cast<uint16_t*>(pairs));
    // A pair of dimensions every 64 bytes: the positions of a group lie between.
    uint32_t* keys = reinterpret_cast<uint32_t*>(args.keys + head_idx * args.head_bytes);
    for (int pair = 0; pair < head_dim / 2; ++pair) keys[pair * 16] = pairs[pair];
  }

  for (int head_idx = 0; head_idx < args.num_kv_heads; ++head_idx, from += head_dim) {
    std::byte* values = args.values + head_idx * args.head_bytes;
    for (int col = 0; col < head_dim; col += 16) {
      const int64_t count = head_dim - col < 16 ? head_dim - col : 16;
      V::store_bf16_half(values + col * 4, V::load_first(from + col, count), args.value_parity,
                         count);
    }
  }
}

template <typename V>
void rope_token(const RopeToken& args) {
  const int head_dim = args.head_dim;
  const float* from = args.qkv;
  for (int head_idx = 0; head_idx < args.num_heads; ++head_idx, from += head_dim) {
    prepare_head<V>(args, from, args.q_norm,
                    args.q_out + static_cast<int64_t>(head_idx) * head_dim);
  }
  if (args.format == KvFormat::kInt8) {
    cache_int8<V>(args, from);
  } else {
    cache_bf16<V>(args, from);
  }
}

}  // namespace augur::cpu
