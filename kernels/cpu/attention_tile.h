// Templates of the attention kernel; included by the units of one instruction set each.
//
// A tile of query rows walks the positions in chunks of kAttentionChunk: scores q k^T, an online
// softmax (Milakov and Gimelshein 2018, arXiv:1805.02867), probabilities rounded to bf16, values
// p v. The chunks of a split share running maxima and sums; splits are folded in rising order.
// What happens to a row is fixed by its own position: rows of a tile never mix, chunks and splits
// count from position 0, and positions past the row contribute exact zeros. So a row comes out
// the same to the bit alone or in any tile, and split over threads or not.
#pragma once

#include "kernels/cpu/exp2.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/token_kernels.h"

namespace augur::cpu {

constexpr int kChunkGroups = kAttentionChunk / kKvGroup;
constexpr float kLowestScore = -3.0e38f;
constexpr int kToSecondCache = 2;  // of __builtin_prefetch

/// Where the 16 positions of each group of a chunk lie.
struct ChunkGroups {
  const std::byte* keys[kChunkGroups];
  const std::byte* values[kChunkGroups];
};

/// What the steps of a tile share.
template <typename V>
struct TileWork {
  // Not an aggregate: making one would clear the arrays.
  explicit TileWork(const AttentionTile& tile)
      : tile(tile),
        padded_head_dim((tile.head_dim + 15) / 16 * 16),
        row_floats(partial_row_floats(tile.head_dim)) {}

  const AttentionTile& tile;
  const int padded_head_dim;
  const int64_t row_floats;  // of a result row: values, sum, maximum
  int64_t positions[kAttentionRows];
  alignas(64) uint32_t q[kAttentionRows * kMaxHeadDim / 2];  // [rows][head_dim / 2] pairs
  alignas(64) float scores[kAttentionRows * kAttentionChunk];
  alignas(64) uint32_t probabilities[kAttentionRows * kAttentionChunk / 2];
  alignas(64) float sums[kAttentionRows * 16];  // 16 lanes a row, added up at the end of a split
  alignas(64) float maxima[kAttentionRows];     // times scale_log2e
  alignas(64) float corrections[kAttentionRows];
  // Of the chunk under way: positions seen by some row, and their groups.
  int num_positions;
  ChunkGroups groups;
  // Of the next chunk, fetched into the caches meanwhile; past the last one, the same again.
  ChunkGroups next;
};

/// Calls body.template operator()<R>(row) for blocks of at most kRows rows.
template <int kRows, typename Body>
inline void for_row_blocks(int num_rows, Body& body, int first = 0) {
  int row = first;
  for (; row + kRows <= num_rows; row += kRows) body.template operator()<kRows>(row);
  if constexpr (kRows > 1) {
    if (row < num_rows) for_row_blocks<kRows - 1>(num_rows, body, row);
  }
}

/// sums[r][n] += the products of pair `a[r]` with the pairs at b[n], kRows x kVecs of them.
template <typename V, int kRows, int kVecs>
inline void add_dots(typename V::F (&sums)[kRows][kVecs],
                     const uint32_t* a,
                     int64_t a_stride,
                     const typename V::Pairs (&b)[kVecs]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const typename V::Pair pair = V::broadcast_pair(a + r * a_stride);
#pragma GCC unroll 2
    for (int n = 0; n < kVecs; ++n) sums[r][n] = V::dot(sums[r][n], pair, b[n]);
  }
}

/// Bytes of 16 pairs in the cache.
template <KvFormat kFormat>
constexpr int64_t kPairsBytes = kFormat == KvFormat::kInt8 ? 32 : 64;

/// 16 pairs of the cache as bf16, which int8 fits into exactly. It is widened here, each time it is
/// read, and not once for all rows of a tile: that overlaps with the products and costs less than
/// storing it would.
template <typename V, KvFormat kFormat>
inline typename V::Pairs load_cached(const std::byte* from) {
  if constexpr (kFormat == KvFormat::kInt8) {
    return V::load_int8_pairs(from);
  } else {
    return V::load_pairs(from);
  }
}

/// The 16 scales that end a group in int8.
template <typename V>
inline typename V::F load_scales(const std::byte* group, int64_t group_bytes) {
  return V::load(reinterpret_cast<const float*>(group + group_bytes - kKvScaleBytes));
}

