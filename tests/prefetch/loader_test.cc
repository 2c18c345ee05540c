#include "prefetch/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <tuple>

#include "configs/config_error.h"
#include "prefetch/packed_writer.h"
#include "tests/prefetch/expert_files.h"
#include "tests/prefetch/faulty_reader.h"
#include "tests/prefetch/test_slots.h"

namespace augur {
namespace {

using enum FetchPriority;
using ::testing::HasSubstr;

// Waits for `count` fetches to end.
std::vector<FetchEnd> wait_for(Loader& loader, size_t count) {
  std::vector<FetchEnd> all;
  while (all.size() < count) {
    const std::span<const FetchEnd> ended = loader.take_ended(/*wait=*/true);
    all.insert(all.end(), ended.begin(), ended.end());
  }
  return all;
}

struct Case {
  int64_t hidden_size;  // of 96 x 40 no block, of 128 x 64 every block is a multiple of 4096 bytes
  int64_t intermediate_size;
  bool is_packed;
  ReadMethod method;
  bool direct_io;
  bool has_aligned_slots;
};

class LoaderEqualityTest : public ::testing::TestWithParam<Case> {};

TEST_P(LoaderEqualityTest, BringsWhatTheStoreReads) {
  const Case param = GetParam();
  const ExpertFiles experts(param.hidden_size, param.intermediate_size);
  const std::vector<ExpertKey> keys = experts.keys();
  write_packed_file(experts.folder / "packed", *experts.store, *experts.ops, {});
  const PackedFile packed(experts.folder / "packed");
  const ExpertStore packed_store(packed);
  const ExpertStore& store = param.is_packed ? packed_store : *experts.store;

  const TestSlots slots(static_cast<int>(keys.size()), experts.layout.block_bytes,
                        param.has_aligned_slots);
  LoaderOptions options;
  options.max_chunk_bytes = 8192;
  options.method = param.method;
  options.direct_io = param.direct_io;
  std::unique_ptr<Loader> loader;
  try {
    loader = std::make_unique<Loader>(store, *experts.ops, slots.memory(), options);
  } catch (const ConfigError& error) {
    GTEST_SKIP() << error.what();
  }
  // Twice, so that a slot that held another expert is filled too.
  for (int round = 0; round < 2; ++round) {
    const auto key_of = [&](int slot) { return keys[(slot + round * 5) % keys.size()]; };
    for (int slot = 0; slot < std::ssize(keys); ++slot) {
      loader->start(key_of(slot), slot, static_cast<FetchPriority>(slot % kNumFetchPriorities));
    }
    for (const FetchEnd& end : wait_for(*loader, keys.size())) {
      EXPECT_EQ(end.outcome, FetchOutcome::kDone) << end.error;
      EXPECT_EQ(end.key, key_of(end.slot));
      EXPECT_EQ(end.read_bytes, store.stored_bytes(end.key));
      EXPECT_EQ(slots.block(end.slot, experts.layout.block_bytes), experts.block(end.key))
          << describe(end.key);
    }
  }
  EXPECT_EQ(loader->counters().num_done, 2 * std::ssize(keys));
  EXPECT_FALSE(loader->has_demand());
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto& [hidden, intermediate] : {std::pair(96, 40), std::pair(128, 64)}) {
    for (const bool is_packed : {false, true}) {
      for (const ReadMethod method : {ReadMethod::kIoUring, ReadMethod::kPread}) {
        for (const bool direct_io : {false, true}) {
          for (const bool has_aligned_slots : {false, true}) {
            cases.push_back(
                {hidden, intermediate, is_packed, method, direct_io, has_aligned_slots});
          }
        }
      }
    }
  }
  return cases;
}

std::string name_of(const Case& param) {
  return std::string(param.is_packed ? "Packed" : "Checkpoint") +
         std::to_string(param.hidden_size) +
         (param.method == ReadMethod::kIoUring ? "IoUring" : "Pread") +
         (param.direct_io ? "Direct" : "Buffered") +
         (param.has_aligned_slots ? "AlignedSlots" : "OddSlots");
}

INSTANTIATE_TEST_SUITE_P(All,
                         LoaderEqualityTest,
                         ::testing::ValuesIn(all_cases()),
                         [](const auto& info) { return name_of(info.param); });

// One worker whose reads end when the test lets them; it records which fetches' reads began.
class LoaderOrderTest : public ::testing::Test {
 protected:
  LoaderOrderTest() {
    options_.num_workers = 1;
    options_.num_reads = 4;
    options_.max_prefetch_reads = 2;
    options_.max_chunk_bytes = 4096;
    options_.direct_io = false;
    options_.make_reader = [this](int max_reads) {
      return std::make_unique<FaultyReader>(max_reads, [this](const BlockRead& read) {
        const std::lock_guard lock(mutex_);
        begun_.push_back(read.offset);
        return ReadFault{.may_end = [this] { return num_allowed_.fetch_sub(1) > 0; }};
      });
    };
    loader_ = std::make_unique<Loader>(*experts_.store, *experts_.ops, slots_.memory(), options_);
  }
  ~LoaderOrderTest() override { num_allowed_ = 1 << 20; }

  size_t num_begun() {
    const std::lock_guard lock(mutex_);
    return begun_.size();
  }
  void wait_for_begun(size_t count) {
    while (num_begun() < count) std::this_thread::yield();
  }
  // The experts (of layer 1) whose chunks the reads belong to.
  std::vector<int> experts_begun() {
    const std::lock_guard lock(mutex_);
    std::vector<int> experts;
    for (const int64_t offset : begun_) {
      for (int expert = 0; expert < ExpertFiles::kNumExperts; ++expert) {
        for (int i = 0; i < num_chunks_; ++i) {
          if (experts_.store->chunk({1, expert}, i, 4096).offset == offset) {
            experts.push_back(expert);
          }
        }
      }
    }
    return experts;
  }

