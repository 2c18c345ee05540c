#include "cache/eviction_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <stdexcept>

namespace augur {
namespace {

constexpr auto kAny = [](int) { return true; };

// A pool of one layer's experts: asks for one after the other and says who had to give way.
class Pool {
 public:
  Pool(int num_slots, EvictionPolicy& policy) : experts_(num_slots, -1), policy_(policy) {}

  /// Whether it was there.
  bool use(int32_t expert) {
    auto place = std::find(experts_.begin(), experts_.end(), expert);
    const bool is_hit = place != experts_.end();
    if (!is_hit) {
      place = std::find(experts_.begin(), experts_.end(), -1);
      if (place == experts_.end()) {
        place = experts_.begin() + policy_.choose_victim(kAny);
        policy_.on_evict(static_cast<int>(place - experts_.begin()));
      }
      *place = expert;
      policy_.on_fill(static_cast<int>(place - experts_.begin()), {0, expert});
    }
    policy_.on_use(static_cast<int>(place - experts_.begin()));
    return is_hit;
  }
  bool has(int32_t expert) const {
    return std::find(experts_.begin(), experts_.end(), expert) != experts_.end();
  }

 private:
  std::vector<int32_t> experts_;
  EvictionPolicy& policy_;
};

TEST(LruPolicyTest, GivesUpTheLeastRecentlyUsed) {
  const auto policy = make_lru_policy(3);
  Pool pool(3, *policy);
  for (const int32_t expert : {1, 2, 3, 1, 4}) pool.use(expert);
  EXPECT_FALSE(pool.has(2));
  pool.use(5);
  EXPECT_FALSE(pool.has(3));
  EXPECT_TRUE(pool.has(1));
}

TEST(EvictionPolicyTest, PassesOverSlotsThatMayNotBeEvicted) {
  const auto policy = make_lru_policy(3);
  for (int slot = 0; slot < 3; ++slot) {
    policy->on_fill(slot, {0, slot});
    policy->on_use(slot);
  }
  EXPECT_EQ(policy->choose_victim(kAny), 0);
  EXPECT_EQ(policy->choose_victim([](int slot) { return slot == 2; }), 2);
  EXPECT_EQ(policy->choose_victim([](int) { return false; }), -1);
}

TEST(EvictionPolicyTest, KeepsAnExpertThatWaitsForItsFirstUse) {
  const auto policy = make_lru_policy(2);
  policy->on_fill(0, {0, 7});
  policy->on_use(0);
  policy->on_fill(1, {0, 8});
  EXPECT_EQ(policy->choose_victim(kAny), 0);
}

TEST(EvictionPolicyTest, RefusesWhatCannotHappenInAPool) {
  const auto policy = make_lru_policy(1);
  EXPECT_THROW(policy->on_use(0), std::logic_error);
  EXPECT_THROW(policy->on_evict(0), std::logic_error);
  policy->on_fill(0, {0, 1});
  EXPECT_THROW(policy->on_fill(0, {0, 2}), std::logic_error);
  EXPECT_THROW(policy->on_use(1), std::out_of_range);
  EXPECT_THROW(make_lru_policy(0), std::logic_error);
  EXPECT_THROW(make_lfu_policy(1, 0), std::logic_error);
}

TEST(EvictionPolicyTest, WhatWasBroughtInVainGoesFirst) {
  for (const auto& policy :
       {make_lru_policy(3), make_lfu_policy(3, 10), make_least_stale_policy(3)}) {
    for (int slot = 0; slot < 3; ++slot) {
      policy->on_fill(slot, {slot, 0});
      if (slot != 1) policy->on_use(slot);
    }
    policy->on_unneeded(1);
    EXPECT_EQ(policy->choose_victim(kAny), 1);
    policy->on_use(1);  // needed after all
    EXPECT_NE(policy->choose_victim(kAny), 1);
    policy->on_unneeded(1);
    policy->on_evict(1);
    EXPECT_NE(policy->choose_victim(kAny), 1);
  }
}

TEST(LeastStalePolicyTest, GivesUpTheStaleOfTheLayerThatComesAgainLast) {
  const auto policy = make_least_stale_policy(6);
  // Two passes of three layers; slot 2 * layer is used in both, 2 * layer + 1 in the first.
  for (int slot = 0; slot < 6; ++slot) {
    policy->on_fill(slot, {slot / 2, slot % 2});
    policy->on_use(slot);
  }
  for (const int slot : {0, 2}) policy->on_use(slot);
  // The second pass stands at layer 1; the stale ones are 1, 3 and, not reached yet, 4 and 5.
  std::vector<int> order;
  for (int i = 0; i < 6; ++i) {
    order.push_back(policy->choose_victim(kAny));
    policy->on_evict(order.back());
  }
  EXPECT_EQ(order, (std::vector<int>{3, 1, 4, 5, 2, 0}));
}

TEST(LfuPolicyTest, KeepsTheFrequentOverTheRecent) {
  const auto policy = make_lfu_policy(2, /*half_life=*/1e6);
  Pool pool(2, *policy);
  for (const int32_t expert : {1, 1, 1, 2, 3, 4}) pool.use(expert);
  EXPECT_TRUE(pool.has(1));
  EXPECT_TRUE(pool.has(4));
}

TEST(LfuPolicyTest, ForgetsWithTheHalfLife) {
  const auto policy = make_lfu_policy(2, /*half_life=*/2);
  Pool pool(2, *policy);
  for (const int32_t expert : {1, 1, 1, 1, 2, 3, 2, 3, 2, 3}) pool.use(expert);
  EXPECT_FALSE(pool.has(1)) << "four uses long ago weigh less than three of late";
}

TEST(LfuPolicyTest, RemembersCountsOfExpertsThatLeft) {
  const auto policy = make_lfu_policy(1, /*half_life=*/1e6);
  Pool pool(1, *policy);
  for (const int32_t expert : {1, 1, 1, 2, 1}) pool.use(expert);
  const auto two = make_lfu_policy(2, 1e6);
  Pool larger(2, *two);
  for (const int32_t expert : {1, 1, 2, 2, 3, 3, 3, 1, 1, 2}) larger.use(expert);
  EXPECT_TRUE(larger.has(1)) << "four uses in all";
}

TEST(LfuPolicyTest, CountsBeyondWhatADoubleHoldsKeepTheirOrder) {
  const auto policy = make_lfu_policy(2, /*half_life=*/1);
  Pool pool(2, *policy);
  for (int i = 0; i < 5000; ++i) pool.use(i % 2);  // weights up to 2^5000
  pool.use(7);
  EXPECT_FALSE(pool.has(0));
  EXPECT_TRUE(pool.has(1));
}

// The fewest misses any choice of victims allows, by trying all.
int fewest_misses(const std::vector<int32_t>& uses,
                  size_t next,
                  std::vector<int32_t> held,
                  int size) {
  while (next < uses.size() && std::find(held.begin(), held.end(), uses[next]) != held.end())
    ++next;
  if (next == uses.size()) return 0;
  if (static_cast<int>(held.size()) < size) {
    held.push_back(uses[next]);
    return 1 + fewest_misses(uses, next + 1, held, size);
  }
  int fewest = static_cast<int>(uses.size());
  for (int32_t& victim : held) {
    const int32_t kept = std::exchange(victim, uses[next]);
    fewest = std::min(fewest, 1 + fewest_misses(uses, next + 1, held, size));
    victim = kept;
  }
  return fewest;
}

TEST(BeladyPolicyTest, MissesAsSeldomAsAnyChoiceOfVictimsAllows) {
  std::mt19937 generator(5);
  for (int round = 0; round < 200; ++round) {
    const int num_slots = 2 + round % 2;
    std::vector<int32_t> uses(12);
    for (int32_t& expert : uses) expert = static_cast<int32_t>(generator() % 5);
    std::vector<ExpertKey> keys;
    for (const int32_t expert : uses) keys.push_back({0, expert});
    const auto policy = make_belady_policy(num_slots, keys);
    Pool pool(num_slots, *policy);
    int misses = 0;
    for (const int32_t expert : uses) misses += !pool.use(expert);
    EXPECT_EQ(misses, fewest_misses(uses, 0, {}, num_slots)) << "round " << round;
  }
}

TEST(BeladyPolicyTest, RefusesOtherUsesThanAnnounced) {
  const auto policy = make_belady_policy(1, {{0, 1}});
  policy->on_fill(0, {0, 2});
  EXPECT_THROW(policy->on_use(0), std::logic_error);
}

}  // namespace
}  // namespace augur