/// scores[r][position] = q[r] . k[position] for the groups of the chunk.
template <typename V, KvFormat kFormat, bool kFetchAhead, int kRows>
inline void score_rows(TileWork<V>& work, int row) {
  constexpr int kVecs = V::kVecTile;
  constexpr int64_t kRowBytes = kPairsBytes<kFormat>;
  const int num_pairs = work.tile.head_dim / 2;
  const uint32_t* q = work.q + static_cast<int64_t>(row) * num_pairs;
  for (int group = 0; group * kKvGroup < work.num_positions; group += kVecs) {
    typename V::F sums[kRows][kVecs];
    const std::byte* keys[kVecs];
    const std::byte* next_keys[kVecs];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < kVecs; ++n) sums[r][n] = V::zero();
    }
    for (int n = 0; n < kVecs; ++n) {
      keys[n] = work.groups.keys[group + n];
      next_keys[n] = work.next.keys[group + n];
    }
    for (int pair = 0; pair < num_pairs; ++pair) {
      typename V::Pairs k[kVecs];
#pragma GCC unroll 2
      for (int n = 0; n < kVecs; ++n) {
        k[n] = load_cached<V, kFormat>(keys[n] + pair * kRowBytes);
        if constexpr (kFetchAhead) {
          __builtin_prefetch(next_keys[n] + pair * kRowBytes, 0, kToSecondCache);
        }
      }
      add_dots<V, kRows, kVecs>(sums, q + pair, num_pairs, k);
    }
    if constexpr (kFormat == KvFormat::kInt8) {
      for (int n = 0; n < kVecs; ++n) {
        const typename V::F scales =
            load_scales<V>(work.groups.keys[group + n], work.tile.key_group_bytes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) sums[r][n] = V::mul(sums[r][n], scales);
      }
    }
    float* scores = work.scores + row * kAttentionChunk + group * kKvGroup;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < kVecs; ++n) V::store(scores + r * kAttentionChunk + n * 16, sums[r][n]);
    }
  }
}

/// Number of the chunk's positions that a row sees: those up to its own.
template <typename V>
inline int num_seen(const TileWork<V>& work, int row, int64_t chunk_start) {
  const int64_t seen = work.positions[row] + 1 - chunk_start;
  return static_cast<int>(seen < 0 ? 0 : seen < work.num_positions ? seen : work.num_positions);
}

/// Scores to probabilities, times the scales of the values where they have some; new maxima,
/// corrections of what came before, and sums.
template <typename V, KvFormat kFormat>
inline void softmax_chunk(TileWork<V>& work, int64_t chunk_start) {
  using F = typename V::F;
  const Exp2Coarse<V> exp2;
  const F scale = V::set1(work.tile.scale_log2e);
  const int num_rows = work.tile.num_rows;
  alignas(64) float maxima[kAttentionRows];
  for (int row = 0; row < kAttentionRows; ++row) maxima[row] = kLowestScore;
  for (int row = 0; row < num_rows; ++row) {
    const float* scores = work.scores + row * kAttentionChunk;
    const int seen = num_seen(work, row, chunk_start);
    F most = V::set1(kLowestScore);
    int position = 0;
    for (; position + 16 <= seen; position += 16) {
      most = V::max(most, V::load(scores + position));
    }
    if (position < seen) {
      const F last = V::load(scores + position);
      most = V::max(most, V::select(V::first_lanes(seen - position), last, most));
    }
    maxima[row] = V::reduce_max(V::mul(most, scale));
  }
  const F old_maxima = V::load(work.maxima);
  const F new_maxima = V::max(old_maxima, V::load(maxima));
  V::store(work.maxima, new_maxima);
  V::store(work.corrections, exp2(V::sub(old_maxima, new_maxima)));

  for (int row = 0; row < num_rows; ++row) {
    const float* scores = work.scores + row * kAttentionChunk;
    uint16_t* out = reinterpret_cast<uint16_t*>(work.probabilities) + row * kAttentionChunk;
    const int seen = num_seen(work, row, chunk_start);
    const F maximum = V::set1(work.maxima[row]);
    const auto weight = [&](int position) {
      return exp2(V::fms(V::load(scores + position), scale, maximum));
    };
    // What the values of 16 positions are to be multiplied by.
    const auto scaled = [&](int position, F weights) {
      if constexpr (kFormat == KvFormat::kNative) {
        return weights;
      } else {
        const std::byte* group = work.groups.values[position / kKvGroup];
        return V::mul(weights, load_scales<V>(group, work.tile.value_group_bytes));
      }
    };
    F sum = V::mul(V::load(work.sums + row * 16), V::set1(work.corrections[row]));
    int position = 0;
    for (; position + 32 <= seen; position += 32) {
      const F first = weight(position);
      const F second = weight(position + 16);
      sum = V::add(V::add(sum, first), second);
      V::store_bf16_twice(out + position, scaled(position, first), scaled(position + 16, second));
    }
    for (; position < work.num_positions; position += 16) {
      F last = V::zero();
      if (position < seen) {
        const typename V::Mask is_seen = V::first_lanes(seen - position);
        last = V::select(is_seen, weight(position), V::zero());
        sum = V::add(sum, last);
        // The scales of positions not written yet may be anything.
        last = V::select(is_seen, scaled(position, last), V::zero());
      }
      V::store_bf16(out + position, last);
    }
    V::store(work.sums + row * 16, sum);
  }
}

