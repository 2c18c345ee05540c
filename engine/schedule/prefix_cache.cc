#include "engine/schedule/prefix_cache.h"

#include <algorithm>
#include <set>
#include <string>

#include "kernels/require.h"

namespace augur {

int64_t num_equal(std::span<const int32_t> tokens, const SplitText& text, int64_t first) {
  const int64_t num_tokens = static_cast<int64_t>(tokens.size());
  const int64_t num_prompt = static_cast<int64_t>(text.prompt.size());
  const int64_t in_prompt = std::clamp<int64_t>(num_prompt - first, 0, num_tokens);
  const auto middle = tokens.begin() + in_prompt;
  if (in_prompt > 0) {
    const auto end = std::mismatch(tokens.begin(), middle, text.prompt.begin() + first).first;
    if (end != middle) return end - tokens.begin();
  }
  if (in_prompt == num_tokens) return num_tokens;
  const auto output = text.output.begin() + (first + in_prompt - num_prompt);
  return std::mismatch(middle, tokens.end(), output).first - tokens.begin();
}

/// By the tokens of the first block.
struct PrefixCache::FirstBlockLess {
  using is_transparent = void;
  int block_size;

  bool operator()(const Node* a, const Node* b) const;
  bool operator()(const Node* a, const Probe& b) const { return compare(a, b) < 0; }
  bool operator()(const Probe& a, const Node* b) const { return compare(b, a) > 0; }
  int compare(const Node* node, const Probe& probe) const;
};

struct PrefixCache::Node {
  explicit Node(int block_size) : children({block_size}) {}

  Node* parent = nullptr;  // null: of a root, which has no blocks
  Root* root = nullptr;    // of such a node
  int64_t num_before = 0;  // blocks of the path above
  std::vector<int32_t> tokens;
  std::vector<int32_t> blocks;
  std::set<Node*, FirstBlockLess> children;
  int64_t listed_at = -1;  // its key in idle_ends_, or -1

  int64_t num_blocks() const { return static_cast<int64_t>(blocks.size()); }
};

struct PrefixCache::Root {
  explicit Root(int block_size) : top(block_size) { top.root = this; }

