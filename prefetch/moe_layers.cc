#include "prefetch/moe_layers.h"

#include <string>
#include <utility>

#include "kernels/require.h"

namespace augur {

MoeLayers::MoeLayers(std::vector<int> layers, int num_experts)
    : layers_(std::move(layers)), num_experts_(num_experts) {
  AUGUR_REQUIRE(!layers_.empty() && layers_.front() >= 0, "no MoE layers");
  AUGUR_REQUIRE(num_experts >= 1, std::to_string(num_experts) + " experts");
  for (size_t i = 1; i < layers_.size(); ++i) {
    AUGUR_REQUIRE(layers_[i] > layers_[i - 1], "layer " + std::to_string(layers_[i]));
  }
  index_of_.assign(end_layer(), -1);
  for (int i = 0; i < num_layers(); ++i) index_of_[layers_[i]] = i;
}

int MoeLayers::index_of(int layer) const {
  AUGUR_REQUIRE(layer >= 0 && layer < end_layer() && index_of_[layer] >= 0,
                "layer " + std::to_string(layer) + " is no MoE layer");
  return index_of_[layer];
}

int MoeLayers::checked_index(const RoutingView& routing) const {
  const int64_t num_choices = routing.num_tokens * routing.top_k;
  for (int64_t i = 0; i < num_choices; ++i) {
    AUGUR_REQUIRE(
        routing.experts[i] >= -1 && routing.experts[i] < num_experts_,
        "expert " + std::to_string(routing.experts[i]) + " of " + std::to_string(num_experts_));
  }
  return index_of(routing.layer_idx);
}

}  // namespace augur