/// result[r][col] = result * correction + p[r] v[.][col] over the chunk, for kVecs x 16 columns.
template <typename V, KvFormat kFormat, bool kFetchAhead, int kRows, int kVecs>
inline void value_columns(TileWork<V>& work, int row, int col, float* result) {
  constexpr int kPairsOfGroup = kKvGroup / 2;
  const int64_t row_bytes = work.padded_head_dim / 16 * kPairsBytes<kFormat>;
  const int64_t col_bytes = col / 16 * kPairsBytes<kFormat>;
  const uint32_t* p = work.probabilities + row * (kAttentionChunk / 2);
  float* to = result + row * work.row_floats + col;
  typename V::F sums[kRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const typename V::F correction = V::set1(work.corrections[row + r]);
#pragma GCC unroll 2
    for (int n = 0; n < kVecs; ++n) {
      sums[r][n] = V::mul(V::load(to + r * work.row_floats + n * 16), correction);
    }
  }
  const auto add_pair = [&](int position, const std::byte* values, bool is_half) {
    typename V::Pairs v[kVecs];
#pragma GCC unroll 2
    for (int n = 0; n < kVecs; ++n) {
      v[n] = load_cached<V, kFormat>(values + n * kPairsBytes<kFormat>);
      // The other half belongs to a position not written yet: whatever lies there must not
      // count, and 0 times a NaN would.
      if (is_half) v[n] = V::first_of_pairs(v[n]);
    }
    add_dots<V, kRows, kVecs>(sums, p + position / 2, kAttentionChunk / 2, v);
  };
  int position = 0;
  for (; position + kKvGroup <= work.num_positions; position += kKvGroup) {
    const std::byte* values = work.groups.values[position / kKvGroup] + col_bytes;
    const std::byte* next = work.next.values[position / kKvGroup] + col_bytes;
#pragma GCC unroll 8
    for (int pair = 0; pair < kPairsOfGroup; ++pair) {
      add_pair(position + 2 * pair, values + pair * row_bytes, /*is_half=*/false);
      if constexpr (kFetchAhead) {
#pragma GCC unroll 2
        for (int n = 0; n < kVecs; ++n) {
          __builtin_prefetch(next + pair * row_bytes + n * kPairsBytes<kFormat>, 0, kToSecondCache);
        }
      }
    }
  }
  if (position < work.num_positions) {
    const std::byte* values = work.groups.values[position / kKvGroup] + col_bytes;
    for (; position < work.num_positions; position += 2, values += row_bytes) {
      add_pair(position, values, /*is_half=*/position + 1 == work.num_positions);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < kVecs; ++n) V::store(to + r * work.row_floats + n * 16, sums[r][n]);
  }
}

