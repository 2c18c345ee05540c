#include "engine/schedule/prefix_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace augur {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Tokens = std::vector<int32_t>;

SplitText text_of(const Tokens& tokens) {
  return {tokens, {}};
}

TEST(SplitTextTest, ComparesAcrossItsSeam) {
  const Tokens tokens = {1, 2, 3, 4, 5};
  for (size_t seam = 0; seam <= tokens.size(); ++seam) {
    const SplitText text{std::span(tokens).first(seam), std::span(tokens).subspan(seam)};
    for (int64_t first = 0; first < 5; ++first) {
      EXPECT_EQ(text[first], tokens[first]);
      for (int64_t count = 0; first + count <= 5; ++count) {
        Tokens part(tokens.begin() + first, tokens.begin() + first + count);
        EXPECT_EQ(num_equal(part, text, first), count);
        for (int64_t i = 0; i < count; ++i) {
          part[i] += 10;
          EXPECT_EQ(num_equal(part, text, first), i);
          part[i] -= 10;
        }
      }
    }
  }
}

/// Blocks of two tokens.
class PrefixCacheTest : public ::testing::Test {
 protected:
  /// Puts in a text of whole blocks, and holds them until let_go.
  Tokens put(const Tokens& tokens, PrefixCache::Root* root = nullptr) {
    const auto num_blocks = static_cast<int64_t>(tokens.size()) / 2;
    Tokens blocks;
    cache_.match(root != nullptr ? *root : *root_, text_of(tokens), num_blocks, blocks);
    cache_.acquire(blocks);
    const auto num_shared = static_cast<int64_t>(blocks.size());
    while (static_cast<int64_t>(blocks.size()) < num_blocks) {
      blocks.push_back(allocator_.allocate());
    }
    cache_.insert(root != nullptr ? *root : *root_, text_of(tokens), num_shared, num_blocks,
                  blocks);
    return blocks;
  }
  Tokens put_and_let_go(const Tokens& tokens) {
    const Tokens blocks = put(tokens);
    cache_.release(blocks);
    return blocks;
  }
  Tokens found(const Tokens& tokens, PrefixCache::Root* root = nullptr) {
    Tokens blocks;
    cache_.match(root != nullptr ? *root : *root_, text_of(tokens),
                 static_cast<int64_t>(tokens.size()) / 2, blocks);
    return blocks;
  }

  BlockAllocator allocator_{12};
  PrefixCache cache_{allocator_, 2};
  PrefixCache::Root* root_ = cache_.open("");
};

TEST_F(PrefixCacheTest, FindsTheLongestBeginningInWholeBlocks) {
  const Tokens blocks = put({1, 2, 3, 4, 5, 6});
  EXPECT_EQ(found({1, 2, 3, 4, 5, 6, 7, 8}), blocks);
  EXPECT_THAT(found({1, 2, 3, 4, 5, 7}), ElementsAre(blocks[0], blocks[1]));
  EXPECT_THAT(found({1, 2, 3}), ElementsAre(blocks[0]));
  EXPECT_THAT(found({1, 3, 3, 4}), IsEmpty());
  EXPECT_THAT(found({1}), IsEmpty());
}

TEST_F(PrefixCacheTest, TextsThatPartShareWhatIsBefore) {
  const Tokens one = put({1, 1, 2, 2, 3, 3});
  const Tokens other = put({1, 1, 2, 2, 4, 4, 5, 5});
  const Tokens third = put({1, 1, 6, 6});
  EXPECT_EQ(other[0], one[0]);
  EXPECT_EQ(other[1], one[1]);
  EXPECT_NE(other[2], one[2]);
  EXPECT_EQ(third[0], one[0]);
  EXPECT_EQ(cache_.num_blocks(), 6);
  EXPECT_EQ(found({1, 1, 2, 2, 3, 3}), one);
  EXPECT_EQ(found({1, 1, 2, 2, 4, 4, 5, 5}), other);
}

TEST_F(PrefixCacheTest, TheFirstBlockOfABeginningReplacesTheSecond) {
  // Two computed the same at once; the later one goes on longer.
  Tokens one = {allocator_.allocate(), allocator_.allocate()};
  Tokens other = {allocator_.allocate(), allocator_.allocate(), allocator_.allocate()};
  const Tokens of_other = other;
  cache_.insert(*root_, text_of({1, 1, 2, 2}), 0, 2, one);
  cache_.insert(*root_, text_of({1, 1, 2, 2, 3, 3}), 0, 3, other);
  EXPECT_THAT(other, ElementsAre(one[0], one[1], of_other[2]));
  EXPECT_EQ(allocator_.num_free(), 12 - 3);
  EXPECT_EQ(allocator_.num_holders(one[0]), 3);
  EXPECT_EQ(cache_.num_idle(), 0);
  cache_.release(one);
  EXPECT_EQ(cache_.num_idle(), 0);
  cache_.release(other);
  EXPECT_EQ(cache_.num_idle(), 3);
}

