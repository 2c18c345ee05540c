// Random work against a model of what may happen, with reads that end late, out of order, or fail.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <map>
#include <random>

#include "prefetch/loader.h"
#include "prefetch/packed_writer.h"
#include "tests/prefetch/expert_files.h"
#include "tests/prefetch/faulty_reader.h"
#include "tests/prefetch/test_slots.h"

namespace augur {
namespace {

constexpr int kNumSlots = 12;
constexpr int kNumOperations = 4000;

class LoaderStressTest : public ::testing::TestWithParam<bool> {
 protected:
  void run(LoaderOptions options, bool may_fail);

  ExpertFiles experts_{96, 40};
};

// Every fetch ends once, with the key it was started with; what is done holds that expert's bytes.
void LoaderStressTest::run(LoaderOptions options, bool may_fail) {
  const bool is_packed = GetParam();
  write_packed_file(experts_.folder / "packed", *experts_.store, *experts_.ops, {});
  const PackedFile packed(experts_.folder / "packed");
  const ExpertStore packed_store(packed);
  std::map<ExpertKey, std::vector<std::byte>> blocks;
  const std::vector<ExpertKey> keys = experts_.keys();
  for (const ExpertKey key : keys) blocks[key] = experts_.block(key);

  const TestSlots slots(kNumSlots, experts_.layout.block_bytes, true);
  options.num_workers = 3;
  options.max_chunk_bytes = 4096;
  Loader loader(is_packed ? packed_store : *experts_.store, *experts_.ops, slots.memory(), options);
  std::mt19937 generator(11);
  const auto below = [&](int n) {
    return static_cast<int>(generator() % static_cast<unsigned>(n));
  };
  std::map<int, ExpertKey> under_way;  // by slot
  std::array<int64_t, 3> outcomes = {};
  int64_t read_bytes = 0;
  const auto take = [&](bool wait) {
    for (const FetchEnd& end : loader.take_ended(wait)) {
      const auto started = under_way.find(end.slot);
      ASSERT_NE(started, under_way.end()) << end.slot;
      ASSERT_EQ(started->second, end.key);
      under_way.erase(started);
      ++outcomes[static_cast<size_t>(end.outcome)];
      read_bytes += end.read_bytes;
      ASSERT_EQ(end.error.empty(), end.outcome != FetchOutcome::kFailed);
      if (end.outcome == FetchOutcome::kDone) {
        ASSERT_EQ(slots.block(end.slot, experts_.layout.block_bytes), blocks[end.key]);
      }
    }
  };
  for (int i = 0; i < kNumOperations; ++i) {
    const int slot = below(kNumSlots);
    switch (below(8)) {
      case 0:
        loader.raise(slot, static_cast<FetchPriority>(below(4)));
        break;
      case 1:
        loader.cancel(slot);
        break;
      case 2:
        take(/*wait=*/!under_way.empty() && below(4) == 0);
        break;
      default:
        if (under_way.contains(slot)) break;
        under_way[slot] = keys[below(std::ssize(keys))];
        loader.start(under_way[slot], slot, static_cast<FetchPriority>(below(4)));
    }
    if (HasFatalFailure()) return;
  }
  while (!under_way.empty() && !HasFatalFailure()) take(/*wait=*/true);

  const LoaderCounters counters = loader.counters();
  EXPECT_EQ(counters.num_done, outcomes[0]);
  EXPECT_EQ(counters.num_cancelled, outcomes[1]);
  EXPECT_EQ(counters.num_failed, outcomes[2]);
  EXPECT_EQ(counters.num_started, outcomes[0] + outcomes[1] + outcomes[2]);
  EXPECT_EQ(counters.queued_bytes, (std::array<int64_t, kNumFetchPriorities>{}));
  int64_t counted_bytes = 0;
  for (const int64_t bytes : counters.read_bytes) counted_bytes += bytes;
  EXPECT_EQ(counted_bytes, read_bytes);
  EXPECT_FALSE(loader.has_demand());
  EXPECT_GT(outcomes[0], 0);
  EXPECT_GT(outcomes[1], 0);
  EXPECT_EQ(outcomes[2] > 0, may_fail);
}

TEST_P(LoaderStressTest, KeepsItsPromisesOnTheSystemsReader) {
  run({}, /*may_fail=*/false);
}

TEST_P(LoaderStressTest, KeepsItsPromisesWithPread) {
  run({.method = ReadMethod::kPread}, /*may_fail=*/false);
}

TEST_P(LoaderStressTest, KeepsItsPromisesWhenReadsAreLateShortAndFail) {
  auto num_reads = std::make_shared<std::atomic<uint32_t>>(0);
  LoaderOptions options;
  options.make_reader = [num_reads](int max_reads) {
    return std::make_unique<FaultyReader>(max_reads, [num_reads](const BlockRead& read) {
      const uint32_t random = num_reads->fetch_add(1) * 2654435761u >> 16;
      ReadFault fault;
      fault.delay_us = random % 7 == 0 ? random % 300 : 0;
      if (random % 61 == 0) fault.result = -EIO;
      if (random % 61 == 1) fault.result = read.num_bytes / 3;
      return fault;
    });
  };
  run(options, /*may_fail=*/true);
}

TEST_P(LoaderStressTest, EndsAtAnyMoment) {
  const TestSlots slots(kNumSlots, experts_.layout.block_bytes, true);
  std::mt19937 generator(3);
  for (int round = 0; round < 60; ++round) {
    LoaderOptions options;
    options.method = GetParam() ? ReadMethod::kPread : ReadMethod::kAuto;
    options.max_chunk_bytes = 4096;
    Loader loader(*experts_.store, *experts_.ops, slots.memory(), options);
    const int num_fetches = static_cast<int>(generator() % kNumSlots);
    for (int slot = 0; slot < num_fetches; ++slot) {
      loader.start({1 + slot % 3, slot % 6}, slot, static_cast<FetchPriority>(generator() % 4));
    }
    if (num_fetches > 0 && round % 2 == 0) loader.take_ended(/*wait=*/true);
  }
}

INSTANTIATE_TEST_SUITE_P(Both, LoaderStressTest, ::testing::Bool(), [](const auto& info) {
  return info.param ? "Packed" : "Checkpoint";
});

}  // namespace
}  // namespace augur
