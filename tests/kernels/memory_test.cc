#include "kernels/cpu/memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/ops.h"

namespace augur::cpu {
namespace {

class AllocateHostTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(AllocateHostTest, GivesZeroedWritableAlignedBytes) {
  const int64_t num_bytes = GetParam();
  // Twice, so that a block just freed with other contents may come back.
  for (int round = 0; round < 2; ++round) {
    Buffer buffer = allocate_host(num_bytes);
    ASSERT_EQ(buffer.num_bytes(), num_bytes);
    const int64_t alignment = num_bytes >= (2 << 20) ? 2 << 20 : 64;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % alignment, 0u);
    std::byte* const end = buffer.data() + num_bytes;
    EXPECT_TRUE(std::all_of(buffer.data(), end, [](std::byte b) { return b == std::byte{0}; }));
    std::fill(buffer.data(), end, std::byte{0x5a});
    const Buffer moved = std::move(buffer);
    EXPECT_EQ(moved.data()[num_bytes - 1], std::byte{0x5a});
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes,
                         AllocateHostTest,
                         ::testing::Values(1, 63, 64, 4097, (2 << 20) - 1, 2 << 20, (5 << 20) + 3));

TEST(AllocateHost, ZeroBytesMakeAnEmptyBuffer) {
  const Buffer buffer = allocate_host(0);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.num_bytes(), 0);
}

TEST(AllocateHost, SaysHowManyBytesWereAskedForWhenThereIsNoMemory) {
  for (int64_t num_bytes : {int64_t{1} << 60, std::numeric_limits<int64_t>::max()}) {
    try {
      allocate_host(num_bytes);
      FAIL() << "allocated " << num_bytes << " bytes";
    } catch (const OutOfMemory& error) {
      EXPECT_NE(std::string(error.what()).find(std::to_string(num_bytes)), std::string::npos);
    }
  }
}

TEST(AllocateHost, RefusesANegativeSize) {
  EXPECT_THROW(allocate_host(-1), std::logic_error);
}

}  // namespace
}  // namespace augur::cpu