/// Finds the groups of the chunk at `start`, of a context that ends at `end`, which is behind it.
template <typename V>
inline ChunkGroups find_groups(const AttentionTile& tile, int64_t start, int64_t end) {
  ChunkGroups groups;
  for (int group = 0; group < kChunkGroups; ++group) {
    const int64_t position = start + group * kKvGroup;
    if (position >= end) {
      // Scores come kVecTile groups at a time; what an odd one adds is not looked at.
      groups.keys[group] = groups.keys[group - 1];
      groups.values[group] = groups.values[group - 1];
      continue;
    }
    const std::byte* head =
        tile.cache + tile.block_table[position / tile.block_size] * tile.block_bytes;
    const int64_t group_in_block = position % tile.block_size / kKvGroup;
    groups.keys[group] = head + group_in_block * tile.key_group_bytes;
    groups.values[group] = head + tile.values_offset + group_in_block * tile.value_group_bytes;
  }
  return groups;
}

/// Scores, probabilities and values of the chunk at `start`. kFetchAhead: with one block of rows
/// (decode) memory is what takes the time; with more, keys and values come from a cache and the
/// prefetches would only be in the way.
template <typename V, KvFormat kFormat, bool kFetchAhead>
inline void attend_chunk(TileWork<V>& work, int64_t start, float* result) {
  const int num_rows = work.tile.num_rows;
  auto score = [&]<int kRows>(int row) { score_rows<V, kFormat, kFetchAhead, kRows>(work, row); };
  for_row_blocks<V::kRowTile>(num_rows, score);
  softmax_chunk<V, kFormat>(work, start);
  auto add_values = [&]<int kRows>(int row) {
    constexpr int kVecs = V::kVecTile;
    int col = 0;
    for (; col + kVecs * 16 <= work.padded_head_dim; col += kVecs * 16) {
      value_columns<V, kFormat, kFetchAhead, kRows, kVecs>(work, row, col, result);
    }
    if constexpr (kVecs > 1) {
      if (col < work.padded_head_dim) {
        value_columns<V, kFormat, kFetchAhead, kRows, 1>(work, row, col, result);
      }
    }
  };
  for_row_blocks<V::kRowTile>(num_rows, add_values);
}

/// One split's partial result of every row of the tile.
template <typename V, KvFormat kFormat>
inline void attend_split(TileWork<V>& work, int64_t split, float* result) {
  const AttentionTile& tile = work.tile;
  const int num_rows = tile.num_rows;
  const int64_t end = work.positions[num_rows - 1] + 1;
  for (int row = 0; row < num_rows; ++row) {
    for (int col = 0; col < work.padded_head_dim; col += 16) {
      V::store(result + row * work.row_floats + col, V::zero());
    }
    V::store(work.sums + row * 16, V::zero());
  }
  V::store(work.maxima, V::set1(kLowestScore));

  const int64_t split_start = split * kAttentionSplit;
  for (int64_t start = split_start; start < split_start + kAttentionSplit && start < end;
       start += kAttentionChunk) {
    work.num_positions =
        static_cast<int>(end - start < kAttentionChunk ? end - start : kAttentionChunk);
    const int64_t next_start = start + kAttentionChunk;
    if (start == split_start) work.groups = find_groups<V>(tile, start, end);
    work.next = next_start < end ? find_groups<V>(tile, next_start, end) : work.groups;
    if (num_rows <= V::kRowTile) {
      attend_chunk<V, kFormat, /*kFetchAhead=*/true>(work, start, result);
    } else {
      attend_chunk<V, kFormat, /*kFetchAhead=*/false>(work, start, result);
    }
    work.groups = work.next;
  }
  for (int row = 0; row < num_rows; ++row) {
    float* totals = result + row * work.row_floats + work.padded_head_dim;
    V::store(totals, V::zero());
    totals[0] = V::reduce_add(V::load(work.sums + row * 16));
    totals[1] = work.maxima[row];
  }
}

/// total = total and part together, both relative to the larger of their maxima.
template <typename V>
inline void fold_row(float* total, const float* part, int padded_head_dim) {
  using F = typename V::F;
  float* total_sums = total + padded_head_dim;
  const float* part_sums = part + padded_head_dim;
  const float maximum = total_sums[1] > part_sums[1] ? total_sums[1] : part_sums[1];
  const Exp2Coarse<V> exp2;
  const F total_scale = exp2(V::set1(total_sums[1] - maximum));
  const F part_scale = exp2(V::set1(part_sums[1] - maximum));
  const auto fold = [&](const float* a, const float* b) {
    return V::fma(V::load(a), total_scale, V::mul(V::load(b), part_scale));
  };
  // The sums lie behind the values: the last step folds them, and the maximum is put right after.
  for (int col = 0; col <= padded_head_dim; col += 16) {
    V::store(total + col, fold(total + col, part + col));
  }
  total_sums[1] = maximum;
}

