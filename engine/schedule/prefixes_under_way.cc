#include "engine/schedule/prefixes_under_way.h"

#include <algorithm>
#include <span>

namespace augur {
namespace {

constexpr int32_t kNoBlock = -1;

int32_t last_of(std::span<const int32_t> blocks) {
  return blocks.empty() ? kNoBlock : blocks.back();
}

/// FNV-1a over words, its high bits mixed into the low ones.
uint64_t hash_block(int32_t before, const SplitText& text, int64_t first, int block_size) {
  uint64_t hash = 0xCBF29CE484222325u;
  const auto add = [&hash](int32_t word) {
    hash = (hash ^ static_cast<uint32_t>(word)) * 0x100000001B3u;
  };
  add(before);
  for (int64_t i = first; i < first + block_size; ++i) add(text[i]);
  return hash ^ (hash >> 32);
}

}  // namespace

void PrefixesUnderWay::add(const Sequence& sequence, int64_t end) {
  if (sequence.request->prefix_root == nullptr) return;
  const int64_t first_block = sequence.num_shared_blocks;
  const int64_t end_block = std::min(end, sequence.prompt_rows) / block_size_;
  if (end_block <= first_block) return;
  const int32_t before = last_of(std::span(sequence.blocks).first(first_block));
  const uint64_t key = hash_block(before, sequence.text(), first_block * block_size_, block_size_);
  entries_.emplace(key, Entry{&sequence, end_block});
}

int64_t PrefixesUnderWay::num_common(const Sequence& sequence,
                                     const Beginning& beginning,
                                     int64_t max_blocks) const {
  const int64_t first_block = beginning.num_blocks();
  if (entries_.empty() || max_blocks <= first_block) return 0;
  const int32_t before = last_of(beginning.blocks);
  const SplitText text = sequence.text();
  const int64_t first = first_block * block_size_;
  int64_t most = 0;
  const auto [begin, end] = entries_.equal_range(hash_block(before, text, first, block_size_));
  for (auto it = begin; it != end; ++it) {
    const auto& [other, end_block] = it->second;
    if (other->request->prefix_root != sequence.request->prefix_root ||
        other->num_shared_blocks != first_block ||
        last_of(std::span(other->blocks).first(first_block)) != before) {
      continue;
    }
    const int64_t num_blocks = std::min(end_block, max_blocks) - first_block;
    // What is under way is of a prompt.
    const auto tokens =
        std::span(other->request->request.prompt_ids).subspan(first, num_blocks * block_size_);
    most = std::max(most, num_equal(tokens, text, first) / block_size_);
  }
  return most;
}

}  // namespace augur
