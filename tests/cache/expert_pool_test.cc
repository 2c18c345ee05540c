#include "cache/expert_pool.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "tests/cache/fake_fetcher.h"

namespace augur {
namespace {

// Three layers of eight experts, top 2.
class ExpertPoolTest : public ::testing::Test {
 protected:
  static constexpr int kLayers = 3;
  static constexpr int kExperts = 8;

  void make(int num_slots) {
    pool_ = std::make_unique<ExpertPool>(ExpertPoolShape{.num_layers = kLayers,
                                                         .num_moe_layers = kLayers,
                                                         .num_experts = kExperts,
                                                         .num_slots = num_slots,
                                                         .top_k = 2},
                                         make_lru_policy(num_slots), fetcher_, counters_);
  }

  void begin(int layer, const std::vector<int32_t>& decoding, const std::vector<int32_t>& prompt) {
    std::vector<int32_t> experts = decoding;
    experts.insert(experts.end(), prompt.begin(), prompt.end());
    std::vector<int32_t> num_rows(kExperts), num_decode_rows(kExperts);
    for (const int32_t e : decoding) num_decode_rows[e] = num_rows[e] = 1;
    // The later in the list, the more rows want it.
    for (size_t i = 0; i < prompt.size(); ++i) num_rows[prompt[i]] = static_cast<int32_t>(i + 1);
    pool_->begin(layer, experts, num_rows, num_decode_rows);
  }
  /// All groups that next() gives.
  std::vector<std::vector<int32_t>> drain() {
    std::vector<std::vector<int32_t>> groups;
    for (auto group = pool_->next(); !group.empty(); group = pool_->next()) {
      groups.emplace_back(group.begin(), group.end());
    }
    pool_->end();
    return groups;
  }
  void decode(int layer, const std::vector<int32_t>& experts) {
    begin(layer, experts, {});
    drain();
  }
  void prompt(int layer, const std::vector<int32_t>& experts) {
    begin(layer, {}, experts);
    drain();
  }
  std::vector<int32_t> resident(int layer) const {
    std::vector<int32_t> experts;
    for (int32_t e = 0; e < kExperts; ++e) {
      if (pool_->is_resident({layer, e})) experts.push_back(e);
    }
    return experts;
  }

