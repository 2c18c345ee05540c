// What gates chose for a token whose whole text before it was seen before.
//
// The same tokens give the same routes, so what is found here is right by construction, on
// backends whose rows do not depend on the batch (kernels/ops.h). It is known for all layers when
// a step begins.
//
// Texts form a trie: a node is a token after the text of its parent, found by comparing parent and
// token, never by a hash alone. A node holds the routes of its token in every MoE layer, as far as
// they were recorded. When nodes run out, the leaf used longest ago goes, none of the step under
// way. A sequence is followed from position 0 on; one that cannot be (its node is gone, its tokens
// are unknown, it begins later, as after a reused prefix) is lost until it begins again.
// Threading: one thread. All memory but that of two indices is taken at construction; they are
// bounded by the numbers given there.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "cache/lru_order.h"
#include "cache/routing_observer.h"

namespace augur {

struct ExactRoutesShape {
  std::vector<int> moe_layers;  // model's numbers, rising
  int top_k = 0;
  int64_t max_tokens = 0;    // rows of a step
  int num_nodes = 0;         // tokens remembered
  int num_sequences = 1024;  // followed at a time; more of them push out the oldest
};

class ExactRoutes {
 public:
  struct Routes {
    std::span<const int32_t> experts;  // [top_k], empty when nothing is known
    std::span<const float> weights;
  };
  struct Counts {
    int64_t num_rows = 0;
    int64_t num_known_rows = 0;  // whose routes were known when their step began
    int64_t num_lost_rows = 0;   // that could not be followed
    int64_t num_evictions = 0;
  };

  /// Requires at least one layer, node and sequence.
  explicit ExactRoutes(ExactRoutesShape shape);
  ExactRoutes(const ExactRoutes&) = delete;
  ExactRoutes& operator=(const ExactRoutes&) = delete;

  static int64_t max_bytes(const ExactRoutesShape& shape);

  /// Finds or makes the nodes of the step's rows. Token ids below zero are unknown ones.
  void on_step(const StepRows& rows);
  /// Of a row of the step under way; valid until the next on_step() or record() of it.
  Routes routes(int64_t row, int layer) const;
  /// What the gate chose for a row of the step; nothing for a lost one, or one that pads.
  ///   experts, weights  [top_k]
  void record(int64_t row, int layer, const int32_t* experts, const float* weights);
  /// All rows of a layer, in host memory.
  void record(const RoutingView& routing);

  int64_t num_rows() const { return num_rows_; }
  int num_used_nodes() const { return shape_.num_nodes - static_cast<int>(free_.size()); }
  const Counts& counts() const { return counts_; }
  const ExactRoutesShape& shape() const { return shape_; }

 private:
  static constexpr int32_t kRoot = -1;
  static constexpr int32_t kLost = -2;

  struct Node {
    int32_t parent = kRoot;
    int32_t token = 0;
    int32_t num_children = 0;
    int32_t num_known_layers = 0;
    int64_t last_use = 0;    // counts touches
    int64_t generation = 0;  // of the node's memory: a new one whenever it is reused
  };
  /// Where a sequence is: after `node`, at `next_position`.
  struct Cursor {
    int64_t sequence_id = -1;
    int32_t node = kLost;
    int64_t generation = 0;
    int32_t next_position = 0;
  };

  // A node is its own key: equal when parent and token are.
  struct HashNode {
    const std::vector<Node>& nodes;
    size_t operator()(int32_t node) const;
  };
  struct SameNode {
    const std::vector<Node>& nodes;
    bool operator()(int32_t a, int32_t b) const {
      return nodes[a].parent == nodes[b].parent && nodes[a].token == nodes[b].token;
    }
  };

  int moe_idx(int layer) const;
  int64_t route_idx(int32_t node, int moe_idx) const {
    return int64_t{node} * static_cast<int64_t>(shape_.moe_layers.size()) + moe_idx;
  }
  Cursor& cursor_of(int64_t sequence_id);
  int32_t start_of_row(const Cursor& cursor, int32_t position) const;
  int32_t child_of(int32_t parent, int32_t token);
  void touch(int32_t node);
  int32_t take_node();
  void evict(int32_t node);

  // Constant after construction.
  const ExactRoutesShape shape_;
  std::vector<int> moe_idx_of_layer_;  // -1: dense
  // Changed by on_step and record.
  std::vector<Node> nodes_;  // and one more, to look up by
  std::vector<int32_t> free_;
  std::unordered_set<int32_t, HashNode, SameNode> by_key_;
  std::set<std::pair<int64_t, int32_t>> leaves_;  // (last use, node)
  std::vector<uint8_t> is_known_;                 // [num_nodes, num_moe_layers]
  std::vector<int32_t> experts_;                  // [num_nodes, num_moe_layers, top_k]
  std::vector<float> weights_;
  std::vector<Cursor> cursors_;
  std::unordered_map<int64_t, int> cursor_of_sequence_;
  LruOrder cursor_order_;
  int64_t num_uses_ = 0;
  int64_t num_uses_before_step_ = 0;
  int64_t num_rows_ = 0;
  std::vector<int32_t> node_of_row_;  // [max_tokens], kLost where there is none
  Counts counts_;
};

}  // namespace augur
