// A BlockReader between the Loader and a real one, for tests: reads end late, in another order,
// short or failed, as a plan says.
//
//   options.make_reader = [&](int max_reads) {
//     return std::make_unique<FaultyReader>(max_reads, [&](const BlockRead& read) {
//       return ReadFault{.delay_us = random() % 500, .result = is_bad(read) ? -EIO :
//       read.num_bytes};
//     });
//   };
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "prefetch/block_reader.h"

namespace augur {

struct ReadFault {
  int64_t delay_us = 0;           // at least so long until it ends
  std::function<bool()> may_end;  // and not before this is true; empty: any time
  std::optional<int64_t> result;  // reported in place of what was read; -errno
};

class FaultyReader final : public BlockReader {
 public:
  /// Asked for each read when it begins, by the worker that begins it: several readers' plans may
  /// run at once.
  using Plan = std::function<ReadFault(const BlockRead&)>;

  FaultyReader(int max_reads, Plan plan, ReadMethod method = ReadMethod::kPread)
      : reader_(make_block_reader(method, max_reads)), plan_(std::move(plan)) {}

  std::string_view name() const override { return "faulty"; }

  void begin(const BlockRead& read) override {
    ReadFault fault = plan_(read);
    const auto due = Clock::now() + std::chrono::microseconds(fault.delay_us);
    under_way_.push_back({read.tag, std::move(fault), due, {}});
    reader_->begin(read);
  }

  std::span<const BlockReadEnd> wait(bool blocks) override {
    ended_.clear();
    while (true) {
      for (const BlockReadEnd& end : reader_->wait(/*blocks=*/false)) {
        for (UnderWay& read : under_way_) {
          if (read.tag == end.tag) read.num_bytes = read.fault.result.value_or(end.num_bytes);
        }
      }
      std::erase_if(under_way_, [&](const UnderWay& read) {
        if (!read.num_bytes || Clock::now() < read.due) return false;
        if (read.fault.may_end && !read.fault.may_end()) return false;
        ended_.push_back({read.tag, *read.num_bytes});
        return true;
      });
      if (!ended_.empty() || is_woken_.exchange(false) || !blocks) return ended_;
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }

  void wake() override { is_woken_ = true; }

 private:
  using Clock = std::chrono::steady_clock;
  struct UnderWay {
    int tag = 0;
    ReadFault fault;
    Clock::time_point due;
    std::optional<int64_t> num_bytes;  // once the real reader is done
  };

  std::unique_ptr<BlockReader> reader_;
  Plan plan_;
  std::vector<UnderWay> under_way_;
  std::vector<BlockReadEnd> ended_;
  std::atomic<bool> is_woken_{false};
};

}  // namespace augur
