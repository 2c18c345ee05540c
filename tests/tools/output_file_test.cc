#include "tools/score/output_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "tests/temp_folder.h"

namespace augur::score {
namespace {

/// No file of this process grows beyond so many bytes: what a full disk does to a writer.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t num_bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{num_bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

class OutputFileTest : public testing::Test {
 protected:
  TempFolder folder_;
};

TEST_F(OutputFileTest, GoesOnAtTheEndOfWhatIsThere) {
  folder_.write("out", "one\n");
  OutputFile file(folder_.file("out"));
  EXPECT_TRUE(file.is_plain_file());
  EXPECT_EQ(file.num_bytes(), 4);
  file.append("two\n");
  EXPECT_EQ(folder_.read("out"), "one\ntwo\n");
  EXPECT_EQ(file.read(4, 3), "two");
  EXPECT_EQ(file.read(6, 100), "o\n");
  file.truncate(2);
  file.append("x");
  EXPECT_EQ(folder_.read("out"), "onx");
}

TEST_F(OutputFileTest, KeepsOnlyWholeLinesWhenTheDiskIsFull) {
  OutputFile file(folder_.file("out"));
  file.append("one\n");
  {
    const FileSizeLimit limit(10);
    EXPECT_THROW(file.append("two\nthree\n"), OutputError);
  }
  EXPECT_EQ(folder_.read("out"), "one\ntwo\n");
  EXPECT_EQ(file.num_bytes(), 8);
  file.append("three\n");
  EXPECT_EQ(folder_.read("out"), "one\ntwo\nthree\n");
}

TEST_F(OutputFileTest, TellsAFullDevice) {
  OutputFile file("/dev/full");
  EXPECT_FALSE(file.is_plain_file());
  try {
    file.append("x\n");
    FAIL();
  } catch (const OutputError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("No space left on device"));
  }
}

TEST_F(OutputFileTest, RefusesWhatCannotBeWritten) {
  EXPECT_THROW(OutputFile(folder_.file("")), OutputError);
  EXPECT_THROW(OutputFile(folder_.file("absent/out")), OutputError);
}

TEST_F(OutputFileTest, RefusesAFileThatAnotherWriterHas) {
  const OutputFile first(folder_.file("out"));
  EXPECT_THROW(OutputFile(folder_.file("out")), OutputError);
}

}  // namespace
}  // namespace augur::score
