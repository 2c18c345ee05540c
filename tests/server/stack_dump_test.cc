#include "engine/server/stack_dump.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/temp_folder.h"

namespace augur::server {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

#ifdef __SANITIZE_THREAD__
// ThreadSanitizer holds back the signals of a thread inside read() until it returns.
constexpr bool kReadersAnswer = false;
#else
constexpr bool kReadersAnswer = true;
#endif

class StackDumpTest : public ::testing::Test {
 protected:
  std::string dump(milliseconds patience) {
    const std::string path = folder_.file("stacks");
    const int fd = open(path.c_str(), O_CREAT | O_TRUNC | O_RDWR, 0600);
    EXPECT_GE(fd, 0);
    last_ = dump_stacks(fd, patience);
    close(fd);
    return folder_.read("stacks");
  }

  TempFolder folder_;
  StackDump last_;
};

/// The part of a dump that tells of the thread of that name.
std::string part_of(const std::string& dump, const std::string& name) {
  const size_t at = dump.find(" " + name + ",");
  if (at == std::string::npos) return "";
  return dump.substr(at, dump.find("\nthread ", at) - at);
}

/// Whether that part has addresses of a stack.
bool shows(const std::string& dump, const std::string& name) {
  return part_of(dump, name).find("[0x") != std::string::npos;
}

TEST_F(StackDumpTest, ShowsThreadsInWhateverTheyAreBlocked) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  std::mutex mutex;
  std::condition_variable changes;
  bool is_over = false;
  std::atomic<int> num_bytes = -1;
  std::atomic<int> num_ready = 0;
  std::thread reader([&] {
    pthread_setname_np(pthread_self(), "test-reader");
    ++num_ready;
    char byte = 0;
    num_bytes = static_cast<int>(read(ends[0], &byte, 1));
  });
  std::thread waiter([&] {
    pthread_setname_np(pthread_self(), "test-waiter");
    std::unique_lock lock(mutex);
    ++num_ready;
    changes.wait(lock, [&] { return is_over; });
  });
  while (num_ready < 2) std::this_thread::yield();
  // Once may not be enough on a busy machine.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  std::string text;
  do {
    text = dump(milliseconds(500));
  } while (((kReadersAnswer && !shows(text, "test-reader")) || !shows(text, "test-waiter")) &&
           std::chrono::steady_clock::now() < deadline);
  EXPECT_EQ(shows(text, "test-reader"), kReadersAnswer) << text;
  EXPECT_TRUE(shows(text, "test-waiter")) << text;
  EXPECT_GE(last_.num_threads, 3);
  // A read that was interrupted went on.
  EXPECT_EQ(num_bytes, -1);
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  reader.join();
  EXPECT_EQ(num_bytes, 1);
  {
    const std::lock_guard lock(mutex);
    is_over = true;
    changes.notify_one();
  }
  waiter.join();
  close(ends[0]);
  close(ends[1]);
}

TEST_F(StackDumpTest, PassesOverAThreadThatBlocksSignals) {
  std::atomic<bool> is_ready = false;
  std::atomic<bool> is_over = false;
  std::thread deaf([&] {
    pthread_setname_np(pthread_self(), "test-deaf");
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    is_ready = true;
    while (!is_over) std::this_thread::sleep_for(milliseconds(1));
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, nullptr);  // the late signal finds nothing to answer
  });
  while (!is_ready) std::this_thread::yield();
  const std::string text = dump(milliseconds(50));
  EXPECT_THAT(part_of(text, "test-deaf"), HasSubstr("did not answer")) << text;
  EXPECT_LT(last_.num_stacks, last_.num_threads);
  is_over = true;
  deaf.join();
  EXPECT_EQ(folder_.read("stacks"), text);
  dump(milliseconds(50));
  EXPECT_GE(last_.num_stacks, 1) << "one that did not answer does not silence the others";
}

TEST_F(StackDumpTest, ManyAtOnceTakeTurns) {
  std::vector<std::thread> threads;
  std::atomic<int> num_stacks = 0;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      const int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
      for (int k = 0; k < 5; ++k) num_stacks += dump_stacks(fd, milliseconds(50)).num_stacks;
      close(fd);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(num_stacks, 15);
}

}  // namespace
}  // namespace augur::server