TEST_F(PrefixCacheTest, GivesUpEndsThatWereReleasedLongestAgo) {
  put_and_let_go({1, 1, 2, 2});
  put_and_let_go({1, 1, 3, 3});
  put_and_let_go({4, 4});
  put_and_let_go({1, 1, 2, 2});  // used again
  EXPECT_EQ(cache_.evict(1), 1);
  EXPECT_EQ(found({1, 1, 3, 3}).size(), 1u);
  EXPECT_EQ(cache_.evict(1), 1);
  EXPECT_THAT(found({4, 4}), IsEmpty());
  EXPECT_EQ(cache_.evict(1), 1);
  EXPECT_EQ(found({1, 1, 2, 2}).size(), 1u) << "the end goes before what it follows";
  EXPECT_EQ(cache_.evict(5), 1);
  EXPECT_EQ(cache_.evict(5), 0);
  EXPECT_EQ(allocator_.num_free(), 12);
}

TEST_F(PrefixCacheTest, GivesUpNothingThatIsHeld) {
  const Tokens held = put({1, 1, 2, 2});
  put_and_let_go({1, 1, 2, 2, 3, 3, 4, 4});
  put_and_let_go({1, 1, 5, 5});
  EXPECT_EQ(cache_.num_idle(), 3);
  EXPECT_EQ(cache_.evict(100), 3);
  EXPECT_EQ(found({1, 1, 2, 2, 3, 3}), held);
  EXPECT_EQ(allocator_.num_free(), 10);
}

TEST_F(PrefixCacheTest, SaltsShareNothing) {
  PrefixCache::Root* const salted = cache_.open("salt");
  EXPECT_EQ(cache_.open("salt"), salted);
  const Tokens plain = put({1, 1, 2, 2});
  EXPECT_THAT(found({1, 1, 2, 2}, salted), IsEmpty());
  const Tokens of_salt = put({1, 1, 2, 2}, salted);
  EXPECT_NE(plain[0], of_salt[0]);
  EXPECT_EQ(found({1, 1, 2, 2}, salted), of_salt);
}

TEST_F(PrefixCacheTest, WhatIsUnderASaltStaysWhenNobodyHasItOpen) {
  PrefixCache::Root* salted = cache_.open("salt");
  const Tokens blocks = put({1, 1, 2, 2}, salted);
  cache_.release(blocks);
  cache_.close(salted);
  salted = cache_.open("salt");
  EXPECT_EQ(found({1, 1, 2, 2}, salted), blocks);
  cache_.close(salted);
  EXPECT_EQ(cache_.evict(2), 2);
  EXPECT_THAT(found({1, 1}, cache_.open("salt")), IsEmpty());
}

TEST_F(PrefixCacheTest, WhatIsUnderAnOwnRootGoesWithIt) {
  PrefixCache::Root* const own = cache_.open_own();
  PrefixCache::Root* const other = cache_.open_own();
  for (const Tokens& tokens : {Tokens{1, 1, 2, 2}, Tokens{1, 1, 3, 3}, Tokens{4, 4}}) {
    cache_.release(put(tokens, own));
  }
  EXPECT_THAT(found({1, 1}, other), IsEmpty());
  EXPECT_THAT(found({1, 1}), IsEmpty());
  cache_.close(own);
  EXPECT_EQ(allocator_.num_free(), 12);
  EXPECT_EQ(cache_.num_blocks(), 0);
  EXPECT_EQ(cache_.num_idle(), 0);
  EXPECT_EQ(cache_.evict(1), 0);
}

TEST_F(PrefixCacheTest, RefusesWhatIsNotThere) {
  const Tokens blocks = put({1, 1});
  EXPECT_THROW(cache_.acquire(Tokens{blocks[0] + 1}), std::logic_error);
  EXPECT_THROW(cache_.release(Tokens{blocks[0] + 1}), std::logic_error);
  cache_.release(blocks);
  EXPECT_THROW(cache_.release(blocks), std::logic_error);
  Tokens found;
  EXPECT_THROW(cache_.match(*root_, text_of({1, 1}), 2, found), std::logic_error);
  EXPECT_THROW(PrefixCache(allocator_, 0), std::logic_error);
}

/// The same by enumeration: every beginning of whole blocks that is there, under its root.
class NaiveCache {
 public:
  explicit NaiveCache(int block_size) : block_size_(block_size) {}

  struct Entry {
    int32_t block_id;
    int num_users = 0;
    int64_t last_used = 0;
  };
  using Key = std::pair<const void*, Tokens>;

