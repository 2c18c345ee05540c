#include "cache/exact_routes.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "kernels/require.h"

namespace augur {

ExactRoutes::ExactRoutes(ExactRoutesShape shape)
    : shape_(std::move(shape)),
      by_key_(0, HashNode{nodes_}, SameNode{nodes_}),
      cursor_order_(std::max(shape_.num_sequences, 1)) {
  const std::vector<int>& layers = shape_.moe_layers;
  AUGUR_REQUIRE(
      !layers.empty() && layers.front() >= 0 &&
          std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<>()) == layers.end(),
      std::to_string(layers.size()) + " MoE layers, or not in rising order");
  AUGUR_REQUIRE(shape_.top_k >= 1 && shape_.max_tokens >= 1 && shape_.num_nodes >= 1 &&
                    shape_.num_nodes <= 1 << 30 && shape_.num_sequences >= 1,
                std::to_string(shape_.num_nodes) + " nodes");
  moe_idx_of_layer_.assign(layers.back() + 1, -1);
  for (int i = 0; i < std::ssize(layers); ++i) moe_idx_of_layer_[layers[i]] = i;
  nodes_.resize(static_cast<size_t>(shape_.num_nodes) + 1);
  free_.resize(shape_.num_nodes);
  for (int i = 0; i < shape_.num_nodes; ++i) free_[i] = shape_.num_nodes - 1 - i;
  by_key_.reserve(shape_.num_nodes);
  const auto num_routes = static_cast<size_t>(route_idx(shape_.num_nodes, 0));
  is_known_.resize(num_routes);
  experts_.resize(num_routes * shape_.top_k);
  weights_.resize(num_routes * shape_.top_k);
  cursors_.resize(shape_.num_sequences);
  cursor_of_sequence_.reserve(shape_.num_sequences);
  for (int i = 0; i < shape_.num_sequences; ++i) cursor_order_.touch(i);
  node_of_row_.resize(shape_.max_tokens, kLost);
}

int64_t ExactRoutes::max_bytes(const ExactRoutesShape& shape) {
  // Nodes of the two indices: links, a value, a hash or a colour, and the allocator's own.
  constexpr int64_t kIndexBytes = 2 * 64;
  const int64_t routes = static_cast<int64_t>(shape.moe_layers.size()) * (1 + shape.top_k * 8);
  return shape.num_nodes * (int64_t{sizeof(Node)} + 4 + kIndexBytes + routes) +
         shape.num_sequences * (int64_t{sizeof(Cursor)} + kIndexBytes) + shape.max_tokens * 4;
}

size_t ExactRoutes::HashNode::operator()(int32_t node) const {
  const uint64_t both = static_cast<uint64_t>(static_cast<uint32_t>(nodes[node].parent)) << 32 |
                        static_cast<uint32_t>(nodes[node].token);
  // A multiplication by an odd constant (2^64 / golden ratio) spreads both halves.
  const uint64_t mixed = both * 0x9e3779b97f4a7c15u;
  return static_cast<size_t>(mixed ^ (mixed >> 32));
}

int ExactRoutes::moe_idx(int layer) const {
  const bool is_known = layer >= 0 && layer < std::ssize(moe_idx_of_layer_);
  const int idx = is_known ? moe_idx_of_layer_[layer] : -1;
  AUGUR_REQUIRE(idx >= 0, "layer " + std::to_string(layer) + " is no MoE layer");
  return idx;
}

ExactRoutes::Cursor& ExactRoutes::cursor_of(int64_t sequence_id) {
  const auto found = cursor_of_sequence_.find(sequence_id);
  int idx = 0;
  if (found != cursor_of_sequence_.end()) {
    idx = found->second;
  } else {
    idx = cursor_order_.oldest();
    cursor_of_sequence_.erase(cursors_[idx].sequence_id);
    cursors_[idx] = Cursor();
    cursors_[idx].sequence_id = sequence_id;
    cursor_of_sequence_.emplace(sequence_id, idx);
  }
  cursor_order_.touch(idx);
  return cursors_[idx];
}

/// The node that the sequence's next token follows, or kLost.
int32_t ExactRoutes::start_of_row(const Cursor& cursor, int32_t position) const {
  if (position == 0) return kRoot;
  if (cursor.node < 0 || cursor.next_position != position) return kLost;
  return nodes_[cursor.node].generation == cursor.generation ? cursor.node : kLost;
}

