// Which KV blocks hold the keys and values of which beginnings of texts.
//
// A radix tree over whole blocks: a node is a run of blocks with their tokens, and its children are
// how texts went on after it, told apart by their first block, token by token. Texts of different
// roots share nothing; a root stands for a salt, or for one request alone. What texts share less
// than a block of is not shared: no block is ever copied.
//
// Blocks: the tree is one holder of each of its blocks, the sequences that use it are the others. A
// sequence holds a beginning of a path, so of a path the first blocks have the most holders. A
// block is idle when the tree alone holds it. Idle blocks are given up at the ends of paths, the
// one released longest ago first; the tree knows the ends that are idle, in that order, so giving
// up a block costs a step in a sorted map at most, however many blocks are in use.
//
// Cost: a search compares each token of the text once, and per node as many first blocks as the
// logarithm of its children. 24 bytes a block of the cache, and a block's tokens twice at most.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/schedule/block_allocator.h"

namespace augur {

/// The tokens of a text in two pieces: a prompt, and what was put out after it.
struct SplitText {
  std::span<const int32_t> prompt;
  std::span<const int32_t> output;

  int64_t num_tokens() const { return static_cast<int64_t>(prompt.size() + output.size()); }
  int32_t operator[](int64_t idx) const {
    const int64_t num_prompt = static_cast<int64_t>(prompt.size());
    return idx < num_prompt ? prompt[idx] : output[idx - num_prompt];
  }
};

/// How many of `tokens` are those of `text` from `first` on, before the first that is not.
/// Requires that the text has as many from there.
int64_t num_equal(std::span<const int32_t> tokens, const SplitText& text, int64_t first);

class PrefixCache {
 public:
  struct Root;

  /// `allocator` outlives the cache, which holds none of its blocks at first. Requires
  /// block_size >= 1.
  PrefixCache(BlockAllocator& allocator, int block_size);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  /// The root of all texts with this salt, or one of its own. Valid until it is closed as often as
  /// it was opened. What is under a salt's root stays when it is closed; what is under an own root
  /// is given up, and nobody else may hold any of it then.
  Root* open(std::string_view salt);
  Root* open_own();
  void close(Root* root);

  /// Sets `blocks` to those of the longest beginning of `text` that is there, at most `max_blocks`,
  /// and returns how many of them are idle. Requires that the text has as many whole blocks.
  int64_t match(const Root& root,
                const SplitText& text,
                int64_t max_blocks,
                std::vector<int32_t>& blocks) const;

  /// Adds a holder to each of `blocks`, which match() found.
  void acquire(std::span<const int32_t> blocks);

  /// Puts in the first `num_blocks` of `blocks`, which hold the keys and values of as many blocks
  /// of `text`; the first `num_shared` are there. Where another block is there for the same
  /// beginning, it takes the place of the caller's, which is released. The caller holds all of
  /// them, before and after.
  void insert(Root& root,
              const SplitText& text,
              int64_t num_shared,
              int64_t num_blocks,
              std::vector<int32_t>& blocks);

  /// Takes a holder off each of `blocks`, a beginning of a path. They are what was used last.
  void release(std::span<const int32_t> blocks);

  /// Gives up to `num_blocks` idle blocks back to the allocator. Returns how many it gave.
  int64_t evict(int64_t num_blocks);

  int64_t num_blocks() const { return num_blocks_; }
  int64_t num_idle() const { return num_idle_; }
  /// Changes whenever a search may find something else than before.
  int64_t version() const { return version_; }

 private:
  struct Node;
  /// A text from some position on, as a place among children.
  struct Probe {
    const SplitText* text;
    int64_t first;
  };
  struct FirstBlockLess;

  Node* make_node();
  void recycle(Node& node);
  Node* child_of(const Node& node, const SplitText& text, int64_t first) const;
  /// Blocks of `node` from the `first`-th on that are those of the text from `block_idx` on.
  int64_t num_common(const Node& node,
                     int64_t first,
                     const SplitText& text,
                     int64_t block_idx,
                     int64_t most) const;
  /// Cuts a node after so many blocks; returns the new node that has them, its parent.
  Node& split(Node& node, int64_t num_blocks);
  void append(Node& node, const SplitText& text, int64_t first, std::span<const int32_t> blocks);
  void take_over(int32_t& block_id, int32_t cached_id);
  bool is_idle(int32_t block_id) const { return allocator_.num_holders(block_id) == 1; }
  /// Notes an end of a path that is idle; forgets it.
  void list_if_idle(Node& node);
  void unlist(Node& node);
  int64_t trim(Node& node, int64_t num_blocks);
  void remove(Node& node);
  void give_up(int32_t block_id);
  void drop_all(Node& top);

  BlockAllocator& allocator_;
  const int block_size_;

  std::list<Root> roots_;
  std::unordered_map<std::string_view, Root*> root_of_salt_;  // the keys are the roots' own
  std::list<Node> nodes_;  // also those free: so a tree of any depth is destroyed without recursion
  std::vector<Node*> free_nodes_;
  // By block: of those in the tree, the node it is in, and when it was released last.
  std::vector<Node*> node_of_;
  std::vector<int64_t> last_used_;
  std::map<int64_t, Node*> idle_ends_;  // by last_used_ of their last block, which differ
  int64_t num_blocks_ = 0;
  int64_t num_idle_ = 0;
  int64_t clock_ = 0;
  int64_t version_ = 0;
};

}  // namespace augur