  ExpertFiles experts_{96, 40};
  const int num_chunks_ = experts_.store->num_chunks({1, 0}, 4096);
  TestSlots slots_{8, experts_.layout.block_bytes, true};
  LoaderOptions options_;
  std::mutex mutex_;
  std::vector<int64_t> begun_;
  std::atomic<int> num_allowed_{0};  // reads that may end
  std::unique_ptr<Loader> loader_;
};

TEST_F(LoaderOrderTest, DemandBeginsThoughReadsOfPrefetchHang) {
  loader_->start({1, 0}, 0, kLaterLayers);
  wait_for_begun(2);
  EXPECT_FALSE(loader_->has_demand());
  loader_->start({1, 1}, 1, kDemand);
  EXPECT_TRUE(loader_->has_demand());
  wait_for_begun(4);
  EXPECT_EQ(experts_begun(), (std::vector<int>{0, 0, 1, 1}));
}

TEST_F(LoaderOrderTest, NothingElseBeginsUntilDemandIsThere) {
  loader_->start({1, 0}, 0, kBackground);
  loader_->start({1, 2}, 2, kNextLayer);
  loader_->start({1, 1}, 1, kDemand);
  num_allowed_ = 1 << 20;
  wait_for(*loader_, 3);
  const std::vector<int> begun = experts_begun();
  const auto first = std::find(begun.begin(), begun.end(), 1);
  ASSERT_NE(first, begun.end());
  EXPECT_EQ(std::vector<int>(first, first + num_chunks_), std::vector<int>(num_chunks_, 1));
  for (const auto& [slot, expert] : {std::pair(0, 0), std::pair(2, 2), std::pair(1, 1)}) {
    EXPECT_EQ(slots_.block(slot, experts_.layout.block_bytes), experts_.block({1, expert}));
  }
}

TEST_F(LoaderOrderTest, ARaisedFetchOvertakes) {
  loader_->start({1, 0}, 0, kNextLayer);
  loader_->start({1, 1}, 1, kBackground);
  wait_for_begun(2);
  loader_->raise(1, kDemand);
  wait_for_begun(4);
  EXPECT_EQ(experts_begun(), (std::vector<int>{0, 0, 1, 1}));
  num_allowed_ = 1 << 20;
  EXPECT_EQ(wait_for(*loader_, 2).front().slot, 1);
  EXPECT_EQ(loader_->counters().num_demand_waits, 1);
}

TEST_F(LoaderOrderTest, ACancelledFetchEndsWithTheReadsThatBegan) {
  loader_->start({1, 0}, 0, kNextLayer);
  loader_->start({1, 1}, 1, kNextLayer);
  wait_for_begun(2);
  loader_->cancel(0);
  loader_->cancel(1);
  EXPECT_EQ(wait_for(*loader_, 1).front().slot, 1) << "it had not begun";
  EXPECT_TRUE(loader_->take_ended(/*wait=*/false).empty()) << "reads may still write to the slot";
  num_allowed_ = 2;
  const FetchEnd end = wait_for(*loader_, 1).front();
  EXPECT_EQ(end.slot, 0);
  EXPECT_EQ(end.outcome, FetchOutcome::kCancelled);
  EXPECT_GT(end.read_bytes, 0);
  EXPECT_EQ(num_begun(), 2u);
}

TEST_F(LoaderOrderTest, TheDestructorGivesUpWhatIsUnderWay) {
  for (int slot = 0; slot < 6; ++slot) {
    loader_->start({1, slot}, slot, static_cast<FetchPriority>(slot % 4));
  }
  wait_for_begun(4);
  num_allowed_ = 4;  // those that the device has must end; no other begins
  loader_.reset();
  EXPECT_EQ(num_begun(), 4u);
}

TEST_F(LoaderOrderTest, TheSameExpertGoesIntoTwoSlots) {
  num_allowed_ = 1 << 20;
  loader_->start({2, 1}, 0, kDemand);
  loader_->start({2, 1}, 3, kBackground);
  wait_for(*loader_, 2);
  EXPECT_EQ(slots_.block(0, experts_.layout.block_bytes), experts_.block({2, 1}));
  EXPECT_EQ(slots_.block(3, experts_.layout.block_bytes), experts_.block({2, 1}));
}

TEST_F(LoaderOrderTest, WaitingRequiresAFetch) {
  EXPECT_THROW(loader_->take_ended(/*wait=*/true), std::logic_error);
  EXPECT_TRUE(loader_->take_ended(/*wait=*/false).empty());
}

TEST_F(LoaderOrderTest, RequiresSlotsThatHoldABlock) {
  SlotMemory small = slots_.memory();
  small.stride_bytes = experts_.layout.block_bytes - 64;
  EXPECT_THROW(Loader(*experts_.store, *experts_.ops, small, options_), std::logic_error);
}

TEST(LoaderTest, SaysWhatItCameTo) {
  const ExpertFiles experts(96, 40);
  const TestSlots slots(1, experts.layout.block_bytes, true);
  LoaderOptions options;
  options.num_workers = 1;
  options.method = ReadMethod::kPread;
  options.direct_io = false;
  const Loader loader(*experts.store, *experts.ops, slots.memory(), options);
  EXPECT_THAT(loader.description(), HasSubstr("1 worker, 4 reads of"));
  EXPECT_THAT(loader.description(), HasSubstr("pread, through the page cache"));
}

}  // namespace
}  // namespace augur
