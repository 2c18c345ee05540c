#include "engine/server/stack_dump.h"

#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "kernels/require.h"

namespace augur::server {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMaxFrames = 64;

// A thread that is asked for its stack and one that answers agree through one word: the thread's id
// and how far they are. The one who asks takes the question back when it has waited long enough, so
// that a signal that comes late finds nothing to answer.
enum State : uint64_t { kNobody, kAsked, kWriting, kDone };
constexpr uint64_t question(pid_t thread_id, State state) {
  return static_cast<uint64_t>(thread_id) << 2 | state;
}
std::atomic<uint64_t> g_question{kNobody};
std::atomic<int> g_fd{-1};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// One that other libraries are unlikely to use: they begin to count at SIGRTMIN.
int stack_signal() {
  return SIGRTMAX - 3;
}

pid_t this_thread_id() {
  return static_cast<pid_t>(syscall(SYS_gettid));
}

void on_stack_signal(int, siginfo_t*, void*) {
  const int saved_errno = errno;
  const pid_t thread_id = this_thread_id();
  uint64_t expected = question(thread_id, kAsked);
  if (g_question.compare_exchange_strong(expected, question(thread_id, kWriting))) {
    void* frames[kMaxFrames];
    const int num_frames = backtrace(frames, kMaxFrames);
    backtrace_symbols_fd(frames, num_frames, g_fd);
    g_question = question(thread_id, kDone);
  }
  errno = saved_errno;
}

bool wait_for_state(uint64_t wanted, std::chrono::milliseconds patience) {
  const Clock::time_point deadline = Clock::now() + patience;
  while (g_question != wanted) {
    if (Clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return true;
}

/// Whether the thread wrote its stack.
bool ask(pid_t thread_id, std::chrono::milliseconds patience) {
  g_question = question(thread_id, kAsked);
  if (syscall(SYS_tgkill, getpid(), thread_id, stack_signal()) != 0) {  // it has just ended
    g_question = kNobody;
    return false;
  }
  const uint64_t done = question(thread_id, kDone);
  if (!wait_for_state(done, patience)) {
    uint64_t asked = question(thread_id, kAsked);
    if (g_question.compare_exchange_strong(asked, kNobody)) return false;
    // It is writing: its last lines are on their way, unless the descriptor takes no more.
    if (!wait_for_state(done, patience)) return false;
  }
  g_question = kNobody;
  return true;
}

std::vector<pid_t> threads_of_this_process() {
  std::vector<pid_t> threads;
  DIR* const folder = opendir("/proc/self/task");
  if (folder == nullptr) return threads;
  while (const dirent* entry = readdir(folder)) {
    const std::string_view name = entry->d_name;
    pid_t thread_id = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), thread_id);
    if (error == std::errc() && *end == '\0') threads.push_back(thread_id);
  }
  closedir(folder);
  std::sort(threads.begin(), threads.end());
  return threads;
}

/// The first bytes of a file of /proc, without the line break at their end.
std::string read_small(const std::string& path) {
  char bytes[256];
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  const ssize_t num_read = read(fd, bytes, sizeof(bytes));
  close(fd);
  std::string text(bytes, std::max<ssize_t>(num_read, 0));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

/// "thread 123 augur-engine, S (futex_wait_queue)": what the kernel says of it.
std::string describe(pid_t thread_id) {
  const std::string folder = fmt::format("/proc/self/task/{}/", thread_id);
  const std::string name = read_small(folder + "comm");
  const std::string stat = read_small(folder + "stat");  // "id (name) state ...", any name
  const size_t name_end = stat.rfind(')');
  const char state =
      name_end != std::string::npos && name_end + 2 < stat.size() ? stat[name_end + 2] : '?';
  const std::string waits_in = read_small(folder + "wchan");
  std::string text = fmt::format("thread {} {}, {}", thread_id, name, state);
  if (waits_in.size() > 1) text += fmt::format(" ({})", waits_in);
  return text;
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t num_written = write(fd, text.data(), text.size());
    if (num_written < 0 && errno == EINTR) continue;
    if (num_written <= 0) return;
    text.remove_prefix(num_written);
  }
}

void install_handler() {
  void* frames[2];
  backtrace(frames, 2);  // the first call loads libgcc, which no handler may do
  struct sigaction action = {};
  action.sa_sigaction = on_stack_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  const int result = sigaction(stack_signal(), &action, nullptr);
  AUGUR_REQUIRE(result == 0, "sigaction failed with errno " + std::to_string(errno));
}

}  // namespace

void prepare_stack_dump() {
  static std::once_flag installed;
  std::call_once(installed, install_handler);
}

StackDump dump_stacks(int fd, std::chrono::milliseconds patience) {
  prepare_stack_dump();
  static std::mutex turn;
  const std::lock_guard lock(turn);
  StackDump dump;
  if (g_question != kNobody) {  // a thread of the last dump never came back from writing
    write_all(fd, "the stacks cannot be shown: the last dump has not ended\n");
    return dump;
  }
  g_fd = fd;
  for (const pid_t thread_id : threads_of_this_process()) {
    write_all(fd, describe(thread_id) + "\n");
    ++dump.num_threads;
    if (ask(thread_id, patience)) {
      ++dump.num_stacks;
    } else if (g_question != kNobody) {
      break;  // it holds the descriptor
    } else {
      write_all(fd, "  did not answer\n");
    }
  }
  return dump;
}

}  // namespace augur::server
