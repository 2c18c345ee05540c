#include "engine/text/merge_table.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

// Up to this many tokens, looking at every rank for the lowest beats keeping a heap.
constexpr size_t kMaxShort = 48;

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

void MergeTable::reserve(size_t num_merges) {
  slots_.assign(std::bit_ceil(num_merges * 2 + 1), Slot{});
  mask_ = slots_.size() - 1;
}

size_t MergeTable::slot_of(uint64_t pair) const {
  // Fibonacci hashing: the high half of the product depends on every bit of the pair.
  const uint64_t product = (pair ^ pair >> 29) * 0x9E3779B97F4A7C15;
  size_t slot = product >> 32 & mask_;
  while (slots_[slot].pair != pair && slots_[slot].pair != kEmpty) slot = (slot + 1) & mask_;
  return slot;
}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
  const uint64_t pair = pair_of(left, right);
  slots_[slot_of(pair)] = {pair, merge};
}

MergeTable::Merge MergeTable::find(int32_t left, int32_t right) const {
  return slots_[slot_of(pair_of(left, right))].merge;
}

size_t MergeTable::apply(std::span<int32_t> tokens, Scratch& scratch) const {
  return tokens.size() <= kMaxShort ? apply_to_short(tokens) : apply_to_long(tokens, scratch);
}

size_t MergeTable::apply_to_short(std::span<int32_t> tokens) const {
  size_t num_tokens = tokens.size();
  if (num_tokens < 2) return num_tokens;
  Merge merges[kMaxShort];  // merges[i] is of tokens i and i + 1
  for (size_t i = 0; i + 1 < num_tokens; ++i) merges[i] = find(tokens[i], tokens[i + 1]);
  while (num_tokens > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < num_tokens; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoRank) break;
    tokens[best] = merges[best].merged;
    std::copy(tokens.begin() + best + 2, tokens.begin() + num_tokens, tokens.begin() + best + 1);
    std::copy(merges + best + 1, merges + num_tokens - 1, merges + best);
    --num_tokens;
    if (best > 0) merges[best - 1] = find(tokens[best - 1], tokens[best]);
    if (best + 1 < num_tokens) merges[best] = find(tokens[best], tokens[best + 1]);
  }
  return num_tokens;
}

size_t MergeTable::apply_to_long(std::span<int32_t> tokens, Scratch& scratch) const {
  AUGUR_REQUIRE(tokens.size() < UINT32_MAX, std::to_string(tokens.size()) + " tokens in a word");
  const auto num_tokens = static_cast<uint32_t>(tokens.size());
  constexpr int32_t kGone = -1;  // merged into the token on its left
  // Candidates, lowest rank first, then leftmost: rank << 32 | position of the left token.
  auto& queue = scratch.queue;
  auto& links = scratch.links;
  queue.clear();
  links.resize(num_tokens);
  for (uint32_t i = 0; i < num_tokens; ++i) {
    links[i] = {i - 1, i + 1};  // the first has none on its left: UINT32_MAX
    if (i + 1 == num_tokens) break;
    const Merge merge = find(tokens[i], tokens[i + 1]);
    if (merge.rank != kNoRank) queue.push_back(uint64_t{merge.rank} << 32 | i);
  }
  std::make_heap(queue.begin(), queue.end(), std::greater<>());
  const auto propose = [&](uint32_t left, uint32_t right) {
    const Merge merge = find(tokens[left], tokens[right]);
    if (merge.rank == kNoRank) return;
    queue.push_back(uint64_t{merge.rank} << 32 | left);
    std::push_heap(queue.begin(), queue.end(), std::greater<>());
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const auto left = static_cast<uint32_t>(queue.back());
    const auto rank = static_cast<uint32_t>(queue.back() >> 32);
    queue.pop_back();
    if (tokens[left] == kGone || links[left].next == num_tokens) continue;
    const uint32_t right = links[left].next;
    const Merge merge = find(tokens[left], tokens[right]);
    if (merge.rank != rank) continue;  // out of date: one of the two has merged since
    tokens[left] = merge.merged;
    tokens[right] = kGone;
    const uint32_t after = links[right].next;
    links[left].next = after;
    if (after < num_tokens) {
      links[after].previous = left;
      propose(left, after);
    }
    if (links[left].previous != UINT32_MAX) propose(links[left].previous, left);
  }
  return std::remove(tokens.begin(), tokens.end(), kGone) - tokens.begin();
}

}  // namespace augur