  FakeFetcher fetcher_;
  ExpertCounters counters_{kLayers, kExperts};
  std::unique_ptr<ExpertPool> pool_;
};

using Experts = std::vector<int32_t>;

TEST_F(ExpertPoolTest, FetchesWhatIsAbsentAndKeepsIt) {
  make(4);
  decode(0, {3, 5});
  decode(0, {5, 6});
  EXPECT_EQ(fetcher_.started, (std::vector<ExpertKey>{{0, 3}, {0, 5}, {0, 6}}));
  EXPECT_EQ(counters_.layer(0).num_uses, 4);
  EXPECT_EQ(counters_.layer(0).num_hits, 1);
  EXPECT_EQ(counters_.layer(0).misses[static_cast<size_t>(MissCause::kCold)], 3);
  EXPECT_EQ(counters_.demand_bytes(), 3 * FakeFetcher::kBytes);
}

TEST_F(ExpertPoolTest, GivesWhatIsThereFirst) {
  make(4);
  decode(0, {1, 2});
  fetcher_.ends_at_once = false;
  begin(0, {0, 1, 2}, {});
  EXPECT_EQ(drain(), (std::vector<Experts>{{1, 2}, {0}}));
}

TEST_F(ExpertPoolTest, SplitsALayerThatWantsMoreThanThereIsRoomFor) {
  make(2);
  fetcher_.ends_at_once = true;
  begin(1, {0, 1, 2, 3, 4}, {});
  Experts all;
  for (const Experts& group : drain()) {
    EXPECT_LE(group.size(), 2u);
    all.insert(all.end(), group.begin(), group.end());
  }
  EXPECT_EQ(all, (Experts{0, 1, 2, 3, 4}));
}

TEST_F(ExpertPoolTest, KeepsALeasedExpertUnderPressure) {
  make(2);
  begin(0, {0, 1}, {});
  const std::span<const int32_t> leased = pool_->next();
  EXPECT_EQ(leased.size(), 2u);
  EXPECT_EQ(pool_->num_leases({0, 1}), 1);
  EXPECT_EQ(pool_->prefetch({1, 0}, FetchPriority::kNextLayer), PrefetchResult::kNoRoom);
  EXPECT_TRUE(pool_->next().empty());
  EXPECT_EQ(pool_->num_leases({0, 1}), 0);
  pool_->end();
}

TEST_F(ExpertPoolTest, ALayerKeepsItsTopKAgainstTheOthers) {
  make(7);  // more than 3 layers x 2
  decode(0, {0, 1});
  for (int i = 0; i < 10; ++i) {
    decode(1, {i % 8, (i + 3) % 8});
    decode(2, {(i + 1) % 8, (i + 5) % 8});
  }
  EXPECT_EQ(resident(0), (Experts{0, 1}));
}

TEST_F(ExpertPoolTest, TellsWhyAnExpertWasNotThere) {
  make(6);
  const auto misses = [&](MissCause cause) {
    return counters_.total().misses[static_cast<size_t>(cause)];
  };
  decode(0, {0, 1});
  EXPECT_EQ(misses(MissCause::kCold), 2);
  for (const int32_t e : {2, 4, 6}) decode(0, {e, e + 1});
  decode(0, {0});
  EXPECT_EQ(misses(MissCause::kCapacity), 1);
  EXPECT_EQ(misses(MissCause::kCold), 8);

  // Predicted, and wanted before it is there.
  for (int i = 0; i < 3; ++i) pool_->end_step(/*has_decode_rows=*/true);
  fetcher_.ends_at_once = false;
  EXPECT_EQ(pool_->prefetch({1, 4}, FetchPriority::kNextLayer), PrefetchResult::kStarted);
  decode(1, {4});
  EXPECT_EQ(misses(MissCause::kLatePrefetch), 1);
  EXPECT_EQ(counters_.layer(1).num_useful_prefetches, 1);

  // {1, 4} took the slot of the least recently used, expert 3 of layer 0.
  decode(0, {3});
  EXPECT_EQ(misses(MissCause::kMispredicted), 1);
}

TEST_F(ExpertPoolTest, APredictionThatComesTrueIsAHit) {
  make(6);
  EXPECT_EQ(pool_->prefetch({1, 4}, FetchPriority::kNextLayer), PrefetchResult::kStarted);
  EXPECT_EQ(pool_->prefetch({1, 4}, FetchPriority::kDemand), PrefetchResult::kThere);
  EXPECT_EQ(fetcher_.under_way.begin()->second, FetchPriority::kDemand) << "raised";
  pool_->poll();
  EXPECT_EQ(pool_->prefetch({1, 4}, FetchPriority::kNextLayer), PrefetchResult::kThere);
  decode(1, {4});
  EXPECT_EQ(counters_.layer(1).num_hits, 1);
  EXPECT_EQ(counters_.useful_prefetch_bytes, FakeFetcher::kBytes);
  EXPECT_EQ(counters_.demand_bytes(), 0);
}

TEST_F(ExpertPoolTest, AWrongPredictionIsCancelledOrGoesFirst) {
  make(3);
  decode(0, {7});
  pool_->prefetch({1, 4}, FetchPriority::kNextLayer);
  pool_->poll();
  pool_->prefetch({1, 5}, FetchPriority::kNextLayer);
  pool_->give_up_prefetch({1, 4});
  pool_->give_up_prefetch({1, 5});
  pool_->give_up_prefetch({0, 7});
  pool_->give_up_prefetch({2, 0});
  pool_->poll();
  EXPECT_FALSE(pool_->is_resident({1, 5})) << "it was not there yet: cancelled";
  EXPECT_TRUE(pool_->is_resident({1, 4}));
  decode(0, {6});
  decode(0, {5});
  EXPECT_FALSE(pool_->is_resident({1, 4}));
  EXPECT_EQ(resident(0), (Experts{5, 6, 7}));
  EXPECT_EQ(counters_.layer(1).num_wasted_prefetches, 2);
  EXPECT_EQ(counters_.wasted_prefetch_bytes, FakeFetcher::kBytes);
}

TEST_F(ExpertPoolTest, APredictionMayTakeTheSlotOfAWrongOneOnly) {
  make(2);
  pool_->prefetch({1, 4}, FetchPriority::kNextLayer);
  pool_->prefetch({1, 5}, FetchPriority::kNextLayer);
  pool_->poll();
  pool_->end_step(true);
  EXPECT_EQ(pool_->prefetch({2, 6}, FetchPriority::kNextLayer), PrefetchResult::kNoRoom);
  pool_->give_up_prefetch({1, 5});
  EXPECT_EQ(pool_->prefetch({2, 6}, FetchPriority::kNextLayer), PrefetchResult::kStarted);
  EXPECT_EQ(resident(1), (Experts{4}));
}

TEST_F(ExpertPoolTest, AWrongPredictionThatCouldNotBeCancelledGoesFirst) {
  make(2);
  fetcher_.finishes_cancelled = true;
  pool_->prefetch({1, 4}, FetchPriority::kNextLayer);
  pool_->give_up_prefetch({1, 4});
  decode(0, {7});
  EXPECT_TRUE(pool_->is_resident({1, 4}));
  decode(0, {6});
  EXPECT_EQ(resident(0), (Experts{6, 7}));
  EXPECT_EQ(counters_.layer(1).num_wasted_prefetches, 1);
}

TEST_F(ExpertPoolTest, APredictionTakesNoSlotThatDecodedInTheLastStep) {
  make(3);
  decode(0, {0, 1, 2});
  pool_->end_step(true);
  decode(0, {0, 1});
  EXPECT_EQ(pool_->prefetch({1, 4}, FetchPriority::kNextLayer), PrefetchResult::kNoRoom);
  pool_->end_step(false);
  EXPECT_EQ(pool_->prefetch({1, 4}, FetchPriority::kNextLayer), PrefetchResult::kNoRoom)
      << "nothing decoded in that step";
  pool_->end_step(true);
  EXPECT_EQ(pool_->prefetch({1, 4}, FetchPriority::kNextLayer), PrefetchResult::kStarted);
  EXPECT_EQ(resident(0), (Experts{0, 1}));
}

TEST_F(ExpertPoolTest, ALongPromptDoesNotFlushWhatDecodes) {
  make(18);  // six a layer
  for (int layer = 0; layer < kLayers; ++layer) decode(layer, {0, 1});
  pool_->end_step(true);
  for (int layer = 0; layer < kLayers; ++layer) prompt(layer, {2, 3, 4, 5, 6, 7, 0});
  pool_->end_step(false);
  for (int layer = 0; layer < kLayers; ++layer) {
    EXPECT_TRUE(pool_->is_resident({layer, 0}));
    EXPECT_TRUE(pool_->is_resident({layer, 1}));
    EXPECT_TRUE(pool_->is_resident({layer, 7})) << "which most of the prompt's rows want";
    EXPECT_EQ(pool_->num_resident(layer), 6) << "a share each";
  }
}

TEST_F(ExpertPoolTest, SaysThatAPromptTookTheSlot) {
  make(3);  // one a layer, but never less than top-k
  decode(0, {0, 1});
  for (int i = 0; i < 40; ++i) pool_->end_step(true);
  prompt(0, {2, 3, 4});
  decode(0, {0});
  EXPECT_EQ(counters_.layer(0).misses[static_cast<size_t>(MissCause::kPrefillEvicted)], 1);
}

TEST_F(ExpertPoolTest, AFailedFetchIsToldToWhoNeedsItAndNobodyElse) {
  make(4);
  fetcher_.broken = {{0, 3}};
  EXPECT_EQ(pool_->prefetch({0, 3}, FetchPriority::kBackground), PrefetchResult::kStarted);
  pool_->poll();
  EXPECT_FALSE(pool_->is_fetching({0, 3})) << "nobody needed it";
  begin(0, {2, 3}, {});
  try {
    while (!pool_->next().empty()) continue;
    FAIL() << "expert 3 cannot be there";
  } catch (const ExpertUnavailable& error) {
    EXPECT_EQ(error.key, (ExpertKey{0, 3}));
    EXPECT_STREQ(error.what(), "the disk is gone");
  }
  EXPECT_EQ(counters_.num_failed_fetches, 2);
  decode(0, {2, 4});
  fetcher_.broken.clear();
  decode(0, {3});
  EXPECT_TRUE(pool_->is_resident({0, 3}));
}

TEST_F(ExpertPoolTest, CountsTheStepsAnExpertStayed) {
  make(2);
  decode(0, {0, 1});
  for (int i = 0; i < 5; ++i) pool_->end_step(true);
  decode(0, {2});
  pool_->end_step(true);
  EXPECT_EQ(pool_->resident_steps({0, 0}), 5);
  EXPECT_EQ(pool_->resident_steps({0, 1}), 6);
  EXPECT_EQ(pool_->resident_steps({0, 2}), 1);
}

TEST_F(ExpertPoolTest, RefusesWhatItCannotHold) {
  EXPECT_THROW(make(1), std::logic_error) << "fewer slots than top-k";
  make(2);
  EXPECT_THROW(pool_->prefetch({kLayers, 0}, FetchPriority::kDemand), std::logic_error);
  EXPECT_THROW(pool_->prefetch({0, kExperts}, FetchPriority::kDemand), std::logic_error);
  begin(0, {1}, {});
  EXPECT_THROW(begin(1, {1}, {}), std::logic_error) << "a layer is under way";
  pool_->end();
  EXPECT_THROW(begin(0, {1, 1}, {}), std::logic_error);
}

// Whatever happens in whatever order, a layer gets each expert it wants once, in the slot the table
// names, and the counts add up.
TEST(ExpertPoolRandomTest, GivesEachWantedExpertOnceWhateverHappens) {
  constexpr int kLayers = 4;
  constexpr int kExperts = 12;
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    FakeFetcher fetcher;
    fetcher.random = &random;
    ExpertCounters counters(kLayers, kExperts);
    const int top_k = 1 + static_cast<int>(random() % 4);
    const int num_slots = top_k + static_cast<int>(random() % 40);
    auto policy = round % 3 == 0   ? make_lru_policy(num_slots)
                  : round % 3 == 1 ? make_lfu_policy(num_slots, 20)
                                   : make_least_stale_policy(num_slots);
    ExpertPool pool({kLayers, kLayers, kExperts, num_slots, top_k}, std::move(policy), fetcher,
                    counters);
    int64_t num_wanted = 0;
    for (int step = 0; step < 30; ++step) {
      for (int layer = 0; layer < kLayers; ++layer) {
        std::vector<int32_t> experts(kExperts), num_rows(kExperts), num_decode_rows(kExperts);
        std::iota(experts.begin(), experts.end(), 0);
        std::shuffle(experts.begin(), experts.end(), random);
        experts.resize(1 + random() % kExperts);
        std::sort(experts.begin(), experts.end());
        for (const int32_t e : experts) {
          num_rows[e] = 1 + static_cast<int32_t>(random() % 9);
          num_decode_rows[e] = random() % 2 == 0 ? 0 : 1;
        }
        if (random() % 8 == 0) fetcher.broken = {{layer, experts[random() % experts.size()]}};
        pool.begin(layer, experts, num_rows, num_decode_rows);
        num_wanted += static_cast<int64_t>(experts.size());
        std::set<int32_t> given;
        try {
          for (auto group = pool.next(); !group.empty(); group = pool.next()) {
            for (const int32_t e : group) {
              ASSERT_TRUE(given.insert(e).second) << "given twice";
              const int32_t slot = pool.slots_of(layer)[e];
              ASSERT_GE(slot, 0);
              ASSERT_EQ(fetcher.content.at(slot), (ExpertKey{layer, e}));
              ASSERT_FALSE(fetcher.under_way.contains(slot));
            }
            for (int i = static_cast<int>(random() % 3); i > 0; --i) {
              pool.prefetch(
                  {static_cast<int>(random() % kLayers), static_cast<int>(random() % kExperts)},
                  static_cast<FetchPriority>(1 + random() % 3));
            }
            for (const int32_t e : group) {
              ASSERT_EQ(fetcher.content.at(pool.slots_of(layer)[e]), (ExpertKey{layer, e}));
            }
          }
          ASSERT_EQ(given.size(), experts.size());
        } catch (const ExpertUnavailable& error) {
          ASSERT_EQ(error.key, fetcher.broken.at(0));
        }
        pool.end();
        fetcher.broken.clear();
        pool.give_up_prefetch({layer, static_cast<int>(random() % kExperts)});
        pool.poll();
      }
      pool.end_step(random() % 2 == 0);
    }
    const ExpertUseCounts total = counters.total();
    EXPECT_EQ(total.num_uses, num_wanted);
    EXPECT_EQ(total.num_misses(),
              std::accumulate(total.misses.begin(), total.misses.end(), int64_t{0}));
    EXPECT_LE(total.num_useful_prefetches + total.num_wasted_prefetches, total.num_prefetches);
  }
}

}  // namespace
}  // namespace augur
