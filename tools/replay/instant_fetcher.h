// A fetcher that takes no time and moves nothing: for running pools without a model.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "cache/expert_fetcher.h"

namespace augur {

class InstantFetcher final : public ExpertFetcher {
 public:
  void start(ExpertKey key, int slot, FetchPriority) override { begun_.push_back({key, slot}); }
  void raise(int, FetchPriority) override {}
  void cancel(int) override {}
  std::span<const FetchEnd> take_ended(bool) override {
    std::swap(ended_, begun_);
    begun_.clear();
    return ended_;
  }

 private:
  std::vector<FetchEnd> begun_, ended_;
};

}  // namespace augur