template <typename V>
inline void write_row(const AttentionTile& tile, int row, const float* total, int padded_head_dim) {
  using F = typename V::F;
  alignas(64) static constexpr std::byte kZeroPairs[64] = {};
  constexpr uint32_t kZeroPair = 0;
  const int64_t index = tile.first_row + row;
  uint16_t* out =
      tile.out + index / tile.group * tile.out_stride + index % tile.group * tile.head_dim;
  const F inverse = V::set1(1.0f / total[padded_head_dim]);
  for (int col = 0; col < tile.head_dim; col += 16) {
    // A row in a tile with later rows has had further products with zeros added, which can turn
    // a subnormal or -0 into 0: adding one more to every row makes them alike.
    F values =
        V::dot(V::load(total + col), V::broadcast_pair(&kZeroPair), V::load_pairs(kZeroPairs));
    values = V::add(V::mul(values, inverse), V::zero());
    V::store_bf16_first(out + col, values, tile.head_dim - col);
  }
}

template <typename V, KvFormat kFormat>
inline void attend_format(const AttentionTile& tile) {
  TileWork<V> work(tile);
  const int padded_head_dim = work.padded_head_dim;
  const int64_t row_floats = work.row_floats;
  const int num_pairs = tile.head_dim / 2;
  for (int row = 0; row < tile.num_rows;) {  // the heads of a token lie together
    const int64_t token = (tile.first_row + row) / tile.group;
    const int head = static_cast<int>((tile.first_row + row) % tile.group);
    const int left = tile.num_rows - row;
    const int count = tile.group - head < left ? tile.group - head : left;
    __builtin_memcpy(work.q + static_cast<int64_t>(row) * num_pairs,
                     tile.q + token * tile.q_stride + static_cast<int64_t>(head) * tile.head_dim,
                     count * tile.head_dim * sizeof(uint16_t));
    for (const int end = row + count; row < end; ++row) {
      work.positions[row] = tile.first_position + token;
    }
  }

  if (tile.partials != nullptr) {
    for (int64_t i = 0; i < tile.num_splits; ++i) {
      attend_split<V, kFormat>(work, tile.first_split + i,
                               tile.partials + i * tile.split_rows * row_floats);
    }
    return;
  }
  alignas(64) float total[kAttentionRows * partial_row_floats(kMaxHeadDim)];
  attend_split<V, kFormat>(work, tile.first_split, total);
  if (tile.num_splits > 1) {
    alignas(64) float part[kAttentionRows * partial_row_floats(kMaxHeadDim)];
    for (int64_t i = 1; i < tile.num_splits; ++i) {
      attend_split<V, kFormat>(work, tile.first_split + i, part);
      for (int row = 0; row < tile.num_rows; ++row) {
        fold_row<V>(total + row * row_floats, part + row * row_floats, padded_head_dim);
      }
    }
  }
  for (int row = 0; row < tile.num_rows; ++row) {
    write_row<V>(tile, row, total + row * row_floats, padded_head_dim);
  }
}

template <typename V>
void attend(const AttentionTile& tile) {
  if (tile.format == KvFormat::kInt8) {
    attend_format<V, KvFormat::kInt8>(tile);
  } else {
    attend_format<V, KvFormat::kNative>(tile);
  }
}

template <typename V>
void fold_splits(const AttentionTile& tile) {
  const int padded_head_dim = (tile.head_dim + 15) / 16 * 16;
  const int64_t row_floats = partial_row_floats(tile.head_dim);
  for (int row = 0; row < tile.num_rows; ++row) {
    float* total = tile.partials + row * row_floats;  // of split 0, folded into
    for (int64_t i = 1; i < tile.num_splits; ++i) {
      fold_row<V>(total, total + i * tile.split_rows * row_floats, padded_head_dim);
    }
    write_row<V>(tile, row, total, padded_head_dim);
  }
}

}  // namespace augur::cpu
