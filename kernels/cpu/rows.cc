#include "kernels/cpu/rows.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/cpu/tile_layout.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

// Rows of one chunk: a few microseconds of work, so that decode steps stay on one thread.
constexpr int64_t kRowsPerChunk = 16;

template <typename Task>
void for_rows(WorkerPool& pool, int64_t num_rows, const Task& task) {
  pool.parallel_for((num_rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](int64_t chunk_idx, int) {
    const int64_t first = chunk_idx * kRowsPerChunk;
    const int64_t end = std::min(num_rows, first + kRowsPerChunk);
    for (int64_t row = first; row < end; ++row) task(row);
  });
}

}  // namespace

void embed(const EmbedArgs& args, WorkerPool& pool) {
  const PackedMatrix& table = args.table;
  const int64_t num_cols = table.num_cols;
  AUGUR_REQUIRE(args.out.dtype == DType::kF32 && args.out.num_cols == num_cols,
                "out must be f32 and " + std::to_string(num_cols) + " wide");
  for (int64_t i = 0; i < args.out.num_rows; ++i) {
    AUGUR_REQUIRE(args.token_of(i) >= 0 && args.token_of(i) < table.num_rows,
                  "token id " + std::to_string(args.token_of(i)) + " in a vocabulary of " +
                      std::to_string(table.num_rows));
  }
  for_rows(pool, args.out.num_rows, [&](int64_t i) {
    float* const out = args.out.row<float>(i);
    // Tiles of a panel follow each other, so the pairs of a row are 64 bytes apart throughout.
    const std::byte* pair = table.data + tiled_pair_offset(num_cols, args.token_of(i), 0);
    int64_t col = 0;
    for (; col + 2 <= num_cols; col += 2, pair += 64) {
      Bf16 values[2];
      std::memcpy(values, pair, sizeof(values));
      out[col] = to_float(values[0]);
      out[col + 1] = to_float(values[1]);
    }
    if (col < num_cols) {
      Bf16 value;
      std::memcpy(&value, pair, sizeof(value));
      out[col] = to_float(value);
    }
  });
}

void gather_rows(const GatherRowsArgs& args, WorkerPool& pool) {
  AUGUR_REQUIRE(args.out.dtype == args.x.dtype && args.out.num_cols == args.x.num_cols,
                "out must have the type and width of x");
  for (int64_t i = 0; i < args.out.num_rows; ++i) {
    AUGUR_REQUIRE(args.rows[i] >= 0 && args.rows[i] < args.x.num_rows,
                  "row " + std::to_string(args.rows[i]) + " of " + std::to_string(args.x.num_rows));
  }
  const int64_t element_bytes = dtype_bytes(args.x.dtype);
  const auto* const from = static_cast<const std::byte*>(args.x.data);
  auto* const to = static_cast<std::byte*>(args.out.data);
  for_rows(pool, args.out.num_rows, [&](int64_t i) {
    std::memcpy(to + i * args.out.row_stride * element_bytes,
                from + args.rows[i] * args.x.row_stride * element_bytes,
                args.x.num_cols * element_bytes);
  });
}

}  // namespace augur::cpu
