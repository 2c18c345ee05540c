#include "prefetch/uring_reader.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <system_error>
#include <thread>

#include "kernels/require.h"

namespace augur {
namespace {

constexpr uint64_t kWakeTag = ~uint64_t{0};

[[noreturn]] void fail(int error, const char* what) {
  throw std::system_error(error, std::generic_category(), what);
}

bool has_read(io_uring& ring) {
  io_uring_probe* probe = io_uring_get_probe_ring(&ring);
  if (probe == nullptr) return false;
  const bool is_there = io_uring_opcode_supported(probe, IORING_OP_READ) != 0;
  io_uring_free_probe(probe);
  return is_there;
}

}  // namespace

UringReader::UringReader(int max_reads) {
  AUGUR_REQUIRE(max_reads >= 1, std::to_string(max_reads));
  // One more entry to watch the eventfd.
  const int error = io_uring_queue_init(static_cast<unsigned>(max_reads) + 1, &ring_, 0);
  if (error < 0) fail(-error, "io_uring_queue_init");
  if (!has_read(ring_)) {
    io_uring_queue_exit(&ring_);
    fail(ENOSYS, "io_uring without reads (Linux 5.6 has them)");
  }
  wake_descriptor_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_descriptor_ < 0) {
    const int reason = errno;
    io_uring_queue_exit(&ring_);
    fail(reason, "eventfd");
  }
  ended_.reserve(static_cast<size_t>(max_reads) + 1);
  watch_wakes();
}

UringReader::~UringReader() {
  io_uring_queue_exit(&ring_);
  ::close(wake_descriptor_);
}

void UringReader::watch_wakes() {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  AUGUR_REQUIRE(entry != nullptr, "a free entry");
  io_uring_prep_poll_add(entry, wake_descriptor_, POLLIN);
  entry->user_data = kWakeTag;
}

void UringReader::begin(const BlockRead& read) {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  AUGUR_REQUIRE(entry != nullptr, "a free entry");
  io_uring_prep_read(entry, read.descriptor, read.to, static_cast<unsigned>(read.num_bytes),
                     static_cast<uint64_t>(read.offset));
  entry->user_data = static_cast<uint64_t>(read.tag);
  // What the kernel does not take now (no memory), wait() submits again.
  io_uring_submit(&ring_);
}

// Whether anything came, wakes included.
bool UringReader::collect() {
  bool came = false;
  io_uring_cqe* end = nullptr;
  while (io_uring_peek_cqe(&ring_, &end) == 0) {
    came = true;
    const uint64_t tag = end->user_data;
    const int64_t result = end->res;
    io_uring_cqe_seen(&ring_, end);
    if (tag != kWakeTag) {
      ended_.push_back({static_cast<int>(tag), result});
      continue;
    }
    uint64_t num_wakes = 0;
    // Nothing to be read is no trouble: the poll may end without a wake.
    [[maybe_unused]] const ssize_t got = ::read(wake_descriptor_, &num_wakes, sizeof(num_wakes));
    watch_wakes();
    io_uring_submit(&ring_);
  }
  return came;
}

std::span<const BlockReadEnd> UringReader::wait(bool blocks) {
  ended_.clear();
  while (!collect() && blocks) {
    const int result = io_uring_submit_and_wait(&ring_, 1);
    if (result >= 0 || result == -EINTR) continue;
    if (result != -EAGAIN && result != -EBUSY) fail(-result, "io_uring_submit_and_wait");
    // The kernel is short of memory for a moment.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return ended_;
}

void UringReader::wake() {
  const uint64_t one = 1;
  // Only a counter at its limit refuses, and then the wake is pending already.
  [[maybe_unused]] const ssize_t put = ::write(wake_descriptor_, &one, sizeof(one));
}

}  // namespace augur
