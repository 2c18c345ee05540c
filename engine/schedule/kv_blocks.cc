#include "engine/schedule/kv_blocks.h"

#include <algorithm>
#include <string>

#include "kernels/require.h"

namespace augur {

KvBlocks::KvBlocks(int64_t num_blocks, int block_size, bool keeps_prefixes)
    : block_size_(block_size),
      keeps_prefixes_(keeps_prefixes),
      allocator_(num_blocks),
      cache_(allocator_, block_size) {}

void KvBlocks::open(ActiveRequest& request) {
  if (keeps_prefixes_) {
    request.prefix_root = cache_.open(request.request.cache_salt);
  } else if (request.sequences.size() > 1) {
    request.prefix_root = cache_.open_own();
  }
}

void KvBlocks::close(ActiveRequest& request) {
  if (request.prefix_root == nullptr) return;
  cache_.close(request.prefix_root);
  request.prefix_root = nullptr;
}

int64_t KvBlocks::max_beginning(const Sequence& sequence) const {
  const ActiveRequest& active = *sequence.request;
  int64_t num_positions = sequence.num_known() - 1;
  const int64_t num_prompt = static_cast<int64_t>(active.request.prompt_ids.size());
  if (sequence.scores_prompt() && active.next_scored() < num_prompt) {
    // The row before a token scores it.
    num_positions = std::min(num_positions, active.next_scored() - 1);
  }
  return num_positions / block_size_;
}

void KvBlocks::find_beginning(const Sequence& sequence, Beginning& beginning) const {
  beginning.blocks.clear();
  beginning.num_idle = 0;
  const PrefixCache::Root* const root = sequence.request->prefix_root;
  if (root == nullptr) return;
  beginning.num_idle =
      cache_.match(*root, sequence.text(), max_beginning(sequence), beginning.blocks);
}

int64_t KvBlocks::num_cached_blocks(ActiveRequest& request) {
  if (request.prefix_root == nullptr) return 0;
  if (request.searched_at != cache_.version()) {
    const SplitText prompt{.prompt = request.request.prompt_ids, .output = {}};
    cache_.match(*request.prefix_root, prompt, prompt.num_tokens() / block_size_, found_);
    request.num_cached_blocks = static_cast<int64_t>(found_.size());
    request.searched_at = cache_.version();
  }
  return request.num_cached_blocks;
}

void KvBlocks::begin(Sequence& sequence, const Beginning& beginning, int64_t num_blocks) {
  AUGUR_REQUIRE(sequence.blocks.empty(), "the sequence holds blocks");
  cache_.acquire(beginning.blocks);
  sequence.blocks = beginning.blocks;
  sequence.num_shared_blocks = beginning.num_blocks();
  sequence.num_computed = beginning.num_blocks() * block_size_;
  AUGUR_REQUIRE(try_grow(sequence, num_blocks), std::to_string(num_blocks) + " blocks of which " +
                                                    std::to_string(num_available()) +
                                                    " are available");
}

bool KvBlocks::try_grow(Sequence& sequence, int64_t num_blocks) {
  const int64_t num_missing = num_blocks - static_cast<int64_t>(sequence.blocks.size());
  if (num_missing > num_available()) return false;
  if (num_missing > num_free()) num_evicted_ += cache_.evict(num_missing - num_free());
  for (int64_t i = 0; i < num_missing; ++i) sequence.blocks.push_back(allocator_.allocate());
  return true;
}

void KvBlocks::share_prompt(Sequence& sequence) {
  if (sequence.request->prefix_root == nullptr) return;
  insert(sequence, std::min(sequence.num_computed, sequence.prompt_rows));
}

void KvBlocks::take_back(Sequence& sequence) {
  if (keeps_prefixes_) insert(sequence, sequence.num_computed);
  const auto blocks = std::span<const int32_t>(sequence.blocks);
  cache_.release(blocks.first(sequence.num_shared_blocks));
  for (const int32_t block_id : blocks.subspan(sequence.num_shared_blocks)) {
    allocator_.release(block_id);
  }
  sequence.blocks.clear();
  sequence.num_shared_blocks = 0;
  sequence.num_computed = 0;
}

// The whole blocks of the first so many positions.
void KvBlocks::insert(Sequence& sequence, int64_t num_positions) {
  const int64_t num_blocks = num_positions / block_size_;
  if (num_blocks <= sequence.num_shared_blocks) return;
  cache_.insert(*sequence.request->prefix_root, sequence.text(), sequence.num_shared_blocks,
                num_blocks, sequence.blocks);
  sequence.num_shared_blocks = num_blocks;
}

}  // namespace augur
