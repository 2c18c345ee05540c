#include "tools/score/line_reader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "configs/config_error.h"
#include "tests/temp_folder.h"

namespace augur::score {
namespace {

class LineReaderTest : public testing::Test {
 protected:
  std::vector<InputLine> read(const std::string& text,
                              int64_t max_line_bytes = LineReader::kMaxLineBytes) {
    LineReader reader(folder_.write("in.jsonl", text), max_line_bytes);
    std::vector<InputLine> lines;
    for (InputLine line; reader.next(line);) lines.push_back(line);
    return lines;
  }
  TempFolder folder_;
};

TEST_F(LineReaderTest, NumbersLinesFromOneAndCountsTheirBytes) {
  const std::vector<InputLine> lines = read("ab\n\r\nc");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].text, "ab");
  EXPECT_EQ(lines[0].number, 1);
  EXPECT_EQ(lines[0].num_bytes, 3);
  EXPECT_TRUE(lines[1].is_blank());
  EXPECT_EQ(lines[2].text, "c");
  EXPECT_EQ(lines[2].number, 3);
  EXPECT_EQ(lines[2].num_bytes, 1);
  EXPECT_TRUE(read("").empty());
}

TEST_F(LineReaderTest, ReadsLinesLongerThanItsBuffer) {
  const std::string long_text(3'000'000, 'x');
  const std::vector<InputLine> lines = read("a\n" + long_text + "\nb\n");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1].text, long_text);
  EXPECT_EQ(lines[2].text, "b");
}

TEST_F(LineReaderTest, PassesOverALineThatIsTooLong) {
  const std::vector<InputLine> lines = read("a\n123456\nb\n12345\n", /*max_line_bytes=*/5);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_TRUE(lines[1].is_too_long);
  EXPECT_FALSE(lines[1].is_blank());
  EXPECT_EQ(lines[1].num_bytes, 7);
  EXPECT_EQ(lines[2].text, "b");
  EXPECT_FALSE(lines[3].is_too_long);
}

TEST_F(LineReaderTest, TheHashTellsTextAndPlaceApart) {
  const std::vector<InputLine> lines = read("same\nsame\nother\n");
  EXPECT_NE(lines[0].hash, lines[1].hash);
  EXPECT_NE(lines[1].hash, lines[2].hash);
  EXPECT_EQ(lines[0].hash, hash_line(1, "same"));
  // The hash of a line does not depend on what is kept of it.
  EXPECT_EQ(read("same\n", 3)[0].hash, lines[0].hash);
}

TEST_F(LineReaderTest, LeavesOutTheByteOrderMark) {
  EXPECT_EQ(read("\xef\xbb\xbf{}\n")[0].text, "{}");
}

TEST_F(LineReaderTest, RefusesWhatCannotBeOpened) {
  EXPECT_THROW(LineReader(folder_.file("absent")), ConfigError);
  EXPECT_THROW(LineReader(folder_.file("")), ConfigError);
}

TEST_F(LineReaderTest, KnowsTheSizeOfAFileOnly) {
  EXPECT_EQ(LineReader(folder_.write("in.jsonl", "abc\n")).file_bytes(), 4);
  EXPECT_EQ(LineReader("/dev/null").file_bytes(), 0);
}

TEST_F(LineReaderTest, AsksWhetherToGoOnWhileAPipeIsSilent) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  ASSERT_EQ(write(ends[1], "a\nhalf", 6), 6);
  LineReader reader("/dev/fd/" + std::to_string(ends[0]));
  int num_waits = 0;
  reader.set_while_waiting([&] { return ++num_waits < 2; });
  InputLine line;
  ASSERT_TRUE(reader.next(line));
  EXPECT_EQ(line.text, "a");
  EXPECT_EQ(num_waits, 0);
  reader.next(line);
  EXPECT_EQ(num_waits, 2);
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace augur::score
