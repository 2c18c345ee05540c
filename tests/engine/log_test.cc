#include "engine/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace augur {
namespace {

using testing::internal::CaptureStderr;
using testing::internal::GetCapturedStderr;

class LogTest : public testing::Test {
 protected:
  void TearDown() override { set_log_level(LogLevel::kInfo); }
};

TEST_F(LogTest, ALineHasTheTimeAndTheText) {
  CaptureStderr();
  log_info("{} of {}", 3, "x");
  EXPECT_THAT(GetCapturedStderr(), testing::MatchesRegex("[0-9:]+ 3 of x\n"));
}

TEST_F(LogTest, NamesTheLevelOfWhatIsNotJustInformation) {
  CaptureStderr();
  log_warning("low");
  log_error("gone");
  EXPECT_THAT(GetCapturedStderr(),
              testing::MatchesRegex("[0-9:]+ warning: low\n[0-9:]+ error: gone\n"));
}

TEST_F(LogTest, ShowsOnlyWhatIsSeriousEnough) {
  set_log_level(LogLevel::kWarning);
  CaptureStderr();
  log_debug("a");
  log_info("b");
  log_warning("c");
  EXPECT_THAT(GetCapturedStderr(), testing::MatchesRegex("[0-9:]+ warning: c\n"));
  set_log_level(LogLevel::kOff);
  CaptureStderr();
  log_error("d");
  log_line(LogLevel::kOff, "e");
  EXPECT_EQ(GetCapturedStderr(), "");
}

TEST_F(LogTest, AMessageIsOneLineWhateverItHolds) {
  CaptureStderr();
  log_info("{}", "a\nb\tc\x1b[2Jd");
  EXPECT_THAT(GetCapturedStderr(), testing::MatchesRegex("[0-9:]+ a b c.\\[2Jd\n"));
}

TEST_F(LogTest, ClearsTheTerminalLineFirst) {
  int num_cleared = 0;
  set_before_log_line([&] { ++num_cleared; });
  CaptureStderr();
  log_info("a");
  log_debug("not shown");
  set_before_log_line({});
  log_info("b");
  GetCapturedStderr();
  EXPECT_EQ(num_cleared, 1);
}

}  // namespace
}  // namespace augur
