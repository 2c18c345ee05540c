// Int8 copies of all experts, which serve what unsure tokens choose of experts outside the pool.
//
// A token is unsure of a layer's experts when the least of its gate weights is below a share
// (`confidence`) of their sum. A copy may serve any of its choices but
// - the one of the largest weight: most of the token's output is that expert's, so that its error
//   would count most;
// - protected experts, those of the layer with the largest outputs, whose rounding errors are the
//   largest too.
// It does so where the expert is neither in the pool, nor on its way there, nor wanted by another
// choice of the step that no copy may serve: an expert is served by its copy to all rows of a step
// or to none, and each expert so served is one that need not be read.
//
// A layer first calibrates: it runs its first rows' inputs through the copies of the experts they
// chose and takes the mean length of each one's outputs; until it has seen enough rows every choice
// is served in full.
// Lossy. What is served depends on what lies in the pool, and so on what ran before and beside.
// Threading: one thread; blocks may be filled by several before the first step.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/expert_pool.h"
#include "cache/expert_slots.h"
#include "configs/engine_config.h"
#include "configs/model_config.h"
#include "kernels/ops.h"
#include "moe/moe_layer.h"
#include "prefetch/expert_store.h"

namespace augur {

/// What copies served, of one layer or of all, from the start. A choice is one expert of one row;
/// the mass of some is the sum of their gate weights.
struct LowBitCounts {
  int64_t num_choices = 0;
  int64_t num_low_bit_choices = 0;
  double mass = 0;
  double low_bit_mass = 0;
  int64_t num_avoided_reads = 0;  // experts served by their copy, once a step and layer
  int64_t avoided_bytes = 0;      // that reading these would have taken

  /// Of the gate mass, the share that copies served.
  double low_bit_share() const { return mass > 0 ? low_bit_mass / mass : 0; }
  LowBitCounts& operator+=(const LowBitCounts& other);
};

class LowBitExperts final : public ExpertSubstitute {
 public:
  /// Allocates num_bytes(). `ops`, `store` and `pool`, whose experts these are, outlive this. Every
  /// block is then to be filled with Ops::quantize_expert. Throws OutOfMemory. Requires
  /// ops.has_int8_experts(), ops.uses_host_memory() and a model with experts.
  LowBitExperts(const LowBitConfig& config,
                const ModelConfig& model,
                Ops& ops,
                const ExpertStore& store,
                const ExpertPool& pool);

  /// Of the copies and of what calibration needs.
  static int64_t num_bytes(const ModelConfig& model, const Ops& ops);

  const ExpertLayout& layout() const { return layout_; }
  /// Where the copy of a layer's expert is to be. `moe_layer_idx` counts MoE layers only.
  std::byte* block(int moe_layer_idx, int expert_idx) {
    return copies_.block(moe_layer_idx, expert_idx);
  }

  ExpertTable substitute(const RoutingView& routing, const Tensor& x, int32_t* experts) override;

  /// Of a layer of the model, dense ones counted; those without experts count nothing.
  const LowBitCounts& counts(int layer_idx) const { return layers_.at(layer_idx).counts; }
  LowBitCounts total() const;
  bool is_calibrated(int layer_idx) const;
  /// False until the layer is calibrated.
  bool is_protected(ExpertKey key) const;
  /// The mean length of the expert's outputs in calibration; 0 where no row chose it.
  double output_norm(ExpertKey key) const;

 private:
  struct Layer {
    int moe_layer_idx = -1;
    LowBitCounts counts;
    int64_t num_calibrated = 0;  // rows
    // By expert, of the calibration.
    std::vector<double> norm_sum;
    std::vector<int64_t> num_norms;
    std::vector<uint8_t> is_protected;
  };
  enum class Served : uint8_t { kMayBeLowBit, kInFull, kLowBit };

  void calibrate(const RoutingView& routing, const Tensor& x, Layer& layer);
  void add_norms(const RoutingView& routing, const Tensor& x, int choice, Layer& layer);
  void protect(Layer& layer) const;
  void decide(const RoutingView& routing, const Layer& layer);
  void rewrite(const RoutingView& routing, int32_t* experts, LowBitCounts& counts);

  // Constant after construction.
  const LowBitConfig config_;
  const ExpertLayout layout_;
  const int num_experts_;
  Ops& ops_;
  const ExpertStore& store_;
  const ExpertPool& pool_;

  ExpertSlots copies_;
  std::vector<Layer> layers_;   // of the model
  std::vector<Served> served_;  // by expert, of the layer under way
  // Of calibration, a few rows at a time: what they choose, with weight 1, and the outputs.
  Buffer choices_;
  Buffer ones_;
  Buffer outputs_;
};

}  // namespace augur
