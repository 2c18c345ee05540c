#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "prefetch/loader.h"
#include "prefetch/packed_writer.h"
#include "tests/prefetch/expert_files.h"
#include "tests/prefetch/faulty_reader.h"
#include "tests/prefetch/row_major_ops.h"
#include "tests/prefetch/test_slots.h"

namespace augur {
namespace {

using enum FetchPriority;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Both kinds of store over the same experts.
class LoaderFaults : public ::testing::Test {
 protected:
  LoaderFaults() {
    write_packed_file(experts_.folder / "packed", *experts_.store, *experts_.ops, {});
    packed_ = std::make_unique<PackedFile>(experts_.folder / "packed");
    packed_store_ = std::make_unique<ExpertStore>(*packed_);
    options_.max_chunk_bytes = 4096;
  }
  FetchEnd fetch(Loader& loader, ExpertKey key) {
    loader.start(key, 0, kDemand);
    return loader.take_ended(/*wait=*/true).front();
  }
  void expect_loads(Loader& loader, ExpertKey key) {
    const FetchEnd end = fetch(loader, key);
    EXPECT_EQ(end.outcome, FetchOutcome::kDone) << end.error;
    EXPECT_EQ(slots_.block(0, experts_.layout.block_bytes), experts_.block(key));
  }
  ExpertFiles experts_{128, 64};
  std::unique_ptr<PackedFile> packed_;
  std::unique_ptr<ExpertStore> packed_store_;
  TestSlots slots_{4, experts_.layout.block_bytes, true};
  LoaderOptions options_;
};

class LoaderFaultTest : public LoaderFaults, public ::testing::WithParamInterface<bool> {
 protected:
  bool is_packed() const { return GetParam(); }
  const ExpertStore& store() const { return is_packed() ? *packed_store_ : *experts_.store; }
  // A loader whose reads of the last chunk of expert 3 of layer 2 give `result`.
  std::unique_ptr<Loader> faulty_loader(int64_t result) {
    const int num_chunks = store().num_chunks({2, 3}, options_.max_chunk_bytes);
    const ExpertChunk chunk = store().chunk({2, 3}, num_chunks - 1, options_.max_chunk_bytes);
    const auto* path = &store().files()[chunk.file_idx].path();
    options_.direct_io = false;
    options_.make_reader = [=](int max_reads) {
      return std::make_unique<FaultyReader>(max_reads, [=](const BlockRead& read) {
        ReadFault fault;
        if (read.path == path && read.offset == chunk.offset) fault.result = result;
        return fault;
      });
    };
    return std::make_unique<Loader>(store(), *experts_.ops, slots_.memory(), options_);
  }
};

TEST_P(LoaderFaultTest, AnErrorOfTheDeviceEndsThatFetchAlone) {
  const std::unique_ptr<Loader> loader = faulty_loader(-EIO);
  const FetchEnd end = fetch(*loader, {2, 3});
  EXPECT_EQ(end.outcome, FetchOutcome::kFailed);
  EXPECT_THAT(end.error,
              AllOf(HasSubstr(is_packed() ? "packed: " : "layer2: "), HasSubstr("at offset "),
                    HasSubstr("expert 3 of layer 2"), HasSubstr("Input/output error")));
  expect_loads(*loader, {2, 2});
  expect_loads(*loader, {1, 3});
  EXPECT_EQ(loader->counters().num_failed, 1);
}

TEST_P(LoaderFaultTest, AShortReadIsAFailure) {
  const std::unique_ptr<Loader> loader = faulty_loader(100);
  const FetchEnd end = fetch(*loader, {2, 3});
  EXPECT_EQ(end.outcome, FetchOutcome::kFailed);
  EXPECT_THAT(end.error, AllOf(HasSubstr("expert 3 of layer 2"), HasSubstr("ended after 100"),
                               HasSubstr("truncated")));
  expect_loads(*loader, {2, 2});
}

TEST_P(LoaderFaultTest, ACutFileFailsTheFetchesBeyondTheCut) {
  for (const bool direct_io : {false, true}) {
    options_.direct_io = direct_io;
    Loader loader(store(), *experts_.ops, slots_.memory(), options_);
    expect_loads(loader, {3, 5});
    if (direct_io) {
      const std::string name = is_packed() ? "packed" : "layer3";
      const ExpertChunk chunk = store().chunk({3, 4}, 0, options_.max_chunk_bytes);
      std::filesystem::resize_file(experts_.folder / name, chunk.offset + 10);
      const FetchEnd end = fetch(loader, {3, 4});
      EXPECT_EQ(end.outcome, FetchOutcome::kFailed);
      EXPECT_THAT(end.error,
                  AllOf(HasSubstr(name), HasSubstr("expert 4 of layer 3"), HasSubstr("truncated")));
    }
    expect_loads(loader, {1, 0});
  }
}

TEST_P(LoaderFaultTest, AFileRemovedOrReplacedWhileOpenIsStillRead) {
  const std::vector<std::byte> expected = experts_.block({3, 1});
  for (const char* name : {"layer3", "packed"}) {
    std::filesystem::remove(experts_.folder / name);
    experts_.folder.write(name, "something else");
  }
  Loader loader(store(), *experts_.ops, slots_.memory(), options_);
  EXPECT_EQ(fetch(loader, {3, 1}).outcome, FetchOutcome::kDone);
  EXPECT_EQ(slots_.block(0, experts_.layout.block_bytes), expected);
}

TEST_F(LoaderFaults, WhatPackingThrowsIsAFailure) {
  class FailingOps : public RowMajorOps {
    void pack_rows(
        MatrixUse, std::byte*, int64_t, int64_t, int64_t, int64_t, const Bf16*) const override {
      throw std::runtime_error("the device is gone");
    }
  };
  const FailingOps ops;
  Loader loader(*experts_.store, ops, slots_.memory(), options_);
  const FetchEnd end = fetch(loader, {1, 1});
  EXPECT_EQ(end.outcome, FetchOutcome::kFailed);
  EXPECT_EQ(end.error, "expert 1 of layer 1: the device is gone");
}

TEST_F(LoaderFaults, AFlippedBitIsFoundWhereChecksumsAreVerified) {
  const int64_t offset = packed_->entry({2, 0}).offset + 5000;
  std::string byte(1, '\0');
  packed_->file().read_at(offset, byte.data(), 1);
  byte[0] = static_cast<char>(byte[0] ^ 0x10);
  {
    std::fstream file(experts_.folder / "packed", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset).write(byte.data(), 1);
  }
  for (const bool has_aligned_slots : {true, false}) {
    const TestSlots slots(1, experts_.layout.block_bytes, has_aligned_slots);
    options_.verify = true;
    Loader checking(*packed_store_, *experts_.ops, slots.memory(), options_);
    const FetchEnd end = fetch(checking, {2, 0});
    EXPECT_EQ(end.outcome, FetchOutcome::kFailed);
    EXPECT_THAT(end.error, AllOf(HasSubstr("packed: expert 0 of layer 2"), HasSubstr("checksum")));
    EXPECT_EQ(fetch(checking, {2, 1}).outcome, FetchOutcome::kDone);
    options_.verify = false;
    Loader trusting(*packed_store_, *experts_.ops, slots.memory(), options_);
    EXPECT_EQ(fetch(trusting, {2, 0}).outcome, FetchOutcome::kDone);
  }
}

INSTANTIATE_TEST_SUITE_P(Both, LoaderFaultTest, ::testing::Bool(), [](const auto& info) {
  return info.param ? "Packed" : "Checkpoint";
});

}  // namespace
}  // namespace augur