  Node top;
  std::string salt;
  bool is_own = false;
  int64_t num_users = 0;
  std::list<Root>::iterator self;
};

bool PrefixCache::FirstBlockLess::operator()(const Node* a, const Node* b) const {
  return std::lexicographical_compare(a->tokens.begin(), a->tokens.begin() + block_size,
                                      b->tokens.begin(), b->tokens.begin() + block_size);
}

int PrefixCache::FirstBlockLess::compare(const Node* node, const Probe& probe) const {
  const auto block = std::span(node->tokens).first(block_size);
  const int64_t end = num_equal(block, *probe.text, probe.first);
  if (end == block_size) return 0;
  return block[end] < (*probe.text)[probe.first + end] ? -1 : 1;
}

PrefixCache::PrefixCache(BlockAllocator& allocator, int block_size)
    : allocator_(allocator),
      block_size_(block_size),
      node_of_(allocator.num_blocks()),
      last_used_(allocator.num_blocks()) {
  AUGUR_REQUIRE(block_size >= 1, "block_size is " + std::to_string(block_size));
}

PrefixCache::~PrefixCache() = default;

PrefixCache::Root* PrefixCache::open(std::string_view salt) {
  const auto found = root_of_salt_.find(salt);
  Root* root = nullptr;
  if (found != root_of_salt_.end()) {
    root = found->second;
  } else {
    root = &roots_.emplace_back(block_size_);
    root->self = std::prev(roots_.end());
    root->salt = salt;
    root_of_salt_.emplace(root->salt, root);
  }
  ++root->num_users;
  return root;
}

PrefixCache::Root* PrefixCache::open_own() {
  Root& root = roots_.emplace_back(block_size_);
  root.self = std::prev(roots_.end());
  root.is_own = true;
  root.num_users = 1;
  return &root;
}

void PrefixCache::close(Root* root) {
  AUGUR_REQUIRE(root->num_users > 0, "the root is closed");
  if (--root->num_users > 0) return;
  if (root->is_own) drop_all(root->top);
  if (!root->top.children.empty()) return;
  if (!root->is_own) root_of_salt_.erase(root->salt);
  roots_.erase(root->self);
}

int64_t PrefixCache::match(const Root& root,
                           const SplitText& text,
                           int64_t max_blocks,
                           std::vector<int32_t>& blocks) const {
  AUGUR_REQUIRE(
      max_blocks * block_size_ <= text.num_tokens(),
      std::to_string(max_blocks) + " blocks of " + std::to_string(text.num_tokens()) + " tokens");
  blocks.clear();
  const Node* node = &root.top;
  for (int64_t num_found = 0; num_found < max_blocks;) {
    node = child_of(*node, text, num_found * block_size_);
    if (node == nullptr) break;
    const int64_t count = num_common(*node, 0, text, num_found, max_blocks - num_found);
    blocks.insert(blocks.end(), node->blocks.begin(), node->blocks.begin() + count);
    num_found += count;
    if (count < node->num_blocks()) break;
  }
  // Of a path the idle blocks are the last.
  int64_t num_idle = 0;
  for (auto it = blocks.rbegin(); it != blocks.rend() && is_idle(*it); ++it) ++num_idle;
  return num_idle;
}

void PrefixCache::acquire(std::span<const int32_t> blocks) {
  for (const int32_t block_id : blocks) {
    Node* const node = node_of_[block_id];
    AUGUR_REQUIRE(node != nullptr, "block " + std::to_string(block_id) + " is not in the tree");
    if (is_idle(block_id)) {
      --num_idle_;
      if (node->blocks.back() == block_id) unlist(*node);
    }
    allocator_.share(block_id);
  }
}

void PrefixCache::insert(Root& root,
                         const SplitText& text,
                         int64_t num_shared,
                         int64_t num_blocks,
                         std::vector<int32_t>& blocks) {
  AUGUR_REQUIRE(num_blocks <= static_cast<int64_t>(blocks.size()) &&
                    num_blocks * block_size_ <= text.num_tokens(),
                std::to_string(num_blocks) + " blocks of a text of " +
                    std::to_string(text.num_tokens()) + " tokens");
  if (num_blocks <= num_shared) return;
  Node* node = num_shared == 0 ? &root.top : node_of_[blocks[num_shared - 1]];
  int64_t num_passed = num_shared - node->num_before;  // blocks of the node
  for (int64_t i = num_shared; i < num_blocks;) {
    if (num_passed == node->num_blocks()) {
      Node* const child = child_of(*node, text, i * block_size_);
      if (child == nullptr) {
        append(*node, text, i, std::span(blocks).subspan(i, num_blocks - i));
        return;
      }
      node = child;
      num_passed = 0;
    }
    const int64_t count = num_common(*node, num_passed, text, i, num_blocks - i);
    for (int64_t k = 0; k < count; ++k) take_over(blocks[i + k], node->blocks[num_passed + k]);
    i += count;
    num_passed += count;
    // Where the text leaves the run, the run becomes two.
    if (i < num_blocks && num_passed < node->num_blocks()) node = &split(*node, num_passed);
  }
}

void PrefixCache::release(std::span<const int32_t> blocks) {
  ++clock_;
  for (auto it = blocks.rbegin(); it != blocks.rend(); ++it) {
    const int32_t block_id = *it;
    Node* const node = node_of_[block_id];
    AUGUR_REQUIRE(node != nullptr && !is_idle(block_id),
                  "block " + std::to_string(block_id) + " is not in use");
    allocator_.release(block_id);
    last_used_[block_id] = clock_;
    if (!is_idle(block_id)) continue;
    ++num_idle_;
    if (node->blocks.back() == block_id) list_if_idle(*node);
  }
}

int64_t PrefixCache::evict(int64_t num_blocks) {
  int64_t num_given = 0;
  while (num_given < num_blocks && !idle_ends_.empty()) {
    num_given += trim(*idle_ends_.begin()->second, num_blocks - num_given);
  }
  return num_given;
}

PrefixCache::Node* PrefixCache::make_node() {
  if (free_nodes_.empty()) return &nodes_.emplace_back(block_size_);
  Node* const node = free_nodes_.back();
  free_nodes_.pop_back();
  return node;
}

void PrefixCache::recycle(Node& node) {
  node.parent = nullptr;
  node.tokens = {};
  node.blocks = {};
  node.children.clear();
  free_nodes_.push_back(&node);
}

PrefixCache::Node* PrefixCache::child_of(const Node& node,
                                         const SplitText& text,
                                         int64_t first) const {
  const auto found = node.children.find(Probe{&text, first});
  return found == node.children.end() ? nullptr : *found;
}

int64_t PrefixCache::num_common(
    const Node& node, int64_t first, const SplitText& text, int64_t block_idx, int64_t most) const {
  const int64_t count = std::min(node.num_blocks() - first, most);
  const auto tokens = std::span(node.tokens).subspan(first * block_size_, count * block_size_);
  return num_equal(tokens, text, block_idx * block_size_) / block_size_;
}

PrefixCache::Node& PrefixCache::split(Node& node, int64_t num_blocks) {
  Node& upper = *make_node();
  Node& parent = *node.parent;
  const int64_t num_tokens = num_blocks * block_size_;
  upper.parent = &parent;
  upper.num_before = node.num_before;
  upper.tokens.assign(node.tokens.begin(), node.tokens.begin() + num_tokens);
  upper.blocks.assign(node.blocks.begin(), node.blocks.begin() + num_blocks);
  for (const int32_t block_id : upper.blocks) node_of_[block_id] = &upper;
  parent.children.erase(&node);
  parent.children.insert(&upper);
  node.parent = &upper;
  node.num_before += num_blocks;
  node.tokens.erase(node.tokens.begin(), node.tokens.begin() + num_tokens);
  node.blocks.erase(node.blocks.begin(), node.blocks.begin() + num_blocks);
  upper.children.insert(&node);
  return upper;
}

// `node` ends where the text goes on with `blocks`, and none of its children goes on so.
void PrefixCache::append(Node& node,
                         const SplitText& text,
                         int64_t first,
                         std::span<const int32_t> blocks) {
  // A run that ends here grows: the caller holds its end.
  const bool grows = node.parent != nullptr && node.children.empty();
  Node& target = grows ? node : *make_node();
  if (!grows) {
    target.parent = &node;
    target.num_before = node.num_before + node.num_blocks();
  }
  const int64_t end = (first + static_cast<int64_t>(blocks.size())) * block_size_;
  target.tokens.reserve(target.tokens.size() + blocks.size() * block_size_);
  for (int64_t i = first * block_size_; i < end; ++i) target.tokens.push_back(text[i]);
  for (const int32_t block_id : blocks) {
    allocator_.share(block_id);
    node_of_[block_id] = &target;
    target.blocks.push_back(block_id);
  }
  if (!grows) node.children.insert(&target);
  num_blocks_ += static_cast<int64_t>(blocks.size());
  ++version_;
}

void PrefixCache::take_over(int32_t& block_id, int32_t cached_id) {
  acquire(std::span(&cached_id, 1));
  allocator_.release(block_id);
  block_id = cached_id;
}

void PrefixCache::list_if_idle(Node& node) {
  if (node.parent == nullptr || !node.children.empty() || !is_idle(node.blocks.back())) return;
  node.listed_at = last_used_[node.blocks.back()];
  idle_ends_.emplace(node.listed_at, &node);
}

void PrefixCache::unlist(Node& node) {
  if (node.listed_at < 0) return;
  idle_ends_.erase(node.listed_at);
  node.listed_at = -1;
}

// Gives up the last blocks of an end, as far as they were used last at the same time.
int64_t PrefixCache::trim(Node& node, int64_t num_blocks) {
  const int64_t used_at = node.listed_at;
  unlist(node);
  int64_t num_given = 0;
  do {
    give_up(node.blocks.back());
    node.blocks.pop_back();
    ++num_given;
  } while (num_given < num_blocks && !node.blocks.empty() && is_idle(node.blocks.back()) &&
           last_used_[node.blocks.back()] == used_at);
  ++version_;
  if (node.blocks.empty()) {
    remove(node);
  } else {
    node.tokens.resize(node.blocks.size() * block_size_);
    list_if_idle(node);
  }
  return num_given;
}

// Its tokens are still there: children are found by them.
void PrefixCache::remove(Node& node) {
  Node& parent = *node.parent;
  parent.children.erase(&node);
  recycle(node);
  list_if_idle(parent);
  if (parent.parent != nullptr || !parent.children.empty() || parent.root->num_users > 0) return;
  Root& root = *parent.root;
  root_of_salt_.erase(root.salt);
  roots_.erase(root.self);
}

void PrefixCache::give_up(int32_t block_id) {
  AUGUR_REQUIRE(is_idle(block_id), "block " + std::to_string(block_id) + " is in use");
  allocator_.release(block_id);
  node_of_[block_id] = nullptr;
  --num_blocks_;
  --num_idle_;
}

void PrefixCache::drop_all(Node& top) {
  std::vector<Node*> left(top.children.begin(), top.children.end());
  if (!left.empty()) ++version_;
  top.children.clear();
  while (!left.empty()) {
    Node& node = *left.back();
    left.pop_back();
    left.insert(left.end(), node.children.begin(), node.children.end());
    unlist(node);
    for (const int32_t block_id : node.blocks) give_up(block_id);
    recycle(node);
  }
}

}  // namespace augur
