#include "engine/server/watchdog.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>

#include "tests/server/loop_fixture.h"
#include "tests/temp_folder.h"

namespace augur::server::test {
namespace {

using std::chrono::milliseconds;

class WatchdogTest : public LoopFixture {
 protected:
  WatchdogTest() {
    fd_ = open(folder_.file("stacks").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  }
  ~WatchdogTest() override { close(fd_); }

  std::function<Watchdog::Time()> step_began() {
    return [this] { return loop_->step_began(); };
  }
  static void wait_for(const std::function<bool()>& is_there) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!is_there()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "it never came";
      std::this_thread::sleep_for(milliseconds(1));
    }
  }

  TempFolder folder_;
  int fd_ = -1;
};

TEST_F(WatchdogTest, ReportsAStuckStepOnceWithAllStacks) {
  make();
  Watchdog watchdog({.soft_timeout = milliseconds(10), .stack_fd = fd_}, step_began());
  runner_->close();
  loop_->submit(one(make_request("a", {1}, 2)));
  wait_for([&] { return watchdog.num_soft_reports() > 0; });
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_EQ(watchdog.num_soft_reports(), 1);
  wait_for([&] { return folder_.read("stacks").find("augur-engine") != std::string::npos; });
  runner_->permit();
  wait_for([&] { return watchdog.num_soft_reports() == 2; });  // the next step hangs as well
  runner_->open();
  record_.wait_for_finished(1);
}

TEST_F(WatchdogTest, SaysNothingWhileNoStepIsUnderWay) {
  make();
  std::atomic<int> num_hard = 0;
  Watchdog watchdog({.soft_timeout = milliseconds(5), .hard_timeout = milliseconds(5)},
                    step_began(), [&](Watchdog::Duration) { ++num_hard; });
  std::this_thread::sleep_for(milliseconds(40));
  EXPECT_EQ(watchdog.num_soft_reports(), 0);
  EXPECT_EQ(num_hard, 0);
}

TEST_F(WatchdogTest, TheHardTimeoutActsOnceForAStep) {
  make();
  std::atomic<int> num_hard = 0;
  std::atomic<int64_t> age_ms = 0;
  Watchdog watchdog({.hard_timeout = milliseconds(10)}, step_began(), [&](Watchdog::Duration age) {
    age_ms = std::chrono::duration_cast<milliseconds>(age).count();
    ++num_hard;
  });
  runner_->close();
  loop_->submit(one(make_request("a", {1}, 1)));
  wait_for([&] { return num_hard > 0; });
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_EQ(num_hard, 1);
  EXPECT_GE(age_ms, 10);
  EXPECT_EQ(watchdog.num_soft_reports(), 0) << "it is off";
}

TEST_F(WatchdogTest, ZeroTurnsBothOff) {
  make();
  Watchdog watchdog({}, step_began());
  runner_->close();
  loop_->submit(one(make_request("a", {1}, 1)));
  runner_->wait_for_step();
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(watchdog.num_soft_reports(), 0);
}

TEST(WatchdogDeathTest, EndsTheProcessWithItsStatus) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const auto began = std::chrono::steady_clock::now();
        const Watchdog watchdog({.hard_timeout = milliseconds(5)}, [began] { return began; });
        std::this_thread::sleep_for(kPatience);
      },
      ::testing::ExitedWithCode(Watchdog::kExitStatus), "a step of the engine has been running");
}

}  // namespace
}  // namespace augur::server::test
