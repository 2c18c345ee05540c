// A fetcher without threads: fetches end when asked for, in random order, some at a time. Until
// then a slot holds another expert's weights, so that reading it too early shows.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "cache/expert_fetcher.h"
#include "prefetch/expert_store.h"
#include "prefetch/loader.h"

namespace augur::test {

class StoreFetcher final : public ExpertFetcher {
 public:
  StoreFetcher(const ExpertStore& store, const Ops& ops, const SlotMemory& slots, uint64_t seed)
      : store_(store), ops_(ops), slots_(slots), random_(seed) {}

  void start(ExpertKey key, int slot, FetchPriority) override {
    store_.read({key.layer, (key.expert + 1) % store_.num_experts(key.layer)}, ops_,
                slots_.slot(slot), scratch_);
    under_way_.push_back({.key = key, .slot = slot});
  }
  void raise(int, FetchPriority) override {}
  void cancel(int slot) override {
    for (FetchEnd& fetch : under_way_) {
      if (fetch.slot == slot) fetch.outcome = FetchOutcome::kCancelled;
    }
  }
  std::span<const FetchEnd> take_ended(bool wait) override {
    std::shuffle(under_way_.begin(), under_way_.end(), random_);
    const size_t count = std::max<size_t>(wait ? 1 : 0, random_() % (under_way_.size() + 1));
    ended_.assign(under_way_.end() - static_cast<int64_t>(count), under_way_.end());
    under_way_.resize(under_way_.size() - count);
    for (FetchEnd& fetch : ended_) {
      if (fetch.outcome != FetchOutcome::kDone) continue;
      store_.read(fetch.key, ops_, slots_.slot(fetch.slot), scratch_);
      fetch.read_bytes = store_.stored_bytes(fetch.key);
    }
    return ended_;
  }

 private:
  const ExpertStore& store_;
  const Ops& ops_;
  const SlotMemory slots_;
  std::mt19937_64 random_;
  std::vector<FetchEnd> under_way_, ended_;
  ExpertStore::Scratch scratch_;
};

}  // namespace augur::test
