#include "prefetch/block_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <unistd.h>
#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "configs/config_error.h"
#include "prefetch/direct_file.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

constexpr int kMaxReads = 4;

class BlockReaderTest : public ::testing::TestWithParam<ReadMethod> {
 protected:
  void SetUp() override {
    try {
      reader_ = make_block_reader(GetParam(), kMaxReads);
    } catch (const ConfigError& error) {
      GTEST_SKIP() << error.what();
    }
  }
  void begin(const File& file, int64_t offset, int64_t num_bytes, int tag) {
    buffers_[tag].resize(static_cast<size_t>(num_bytes));
    reader_->begin({file.descriptor(), &file.path(), offset, num_bytes, buffers_[tag].data(), tag});
  }
  /// Bytes or -errno by tag.
  std::map<int, int64_t> wait_for(size_t count) {
    std::map<int, int64_t> ended;
    while (ended.size() < count) {
      for (const BlockReadEnd& end : reader_->wait(/*blocks=*/true)) {
        EXPECT_TRUE(ended.emplace(end.tag, end.num_bytes).second);
      }
    }
    return ended;
  }
  std::string text(int tag) const {
    return {reinterpret_cast<const char*>(buffers_.at(tag).data()), buffers_.at(tag).size()};
  }

  TempFolder folder_;
  std::unique_ptr<BlockReader> reader_;
  std::map<int, std::vector<std::byte>> buffers_;
};

TEST_P(BlockReaderTest, KeepsSeveralReadsUnderWay) {
  std::string content;
  for (int i = 0; i < 5000; ++i) content += std::to_string(i);
  const File file(folder_.write("f", content));
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < kMaxReads; ++i) begin(file, round * 100 + i * 1000, 700 + i, i);
    const std::map<int, int64_t> ended = wait_for(kMaxReads);
    for (int i = 0; i < kMaxReads; ++i) {
      ASSERT_EQ(ended.at(i), 700 + i);
      ASSERT_EQ(text(i), content.substr(round * 100 + i * 1000, 700 + i));
    }
  }
}

TEST_P(BlockReaderTest, SaysHowMuchThereWasAtTheEndOfAFile) {
  const File file(folder_.write("f", "0123456789"));
  begin(file, 6, 100, 0);
  begin(file, 10, 100, 1);
  const std::map<int, int64_t> ended = wait_for(2);
  EXPECT_EQ(ended.at(0), 4);
  EXPECT_EQ(ended.at(1), 0);
}

TEST_P(BlockReaderTest, ReportsWhyAReadFailed) {
  const OutputFile file(folder_ / "written");
  const int descriptor = ::open((folder_ / "written").c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(descriptor, 0);
  std::byte byte;
  reader_->begin({descriptor, &file.path(), 0, 1, &byte, 3});
  EXPECT_EQ(wait_for(1).at(3), -EBADF);
  ::close(descriptor);
}

TEST_P(BlockReaderTest, AWakeEndsAWait) {
  EXPECT_TRUE(reader_->wait(/*blocks=*/false).empty());
  reader_->wake();
  EXPECT_TRUE(reader_->wait(/*blocks=*/true).empty());
  for (int i = 0; i < 20; ++i) {
    std::jthread other([&] { reader_->wake(); });
    EXPECT_TRUE(reader_->wait(/*blocks=*/true).empty());
  }
}

INSTANTIATE_TEST_SUITE_P(All,
                         BlockReaderTest,
                         ::testing::Values(ReadMethod::kIoUring, ReadMethod::kPread),
                         [](const auto& info) {
                           return info.param == ReadMethod::kPread ? "Pread" : "IoUring";
                         });

TEST(DirectFileTest, ReadsTheFileThatIsOpenNotWhatHasItsNameNow) {
  const TempFolder folder;
  const File file(folder.write("f", std::string(8192, 'a')));
  std::filesystem::remove(folder / "f");
  folder.write("f", std::string(8192, 'b'));
  const DirectFile direct(file);
  if (!direct.is_open()) GTEST_SKIP() << "no direct I/O in " << folder.path();
  alignas(4096) char bytes[4096];
  ASSERT_EQ(::pread(direct.descriptor(), bytes, sizeof(bytes), 4096), 4096);
  EXPECT_EQ(bytes[0], 'a');
}

}  // namespace
}  // namespace augur
