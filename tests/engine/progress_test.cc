#include "engine/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "engine/log.h"

namespace augur {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// A pipe in place of stderr.
class StatusLineTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(pipe(ends_.data()), 0); }
  void TearDown() override {
    for (const int end : ends_) close(end);
  }
  StatusLine::Target terminal(int num_columns = 80) const {
    return {.fd = ends_[1], .is_terminal = true, .num_columns = num_columns};
  }
  StatusLine::Target file() const { return {.fd = ends_[1]}; }
  std::string written() {
    // Something is always there to read, so that an empty pipe does not block.
    EXPECT_EQ(write(ends_[1], "$", 1), 1);
    std::array<char, 4096> text{};
    const ssize_t size = read(ends_[0], text.data(), text.size());
    return std::string(text.data(), static_cast<size_t>(size) - 1);
  }
  std::array<int, 2> ends_{};
  const StatusLine::Clock::time_point start_ = StatusLine::Clock::now() + milliseconds(1);
};

TEST_F(StatusLineTest, IsRedrawnInPlaceOnATerminal) {
  StatusLine line(terminal());
  line.show("one", start_);
  line.show("two", start_ + milliseconds(100));
  EXPECT_EQ(written(), "\rone\x1b[K\rtwo\x1b[K");
  line.clear();
  EXPECT_EQ(written(), "\r\x1b[K");
  line.clear();
  EXPECT_EQ(written(), "");
}

TEST_F(StatusLineTest, IsNotRedrawnMoreOftenThanPeopleCanRead) {
  StatusLine line(terminal());
  line.show("one", start_);
  EXPECT_FALSE(line.is_due(start_ + milliseconds(99)));
  line.show("two", start_ + milliseconds(99));
  EXPECT_EQ(written(), "\rone\x1b[K");
}

TEST_F(StatusLineTest, LeavesTheLastColumnFreeAndCutsBetweenCharacters) {
  StatusLine line(terminal(/*num_columns=*/5));
  line.show("äöüäöü", start_);
  EXPECT_EQ(written(), "\räöüä\x1b[K");
}

TEST_F(StatusLineTest, IsAPlainLineEveryTenSecondsElsewhere) {
  StatusLine line(file());
  line.show("too early", start_);
  line.show("one", start_ + seconds(10));
  line.show("again", start_ + seconds(19));
  line.show("two", start_ + seconds(20));
  EXPECT_EQ(written(), "one\ntwo\n");
}

TEST_F(StatusLineTest, MakesWayForLogLines) {
  StatusLine line(terminal());
  line.show("one", start_);
  testing::internal::CaptureStderr();
  log_info("hello");
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(written(), "\rone\x1b[K\r\x1b[K");
}

TEST_F(StatusLineTest, ByteProgressShowsShareRateAndTimeLeft) {
  ByteProgress progress("loading", terminal(120));
  progress.update(250'000'000, 1'000'000'000, start_ + seconds(1));
  EXPECT_THAT(
      written(),
      testing::ContainsRegex(
          "loading \\[######------------------\\]  25 %  250 MB  2[0-9]{2} MB/s  0:03 left"));
}

TEST(Format, BarIsFullOnlyWhenAllIsDone) {
  EXPECT_EQ(format_bar(0, 4), "[----]   0 %");
  EXPECT_EQ(format_bar(0.5, 4), "[##--]  50 %");
  EXPECT_EQ(format_bar(0.999, 4), "[####]  99 %");
  EXPECT_EQ(format_bar(1, 4), "[####] 100 %");
  EXPECT_EQ(format_bar(7, 4), "[####] 100 %");
  EXPECT_EQ(format_bar(std::nan(""), 4), "[----]   0 %");
}

TEST(Format, Bytes) {
  EXPECT_EQ(format_decimal_bytes(0), "0 B");
  EXPECT_EQ(format_decimal_bytes(999), "999 B");
  EXPECT_EQ(format_decimal_bytes(1000), "1.00 kB");
  EXPECT_EQ(format_decimal_bytes(12'340'000), "12.3 MB");
  EXPECT_EQ(format_decimal_bytes(999'700'000), "1.00 GB");
}

TEST(Format, Durations) {
  EXPECT_EQ(format_duration(0.4), "0:00");
  EXPECT_EQ(format_duration(61), "1:01");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
}

TEST(Format, CountsAndRates) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
  EXPECT_EQ(format_rate(3.21), "3.2");
  EXPECT_EQ(format_rate(321), "321");
  EXPECT_EQ(format_rate(1234), "1.23k");
  EXPECT_EQ(format_rate(50123), "50.1k");
  EXPECT_EQ(format_rate(1234567), "1235k");
}

}  // namespace
}  // namespace augur