  Entry* find(const void* root, const Tokens& text, int64_t num_blocks) {
    const auto found = entries_.find(key(root, text, num_blocks));
    return found == entries_.end() ? nullptr : &found->second;
  }
  void put(const void* root, const Tokens& text, int64_t num_blocks, int32_t block_id) {
    entries_[key(root, text, num_blocks)] = {block_id, 1};
  }
  void release(const void* root, const Tokens& text, int64_t num_blocks) {
    ++clock_;
    for (int64_t i = 1; i <= num_blocks; ++i) {
      Entry& entry = *find(root, text, i);
      --entry.num_users;
      entry.last_used = clock_;
    }
  }
  /// Gives up the idle end used longest ago.
  bool evict() {
    auto best = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (it->second.num_users > 0 || goes_on(it)) continue;
      if (best == entries_.end() || it->second.last_used < best->second.last_used) best = it;
    }
    if (best == entries_.end()) return false;
    entries_.erase(best);
    return true;
  }
  void drop(const void* root) {
    std::erase_if(entries_, [&](const auto& entry) { return entry.first.first == root; });
  }
  int64_t num_blocks() const { return static_cast<int64_t>(entries_.size()); }
  int64_t num_idle() const {
    return std::count_if(entries_.begin(), entries_.end(),
                         [](const auto& entry) { return entry.second.num_users == 0; });
  }

 private:
  Key key(const void* root, const Tokens& text, int64_t num_blocks) const {
    return {root, Tokens(text.begin(), text.begin() + num_blocks * block_size_)};
  }
  // What begins with a text comes right after it in the order of the map.
  bool goes_on(std::map<Key, Entry>::const_iterator it) const {
    const auto next = std::next(it);
    if (next == entries_.end() || next->first.first != it->first.first) return false;
    const Tokens& text = it->first.second;
    return next->first.second.size() > text.size() &&
           std::equal(text.begin(), text.end(), next->first.second.begin());
  }

  const int block_size_;
  std::map<Key, Entry> entries_;
  int64_t clock_ = 0;
};

/// Random users of a cache and of its naive twin.
class TwinRun {
 public:
  explicit TwinRun(uint32_t seed)
      : random_(seed),
        block_size_(in(1, 3)),
        allocator_(in(6, 40)),
        cache_(std::make_unique<PrefixCache>(allocator_, block_size_)),
        naive_(block_size_) {
    for (const char* salt : {"", "a", "b"}) roots_.push_back(cache_->open(salt));
    roots_.push_back(cache_->open_own());
  }

  void run(int num_operations) {
    for (int i = 0; i < num_operations && !::testing::Test::HasFailure(); ++i) {
      switch (in(0, 9)) {
        case 0:
        case 1:
        case 2:
          begin();
          break;
        case 3:
        case 4:
        case 5:
          go_on();
          break;
        case 6:
        case 7:
          end();
          break;
        case 8:
          search();
          break;
        case 9:
          if (in(0, 9) == 0) replace_own_root();
          evict(in(1, 3));
          break;
      }
      EXPECT_EQ(cache_->num_blocks(), naive_.num_blocks());
      EXPECT_EQ(cache_->num_idle(), naive_.num_idle());
    }
    while (!users_.empty()) end();
    EXPECT_EQ(cache_->num_idle(), cache_->num_blocks());
    cache_->evict(cache_->num_blocks());
    EXPECT_EQ(allocator_.num_free(), allocator_.num_blocks());
  }

  int num_found() const { return num_found_; }
  int num_replaced() const { return num_replaced_; }

 private:
  struct User {
    PrefixCache::Root* root;
    Tokens text;
    size_t seam;  // between prompt and output
    Tokens blocks;
    int64_t num_shared;

    SplitText split() const { return {std::span(text).first(seam), std::span(text).subspan(seam)}; }
  };

  int in(int low, int high) { return low + static_cast<int>(random_() % (high - low + 1)); }

  Tokens random_text() {
    Tokens text(in(1, 8 * block_size_));
    for (int32_t& id : text) id = in(0, 5) == 0 ? 1 : 0;
    return text;
  }

  /// What a search finds, in both.
  Tokens search(PrefixCache::Root* root, const SplitText& split, const Tokens& text) {
    const int64_t max_blocks = in(0, static_cast<int>(text.size()) / block_size_);
    Tokens found;
    const int64_t num_idle = cache_->match(*root, split, max_blocks, found);
    Tokens expected;
    int64_t expected_idle = 0;
    while (static_cast<int64_t>(expected.size()) < max_blocks) {
      const NaiveCache::Entry* entry =
          naive_.find(root, text, static_cast<int64_t>(expected.size()) + 1);
      if (entry == nullptr) break;
      expected.push_back(entry->block_id);
      expected_idle += entry->num_users == 0;
    }
    EXPECT_EQ(found, expected);
    EXPECT_EQ(num_idle, expected_idle);
    return found;
  }