void ExactRoutes::on_step(const StepRows& rows) {
  AUGUR_REQUIRE(rows.num_tokens >= 0 && rows.num_tokens <= shape_.max_tokens,
                std::to_string(rows.num_tokens) + " rows");
  num_rows_ = rows.num_tokens;
  num_uses_before_step_ = num_uses_;
  for (int64_t row = 0; row < num_rows_; ++row) {
    Cursor& cursor = cursor_of(rows.sequence_ids[rows.sequence_of_row[row]]);
    const int32_t position = rows.positions[row];
    const int32_t start = start_of_row(cursor, position);
    const int32_t token = rows.token_ids[row];
    const int32_t node = start == kLost || token < 0 ? kLost : child_of(start, token);
    node_of_row_[row] = node;
    cursor.node = node;
    cursor.next_position = position + 1;
    ++counts_.num_rows;
    if (node == kLost) {
      ++counts_.num_lost_rows;
      continue;
    }
    cursor.generation = nodes_[node].generation;
    if (nodes_[node].num_known_layers == std::ssize(shape_.moe_layers)) ++counts_.num_known_rows;
  }
}

/// The node of `token` after `parent`, made if need be; kLost when all nodes are in use.
int32_t ExactRoutes::child_of(int32_t parent, int32_t token) {
  if (parent != kRoot) touch(parent);  // so that it does not give way to its own child
  const int32_t wanted = shape_.num_nodes;
  nodes_[wanted].parent = parent;
  nodes_[wanted].token = token;
  if (const auto found = by_key_.find(wanted); found != by_key_.end()) {
    touch(*found);
    return *found;
  }
  const int32_t node = take_node();
  if (node == kLost) return kLost;
  nodes_[node].parent = parent;
  nodes_[node].token = token;
  by_key_.insert(node);
  nodes_[node].last_use = ++num_uses_;
  leaves_.emplace(num_uses_, node);
  if (parent != kRoot && nodes_[parent].num_children++ == 0) {
    leaves_.erase({nodes_[parent].last_use, parent});
  }
  return node;
}

void ExactRoutes::touch(int32_t node) {
  const int64_t before = std::exchange(nodes_[node].last_use, ++num_uses_);
  if (nodes_[node].num_children > 0) return;
  auto leaf = leaves_.extract({before, node});
  leaf.value().first = num_uses_;
  leaves_.insert(leaves_.end(), std::move(leaf));
}

int32_t ExactRoutes::take_node() {
  if (free_.empty()) {
    // There is a leaf wherever there are nodes. Rows of this step rely on theirs.
    const auto [last_use, oldest] = *leaves_.begin();
    if (last_use > num_uses_before_step_) return kLost;
    evict(oldest);
  }
  const int32_t node = free_.back();
  free_.pop_back();
  return node;
}

void ExactRoutes::evict(int32_t node) {
  Node& gone = nodes_[node];
  leaves_.erase({gone.last_use, node});
  by_key_.erase(node);
  if (gone.parent != kRoot && --nodes_[gone.parent].num_children == 0) {
    leaves_.emplace(nodes_[gone.parent].last_use, gone.parent);
  }
  ++gone.generation;
  gone.num_known_layers = 0;
  std::fill_n(&is_known_[route_idx(node, 0)], shape_.moe_layers.size(), uint8_t{0});
  free_.push_back(node);
  ++counts_.num_evictions;
}

ExactRoutes::Routes ExactRoutes::routes(int64_t row, int layer) const {
  AUGUR_REQUIRE(row >= 0 && row < num_rows_, "row " + std::to_string(row));
  const int idx = moe_idx(layer);
  const int32_t node = node_of_row_[row];
  if (node == kLost || is_known_[route_idx(node, idx)] == 0) return {};
  const auto first = static_cast<size_t>(route_idx(node, idx)) * shape_.top_k;
  return {std::span(experts_).subspan(first, shape_.top_k),
          std::span(weights_).subspan(first, shape_.top_k)};
}

void ExactRoutes::record(int64_t row, int layer, const int32_t* experts, const float* weights) {
  AUGUR_REQUIRE(row >= 0 && row < num_rows_, "row " + std::to_string(row));
  const int idx = moe_idx(layer);
  const int32_t node = node_of_row_[row];
  if (node == kLost || experts[0] < 0) return;
  const int64_t route = route_idx(node, idx);
  std::copy_n(experts, shape_.top_k, &experts_[route * shape_.top_k]);
  std::copy_n(weights, shape_.top_k, &weights_[route * shape_.top_k]);
  if (std::exchange(is_known_[route], uint8_t{1}) == 0) ++nodes_[node].num_known_layers;
}

void ExactRoutes::record(const RoutingView& routing) {
  AUGUR_REQUIRE(routing.top_k == shape_.top_k, "top " + std::to_string(routing.top_k));
  for (int64_t row = 0; row < std::min(routing.num_tokens, num_rows_); ++row) {
    record(row, routing.layer_idx, routing.experts + row * shape_.top_k,
           routing.weights + row * shape_.top_k);
  }
}

}  // namespace augur
