#include "prefetch/expert_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "configs/config_error.h"
#include "tests/prefetch/row_major_ops.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

constexpr int64_t kHidden = 96;
constexpr int64_t kIntermediate = 40;
constexpr int64_t kMatrixValues = kHidden * kIntermediate;
constexpr int kNumExperts = 5;

// Two files: layer 1's experts as bf16 in the first, layer 2's as float32 in the second. The
// values of a matrix count up from a number of its own.
class ExpertStoreTest : public ::testing::Test {
 protected:
  ExpertStoreTest() {
    std::string narrow = "head";
    std::string wide;
    std::vector<std::vector<ExpertSource>> sources(3);
    for (int layer = 1; layer <= 2; ++layer) {
      std::string& bytes = layer == 1 ? narrow : wide;
      for (int expert = 0; expert < kNumExperts; ++expert) {
        ExpertSource& source = sources[layer].emplace_back();
        for (int matrix = 0; matrix < 3; ++matrix) {
          TensorSource& place = matrix == 0 ? source.gate : matrix == 1 ? source.up : source.down;
          place = {layer - 1, layer == 1 ? WeightFormat::kBF16 : WeightFormat::kF32,
                   static_cast<int64_t>(bytes.size()), matrix == 2 ? kHidden : kIntermediate,
                   matrix == 2 ? kIntermediate : kHidden};
          append_values(layer, expert, matrix, bytes);
        }
      }
    }
    files_.emplace_back(folder_.write("narrow", narrow));
    files_.emplace_back(folder_.write("wide", wide));
    store_ = std::make_unique<ExpertStore>(files_, layout_, std::move(sources));
  }

  static uint16_t value(int layer, int expert, int matrix, int64_t i) {
    return static_cast<uint16_t>(layer * 20'011 + expert * 3'001 + matrix * 701 + i);
  }
  static void append_values(int layer, int expert, int matrix, std::string& bytes) {
    for (int64_t i = 0; i < kMatrixValues; ++i) {
      const uint16_t bits = value(layer, expert, matrix, i);
      if (layer == 2) bytes.append(2, '\0');  // the lower half of a float32
      bytes += static_cast<char>(bits & 0xff);
      bytes += static_cast<char>(bits >> 8);
    }
  }
  void expect_block(ExpertKey key, const std::vector<std::byte>& block) const {
    const int64_t offsets[] = {0, layout_.up_offset, layout_.down_offset};
    for (int matrix = 0; matrix < 3; ++matrix) {
      const auto* values = reinterpret_cast<const uint16_t*>(block.data() + offsets[matrix]);
      for (int64_t i = 0; i < kMatrixValues; ++i) {
        ASSERT_EQ(values[i], value(key.layer, key.expert, matrix, i))
            << "layer " << key.layer << " expert " << key.expert << " matrix " << matrix;
      }
    }
  }

  TempFolder folder_;
  RowMajorOps ops_;
  ExpertLayout layout_ = expert_layout(ops_, kHidden, kIntermediate);
  std::vector<File> files_;
  std::unique_ptr<ExpertStore> store_;
};

TEST_F(ExpertStoreTest, ReadsEveryExpertIntoItsBlock) {
  ExpertStore::Scratch scratch;
  std::vector<std::byte> block(layout_.block_bytes);
  for (int layer = 1; layer <= 2; ++layer) {
    for (int expert = 0; expert < kNumExperts; ++expert) {
      store_->read({layer, expert}, ops_, block.data(), scratch);
      expect_block({layer, expert}, block);
    }
  }
}

TEST_F(ExpertStoreTest, KnowsWhatItHolds) {
  EXPECT_EQ(store_->num_layers(), 3);
  EXPECT_EQ(store_->num_experts(0), 0);
  EXPECT_EQ(store_->num_experts(1), kNumExperts);
  EXPECT_TRUE(store_->has({2, 4}));
  EXPECT_FALSE(store_->has({2, 5}));
  EXPECT_FALSE(store_->has({0, 0}));
  EXPECT_FALSE(store_->has({3, 0}));
  EXPECT_FALSE(store_->has({-1, 0}));
  EXPECT_EQ(store_->stored_bytes({1, 0}), 3 * kMatrixValues * 2);
  EXPECT_EQ(store_->stored_bytes({2, 0}), 3 * kMatrixValues * 4);
}

TEST_F(ExpertStoreTest, RequiresAnExpertThatExists) {
  ExpertStore::Scratch scratch;
  std::vector<std::byte> block(layout_.block_bytes);
  EXPECT_THROW(store_->read({0, 0}, ops_, block.data(), scratch), std::logic_error);
  EXPECT_THROW(store_->read({1, kNumExperts}, ops_, block.data(), scratch), std::logic_error);
}

TEST_F(ExpertStoreTest, ReadsDifferentExpertsFromSeveralThreads) {
  std::vector<std::vector<std::byte>> blocks(kNumExperts,
                                             std::vector<std::byte>(layout_.block_bytes));
  {
    std::vector<std::jthread> threads;
    for (int expert = 0; expert < kNumExperts; ++expert) {
      threads.emplace_back([&, expert] {
        ExpertStore::Scratch scratch;
        for (int i = 0; i < 20; ++i) {
          store_->read({1 + i % 2, expert}, ops_, blocks[expert].data(), scratch);
        }
      });
    }
  }
  for (int expert = 0; expert < kNumExperts; ++expert) expect_block({2, expert}, blocks[expert]);
}

TEST_F(ExpertStoreTest, AShrunkenFileIsAnError) {
  std::filesystem::resize_file(folder_ / "wide", 1000);
  ExpertStore::Scratch scratch;
  std::vector<std::byte> block(layout_.block_bytes);
  EXPECT_THAT(message_of<ConfigError>([&] {
                store_->read({2, 3}, ops_, block.data(), scratch);
              }),
              ::testing::HasSubstr("wide: ends at offset"));
  store_->read({1, 3}, ops_, block.data(), scratch);
  expect_block({1, 3}, block);
}

TEST_F(ExpertStoreTest, RequiresSourcesOfTheLayoutsShape) {
  const TensorSource gate = {0, WeightFormat::kBF16, 0, kIntermediate, kHidden};
  const TensorSource down = {0, WeightFormat::kBF16, 0, kHidden, kIntermediate};
  const TensorSource absent;
  EXPECT_THROW(ExpertStore(files_, layout_, {{{gate, down, down}}}), std::logic_error);
  EXPECT_THROW(ExpertStore(files_, layout_, {{{gate, gate, absent}}}), std::logic_error);
}

}  // namespace
}  // namespace augur
