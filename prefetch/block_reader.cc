#include "prefetch/block_reader.h"

#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "configs/config_error.h"
#include "kernels/require.h"
#include "prefetch/uring_reader.h"

namespace augur {
namespace {

// One thread per read that may be under way: pread has no other way to keep several.
class PreadReader final : public BlockReader {
 public:
  explicit PreadReader(int max_reads) : queue_(static_cast<size_t>(max_reads)) {
    ended_.reserve(queue_.size());
    reported_.reserve(queue_.size());
    for (int i = 0; i < max_reads; ++i) {
      threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
    }
  }

  std::string_view name() const override { return "pread"; }

  void begin(const BlockRead& read) override {
    {
      const std::lock_guard lock(mutex_);
      AUGUR_REQUIRE(num_queued_ < queue_.size(), std::to_string(num_queued_));
      queue_[(first_ + num_queued_++) % queue_.size()] = read;
    }
    read_came_.notify_one();
  }

  std::span<const BlockReadEnd> wait(bool blocks) override {
    reported_.clear();
    std::unique_lock lock(mutex_);
    if (blocks) end_came_.wait(lock, [&] { return !ended_.empty() || is_woken_; });
    is_woken_ = false;
    std::swap(ended_, reported_);
    return reported_;
  }

  void wake() override {
    {
      const std::lock_guard lock(mutex_);
      is_woken_ = true;
    }
    end_came_.notify_one();
  }

 private:
  void work(const std::stop_token& stop) {
    while (true) {
      BlockRead read;
      {
        std::unique_lock lock(mutex_);
        if (!read_came_.wait(lock, stop, [&] { return num_queued_ > 0; })) return;
        read = queue_[first_];
        first_ = (first_ + 1) % queue_.size();
        --num_queued_;
      }
      ssize_t got = 0;
      do {
        got = ::pread(read.descriptor, read.to, static_cast<size_t>(read.num_bytes), read.offset);
      } while (got < 0 && errno == EINTR);
      const int64_t result = got < 0 ? -errno : got;
      {
        const std::lock_guard lock(mutex_);
        ended_.push_back({read.tag, result});
      }
      end_came_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable_any read_came_;
  std::condition_variable end_came_;
  std::vector<BlockRead> queue_;  // a ring
  size_t first_ = 0;
  size_t num_queued_ = 0;
  bool is_woken_ = false;
  std::vector<BlockReadEnd> ended_;
  std::vector<BlockReadEnd> reported_;  // of the thread that waits
  std::vector<std::jthread> threads_;   // last: they end before what they use
};

}  // namespace

std::unique_ptr<BlockReader> make_block_reader(ReadMethod method, int max_reads) {
  AUGUR_REQUIRE(max_reads >= 1, std::to_string(max_reads));
  if (method == ReadMethod::kPread) return std::make_unique<PreadReader>(max_reads);
  try {
    return std::make_unique<UringReader>(max_reads);
  } catch (const std::system_error& error) {
    if (method == ReadMethod::kAuto) return std::make_unique<PreadReader>(max_reads);
    throw ConfigError("io_uring",
                      std::string("is refused here (") + error.what() + "); accepted: pread");
  }
}

}  // namespace augur
