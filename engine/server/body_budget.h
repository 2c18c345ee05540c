// The memory that bodies of requests take, all connections together.
//
// What one body may take is bounded by itself; many at once are bounded here, from the first byte
// read until whoever parses a body is done with it.
// Threading: any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace augur::server {

class BodyBudget {
  struct Count {
    explicit Count(int64_t max) : max_bytes(max) {}
    const int64_t max_bytes;
    std::atomic<int64_t> used_bytes = 0;
  };

 public:
  explicit BodyBudget(int64_t max_bytes) : count_(std::make_shared<Count>(max_bytes)) {}

  /// The share of one body; what it holds is free again when it goes.
  class Hold {
   public:
    Hold() = default;
    explicit Hold(const BodyBudget& budget) : count_(budget.count_) {}
    Hold(Hold&& other) noexcept
        : count_(std::move(other.count_)), num_bytes_(std::exchange(other.num_bytes_, 0)) {}
    Hold& operator=(Hold&& other) noexcept {
      std::swap(count_, other.count_);
      std::swap(num_bytes_, other.num_bytes_);
      return *this;
    }
    ~Hold() { release(); }

    /// Whether it is of a budget.
    explicit operator bool() const { return count_ != nullptr; }
    /// Holds so many bytes from now on; false, with nothing changed, when there are not as many.
    /// Requires one made from a budget.
    bool resize(int64_t num_bytes) {
      const int64_t more = num_bytes - num_bytes_;
      if (count_->used_bytes.fetch_add(more) + more > count_->max_bytes && more > 0) {
        count_->used_bytes -= more;
        return false;
      }
      num_bytes_ = num_bytes;
      return true;
    }
    void release() {
      if (num_bytes_ > 0) count_->used_bytes -= std::exchange(num_bytes_, 0);
    }

   private:
    std::shared_ptr<Count> count_;
    int64_t num_bytes_ = 0;
  };

  int64_t used_bytes() const { return count_->used_bytes; }

 private:
  std::shared_ptr<Count> count_;
};

}  // namespace augur::server
