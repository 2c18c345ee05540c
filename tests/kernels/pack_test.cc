#include "kernels/cpu/pack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/cpu/tile_layout.h"

namespace augur::cpu {
namespace {

class PackTest : public ::testing::TestWithParam<std::pair<int64_t, int64_t>> {};

// Every value is its own number, so that one in the wrong place shows.
std::vector<Bf16> numbered(int64_t count) {
  std::vector<Bf16> values(count);
  for (int64_t i = 0; i < count; ++i) values[i].bits = static_cast<uint16_t>(i + 1);
  return values;
}

TEST_P(PackTest, PutsEachValueWhereTheLayoutSaysAndLeavesPaddingZero) {
  const auto [num_rows, num_cols] = GetParam();
  const std::vector<Bf16> matrix = numbered(num_rows * num_cols);
  std::vector<Bf16> packed(tiled_bytes(num_rows, num_cols) / 2);
  auto* const to = reinterpret_cast<std::byte*>(packed.data());
  pack_rows_tiled(to, num_rows, num_cols, 0, num_rows, matrix.data());
  for (int64_t row = 0; row < num_row_tiles(num_rows) * kTileRows; ++row) {
    for (int64_t col = 0; col < num_col_tiles(num_cols) * kTileCols; ++col) {
      const uint16_t expected =
          row < num_rows && col < num_cols ? matrix[row * num_cols + col].bits : 0;
      ASSERT_EQ(packed[tiled_pair_offset(num_cols, row, col) / 2 + col % 2].bits, expected)
          << row << ", " << col;
    }
  }
}

TEST_P(PackTest, PackingInPiecesGivesTheSame) {
  const auto [num_rows, num_cols] = GetParam();
  const std::vector<Bf16> matrix = numbered(num_rows * num_cols);
  std::vector<std::byte> whole(tiled_bytes(num_rows, num_cols));
  std::vector<std::byte> pieces(whole.size());
  pack_rows_tiled(whole.data(), num_rows, num_cols, 0, num_rows, matrix.data());
  for (int64_t first = 0, count = 1; first < num_rows; first += count, count += 3) {
    count = std::min(count, num_rows - first);
    pack_rows_tiled(pieces.data(), num_rows, num_cols, first, count,
                    matrix.data() + first * num_cols);
  }
  EXPECT_EQ(whole, pieces);
}

TEST_P(PackTest, ReadsFromAnyAlignment) {
  const auto [num_rows, num_cols] = GetParam();
  const std::vector<Bf16> matrix = numbered(num_rows * num_cols);
  std::vector<std::byte> shifted(matrix.size() * 2 + 1);
  const auto* bytes = reinterpret_cast<const std::byte*>(matrix.data());
  std::copy(bytes, bytes + matrix.size() * 2, shifted.begin() + 1);
  std::vector<std::byte> expected(tiled_bytes(num_rows, num_cols));
  std::vector<std::byte> packed(expected.size());
  pack_rows_tiled(expected.data(), num_rows, num_cols, 0, num_rows, matrix.data());
  pack_rows_tiled(packed.data(), num_rows, num_cols, 0, num_rows,
                  reinterpret_cast<const Bf16*>(shifted.data() + 1));
  EXPECT_EQ(packed, expected);
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         PackTest,
                         ::testing::Values(std::pair{0, 8},
                                           std::pair{1, 1},
                                           std::pair{16, 32},
                                           std::pair{17, 33},
                                           std::pair{40, 31},
                                           std::pair{35, 100}));

TEST(Pack, RefusesRowsOutsideTheMatrix) {
  std::vector<std::byte> packed(tiled_bytes(4, 4));
  const std::vector<Bf16> rows = numbered(16);
  EXPECT_THROW(pack_rows_tiled(packed.data(), 4, 4, 2, 3, rows.data()), std::logic_error);
  EXPECT_THROW(pack_rows_tiled(packed.data(), 4, 4, -1, 1, rows.data()), std::logic_error);
  EXPECT_THROW(pack_rows_tiled(packed.data(), 4, 4, 5, 0, rows.data()), std::logic_error);
}

// Files of packed weights are known by the layout's name: one that moves a value needs another.
TEST(LayoutName, StandsForThesePlaces) {
  ASSERT_STREQ(kLayoutName, "cpu-tiles-16x32-pairs");
  EXPECT_EQ(tiled_bytes(17, 33), 4096);
  const std::vector<Bf16> matrix = numbered(17 * 33);
  std::vector<Bf16> packed(2048);
  pack_rows_tiled(reinterpret_cast<std::byte*>(packed.data()), 17, 33, 0, 17, matrix.data());
  EXPECT_EQ(packed[0].bits, 1);                    // (0, 0)
  EXPECT_EQ(packed[1].bits, 2);                    // (0, 1)
  EXPECT_EQ(packed[2].bits, 33 + 1);               // (1, 0)
  EXPECT_EQ(packed[32].bits, 3);                   // (0, 2)
  EXPECT_EQ(packed[512].bits, 33);                 // (0, 32)
  EXPECT_EQ(packed[1024].bits, 16 * 33 + 1);       // (16, 0)
  EXPECT_EQ(packed[1024 + 32].bits, 16 * 33 + 3);  // (16, 2)
}

}  // namespace
}  // namespace augur::cpu