  void search() {
    const Tokens text = random_text();
    PrefixCache::Root* const root = roots_[in(0, 3)];
    search(root, text_of(text), text);
    // As long as the version stays, so does what is found.
    Tokens found;
    const auto max_blocks = static_cast<int64_t>(text.size()) / block_size_;
    cache_->match(*root, text_of(text), max_blocks, found);
    auto& [version, before] = seen_[{root, text}];
    if (version == cache_->version()) {
      EXPECT_EQ(found, before);
    }
    version = cache_->version();
    before = found;
  }

  void begin() {
    User user{.root = roots_[in(0, 3)], .text = random_text()};
    user.seam = in(0, static_cast<int>(user.text.size()));
    user.blocks = search(user.root, user.split(), user.text);
    user.num_shared = static_cast<int64_t>(user.blocks.size());
    cache_->acquire(user.blocks);
    for (int64_t i = 1; i <= user.num_shared; ++i) {
      ++naive_.find(user.root, user.text, i)->num_users;
    }
    if (user.num_shared > 0) ++num_found_;
    const auto num_blocks = static_cast<int64_t>(user.text.size()) / block_size_;
    const int64_t num_missing = num_blocks - user.num_shared;
    if (num_missing > allocator_.num_free()) evict(num_missing - allocator_.num_free());
    while (static_cast<int64_t>(user.blocks.size()) < num_blocks && allocator_.num_free() > 0) {
      user.blocks.push_back(allocator_.allocate());
    }
    users_.push_back(std::move(user));
  }

  /// Somebody has computed some more.
  void go_on() {
    if (users_.empty()) return;
    User& user = users_[in(0, static_cast<int>(users_.size()) - 1)];
    const auto most = static_cast<int64_t>(user.blocks.size());
    const int64_t end = in(static_cast<int>(user.num_shared), static_cast<int>(most));
    const Tokens before = user.blocks;
    cache_->insert(*user.root, user.split(), user.num_shared, end, user.blocks);
    for (int64_t i = 0; i < most; ++i) {
      NaiveCache::Entry* const entry = naive_.find(user.root, user.text, i + 1);
      if (i < user.num_shared || i >= end) {
        EXPECT_EQ(user.blocks[i], before[i]);
      } else if (entry == nullptr) {
        EXPECT_EQ(user.blocks[i], before[i]);
        naive_.put(user.root, user.text, i + 1, before[i]);
      } else {
        EXPECT_EQ(user.blocks[i], entry->block_id);
        ++entry->num_users;
        ++num_replaced_;
      }
    }
    user.num_shared = end;
  }

  void end() {
    if (users_.empty()) return;
    const auto which = users_.begin() + in(0, static_cast<int>(users_.size()) - 1);
    User user = std::move(*which);
    users_.erase(which);
    cache_->release(std::span(user.blocks).first(user.num_shared));
    for (const int32_t id : std::span(user.blocks).subspan(user.num_shared)) allocator_.release(id);
    naive_.release(user.root, user.text, user.num_shared);
  }

  void evict(int64_t count) {
    const int64_t num_given = cache_->evict(count);
    int64_t expected = 0;
    while (expected < count && naive_.evict()) ++expected;
    EXPECT_EQ(num_given, expected);
  }

  void replace_own_root() {
    const auto is_used = [&](const User& user) { return user.root == roots_[3]; };
    if (std::any_of(users_.begin(), users_.end(), is_used)) return;
    naive_.drop(roots_[3]);
    std::erase_if(seen_, [&](const auto& entry) { return entry.first.first == roots_[3]; });
    cache_->close(roots_[3]);
    roots_[3] = cache_->open_own();
  }

  std::mt19937 random_;
  const int block_size_;
  BlockAllocator allocator_;
  std::unique_ptr<PrefixCache> cache_;
  NaiveCache naive_;
  std::vector<PrefixCache::Root*> roots_;
  std::vector<User> users_;
  std::map<std::pair<const void*, Tokens>, std::pair<int64_t, Tokens>> seen_;
  int num_found_ = 0;
  int num_replaced_ = 0;
};

TEST(PrefixCacheRandomTest, DoesAsItsNaiveTwin) {
  int num_found = 0;
  int num_replaced = 0;
  for (uint32_t seed = 0; seed < 200 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    TwinRun run(seed);
    run.run(/*num_operations=*/400);
    num_found += run.num_found();
    num_replaced += run.num_replaced();
  }
  EXPECT_GT(num_found, 2000);
  EXPECT_GT(num_replaced, 500);
}

}  // namespace
}  // namespace augur
