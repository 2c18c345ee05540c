// What gates chose for states seen before, found again by how alike two states are.
//
// A layer's entries are keyed by the gate's input, reduced (projection.h) and quantised
// (key_rows.h); the most alike entry answers when its cosine reaches the layer's threshold, which
// is learned (similarity_threshold.h). An entry holds the experts and weights of its own layer and
// what the same token chose in the next few layers: a hit foretells those.
//
// Modes. Prefetch: the gate always runs, every hit is checked against it, and entries are only
// hints; results do not change. Serve: a hit takes the gate's place. That is an approximation: a
// sampled share of hits is checked, all of them while a threshold is unproven, and a layer whose
// choices agree too little even at the highest threshold is switched off for good.
//
// A layer without a projection samples gate inputs until it can fit one, and misses until then.
// Layers take turns where samples of all would take more than max_sample_bytes. A fit stops the
// caller for tens to hundreds of milliseconds; projections loaded from a file avoid that.
//
// Of a step: begin_step(), then for each MoE layer in order observe() (prefetch), or try_serve()
// followed by learn() (serve). All memory but samples and projections is taken at construction.
// The same calls give the same answers. Threading: one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/projection.h"
#include "cache/route_layer.h"
#include "cache/routing_observer.h"

namespace augur {

enum class RouteCacheMode : uint8_t { kOff, kPrefetch, kServe };
enum class ProjectionKind : uint8_t { kPca, kRandom };

struct RouteCacheConfig {
  RouteCacheMode mode = RouteCacheMode::kPrefetch;
  int64_t capacity = 16384;  // entries of all layers, evenly; each has one at least
  ProjectionKind projection = ProjectionKind::kPca;
  int dims = Projection::kMaxDims;
  uint64_t seed = 1;      // of random projections and of which hits are checked
  int num_samples = 512;  // gate inputs that a layer's PCA is fitted to
  int64_t max_sample_bytes = int64_t{64} << 20;

  float similarity_threshold = 0.92f;  // cosine, to start with
  float lowest_threshold = 0.80f;
  float highest_threshold = 0.995f;
  double min_agreement = 0.9;       // of the experts chosen, to serve
  double min_hint_agreement = 0.6;  // the same, to hint: half the bytes well spent is worth it
  int check_period = 16;            // one hit in so many is checked when serving

  int num_later_layers = 2;  // that an entry foretells, 0 to kMaxLaterLayers
  int max_rows = 64;         // of a step that are looked at: decode rows come first
};

/// Of the model.
struct RouteCacheShape {
  int64_t hidden_size = 0;
  int num_experts = 0;
  int top_k = 0;
  std::vector<int> moe_layers;  // model's numbers, rising
};

enum class RowOutcome : uint8_t {
  kMiss,    // the gate must run
  kServed,  // experts and weights were filled in
  kCheck,   // a hit, but the gate must run: its choice counts, and is compared
};

class RouteCache {
 public:
  static constexpr int kMaxLaterLayers = 8;

  /// Requires values within the ranges named; num_samples > dims.
  RouteCache(RouteCacheShape shape, const RouteCacheConfig& config);

  /// What it may take: entries, scratch, samples and projections.
  static int64_t max_bytes(const RouteCacheShape& shape, const RouteCacheConfig& config);

  /// Takes projections, one per MoE layer, and forgets all entries. Requires the shape's
  /// hidden_size and the configured dims.
  void set_projections(std::vector<Projection> by_moe_layer);
  /// One per MoE layer, to be saved; empty until every layer has one.
  std::vector<Projection> projections() const;

  /// Rows looked up before belong to another step.
  void begin_step();

  /// Looks up the rows of `gate_input` [num_rows, hidden_size] f32 in host memory, and fills in
  /// what it found for those it serves.
  ///   experts, weights  [num_rows, top_k]  out, of served rows
  ///   outcomes          [num_rows]         out
  /// Returns how many are served: none unless the mode is kServe. Requires a MoE layer after those
  /// of the step before it.
  int64_t try_serve(int layer,
                    const Tensor& gate_input,
                    int32_t* experts,
                    float* weights,
                    std::span<RowOutcome> outcomes);
  /// What the gate chose for the rows of the last try_serve(); served rows are not read.
  ///   experts, weights  [num_rows, top_k]; a row whose first expert is -1 pads the step
  void learn(int layer, int64_t num_rows, const int32_t* experts, const float* weights);
  /// Both, of a layer whose gate has run. In kServe the layers do that themselves.
  void observe(const RoutingView& routing);

  /// What the entry found for `row` at the MoE layer `distance` before `target_layer` (in MoE
  /// layers, from 1) in this step foretells for the latter: experts by falling score; empty when
  /// nothing was found or it does not know.
  std::span<const int32_t> hint(int64_t row, int target_layer, int distance) const;

  RouteCacheMode mode() const { return config_.mode; }
  const RouteCacheConfig& config() const { return config_; }
  const RouteCacheShape& shape() const { return shape_; }
  int layer_capacity() const { return layer_capacity_; }

  struct LayerReport {
    RouteCounts counts;
    float threshold = 0;
    bool is_ready = false;         // has a projection
    bool is_switched_off = false;  // serves no more
  };
  /// Of a MoE layer, by the model's number.
  LayerReport report(int layer) const;
  RouteCounts total() const;
  int num_switched_off() const;

 private:
  // What was found for the rows of one layer in a step, and where they were stored.
  struct Found {
    int64_t step_idx = -1;  // that it is of
    int moe_idx = -1;
    int64_t num_rows = 0;
    std::vector<RouteMatch> rows;   // [max_rows]
    std::vector<RouteSlot> stored;  // [max_rows], by learn()
    std::vector<int32_t> experts;   // [max_rows, 1 + later, top_k], of hits
  };

  int moe_idx(int layer) const;
  Found& found_of(int moe_idx) { return found_[moe_idx % found_.size()]; }
  const Found& found_of(int moe_idx) const { return found_[moe_idx % found_.size()]; }
  bool is_of_step(const Found& found, int moe_idx) const {
    return found.step_idx == step_idx_ && found.moe_idx == moe_idx;
  }
  bool is_switched_off(const RouteLayer& layer) const;
  void look_up(int moe_idx, const Tensor& gate_input);
  void sample(int moe_idx, const Tensor& gate_input);
  RowOutcome decide(RouteLayer& layer, const RouteMatch& match) const;
  void check(RouteLayer& layer,
             const RouteMatch& match,
             const int32_t* stored,
             const int32_t* chosen) const;
  void tell_earlier_layers(int moe_idx, int64_t row, const int32_t* experts);

  // Constant after construction.
  const RouteCacheShape shape_;
  const RouteCacheConfig config_;
  std::vector<int> moe_idx_of_layer_;  // -1: dense
  int layer_capacity_ = 0;
  int entry_experts_ = 0;  // (1 + later) * top_k
  // Changed by the steps.
  std::vector<Projection> projections_;  // [num_moe_layers], absent until fitted
  std::vector<RouteLayer> layers_;
  std::vector<std::vector<float>> samples_;  // [num_moe_layers]; empty unless sampling
  int num_sampling_ = 0;
  int64_t step_idx_ = 0;
  std::vector<Found> found_;  // of the last 1 + later layers, by moe_idx modulo their number
  std::vector<float> projected_;
};

}  // namespace augur
