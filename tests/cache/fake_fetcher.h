// A fetcher whose fetches end when the test says so, and that remembers what it was asked.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "cache/expert_fetcher.h"

namespace augur {

class FakeFetcher : public ExpertFetcher {
 public:
  static constexpr int64_t kBytes = 100;  // of every expert

  /// What a slot holds: the pool's table must say the same.
  std::map<int, ExpertKey> content;
  std::map<int, FetchPriority> under_way;
  std::vector<ExpertKey> started;
  bool ends_at_once = true;  // a fetch is done when next asked; otherwise only when waited for
  bool finishes_cancelled = false;  // it is too late for cancel()
  std::mt19937* random = nullptr;   // where given, fetches end in any order, some at a time
  std::vector<ExpertKey> broken;    // fetches of these fail

  void start(ExpertKey key, int slot, FetchPriority priority) override {
    EXPECT_TRUE(under_way.emplace(slot, priority).second) << "slot " << slot << " is being fetched";
    started.push_back(key);
    content[slot] = key;
    order_.push_back(slot);
  }
  void raise(int slot, FetchPriority priority) override {
    if (under_way.contains(slot)) under_way[slot] = std::min(under_way[slot], priority);
  }
  void cancel(int slot) override { cancelled_.push_back(slot); }
  std::span<const FetchEnd> take_ended(bool wait) override {
    ended_.clear();
    EXPECT_FALSE(wait && under_way.empty()) << "waits for nothing";
    const size_t least = wait ? 1 : 0;
    size_t count = ends_at_once ? order_.size() : least;
    if (random != nullptr) {
      std::shuffle(order_.begin(), order_.end(), *random);
      count = std::max(least, static_cast<size_t>((*random)() % (order_.size() + 1)));
    }
    for (size_t i = 0; i < count; ++i) end(order_[i]);
    order_.erase(order_.begin(), order_.begin() + static_cast<int64_t>(count));
    return ended_;
  }

 private:
  void end(int slot) {
    const ExpertKey key = content[slot];
    const bool is_cancelled = std::erase(cancelled_, slot) > 0 && !finishes_cancelled;
    const bool fails = std::find(broken.begin(), broken.end(), key) != broken.end();
    ended_.push_back({key, slot,
                      is_cancelled ? FetchOutcome::kCancelled
                      : fails      ? FetchOutcome::kFailed
                                   : FetchOutcome::kDone,
                      is_cancelled ? 0 : kBytes, fails ? "the disk is gone" : ""});
    under_way.erase(slot);
  }

  std::vector<int> order_;
  std::vector<int> cancelled_;
  std::vector<FetchEnd> ended_;
};

}  // namespace augur
