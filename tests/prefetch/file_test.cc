#include "prefetch/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <thread>
#include <vector>

#include "configs/config_error.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(FileTest, ReadsAnyRange) {
  const TempFolder folder;
  const File file(folder.write("digits", "0123456789"));
  EXPECT_EQ(file.num_bytes(), 10);
  std::string bytes(4, ' ');
  file.read_at(3, bytes.data(), 4);
  EXPECT_EQ(bytes, "3456");
  file.read_at(10, bytes.data(), 0);
  EXPECT_EQ(bytes, "3456");
}

TEST(FileTest, SaysWhereAFileEndsTooEarly) {
  const TempFolder folder;
  const std::filesystem::path path = folder.write("short", "0123456789");
  const File file(path);
  std::string bytes(8, ' ');
  EXPECT_THAT(message_of<ConfigError>([&] { file.read_at(6, bytes.data(), 8); }),
              AllOf(HasSubstr(path.string()), HasSubstr("ends at offset 10"),
                    HasSubstr("8 bytes at offset 6")));
}

TEST(FileTest, AFileCutWhileOpenIsAnErrorNotASignal) {
  const TempFolder folder;
  const std::filesystem::path path = folder.write("cut", std::string(100'000, 'x'));
  const File file(path);
  std::filesystem::resize_file(path, 10);
  std::string bytes(100, ' ');
  EXPECT_THAT(message_of<ConfigError>([&] { file.read_at(50'000, bytes.data(), 100); }),
              HasSubstr("truncated"));
}

TEST(FileTest, AFileRemovedWhileOpenIsStillRead) {
  const TempFolder folder;
  const std::filesystem::path path = folder.write("gone", "content");
  const File file(path);
  std::filesystem::remove(path);
  std::string bytes(7, ' ');
  file.read_at(0, bytes.data(), 7);
  EXPECT_EQ(bytes, "content");
}

TEST(FileTest, RefusesWhatIsNotARegularFile) {
  const TempFolder folder;
  EXPECT_THAT(message_of<ConfigError>([&] { File file(folder / "absent"); }),
              HasSubstr("No such file"));
  EXPECT_THAT(message_of<ConfigError>([&] { File file(folder.path()); }),
              HasSubstr("is not a regular file"));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(message_of<ConfigError>([&] { File file(folder / "pipe"); }),
              HasSubstr("is not a regular file"));
}

TEST(FileTest, IsReadFromSeveralThreads) {
  const TempFolder folder;
  std::string content;
  for (int i = 0; i < 50'000; ++i) content += static_cast<char>('a' + i % 23);
  const File file(folder.write("shared", content));
  std::vector<std::string> parts(4, std::string(10'000, ' '));
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] { file.read_at(i * 10'000, parts[i].data(), 10'000); });
    }
  }
  for (int i = 0; i < 4; ++i) EXPECT_EQ(parts[i], content.substr(i * 10'000, 10'000)) << i;
}

TEST(OutputFileTest, WritesInAnyOrder) {
  const TempFolder folder;
  OutputFile file(folder / "out");
  file.write_at(4, "tail", 4);
  file.write_at(0, "head", 4);
  file.close();
  EXPECT_EQ(read_whole_file(folder / "out"), "headtail");
}

TEST(OutputFileTest, SaysThatTheDiskIsFull) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  const OutputFile file("/dev/full");
  EXPECT_THAT(message_of<ConfigError>([&] { file.write_at(64, "x", 1); }),
              AllOf(HasSubstr("/dev/full"), HasSubstr("offset 64"), HasSubstr("No space left")));
}

TEST(OutputFileTest, SaysThatAFolderIsMissing) {
  const TempFolder folder;
  EXPECT_THAT(message_of<ConfigError>([&] { OutputFile file(folder / "no/such/file"); }),
              HasSubstr("cannot be created: No such file"));
}

TEST(ReadTextFile, RefusesFilesOverTheLimit) {
  const TempFolder folder;
  const std::filesystem::path path = folder.write("text", "twelve bytes");
  EXPECT_EQ(read_text_file(path, 12), "twelve bytes");
  EXPECT_THAT(message_of<ConfigError>([&] { read_text_file(path, 11); }),
              HasSubstr("is 12 bytes long; accepted: at most 11"));
}

}  // namespace
}  // namespace augur
