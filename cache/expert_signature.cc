#include "cache/expert_signature.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "kernels/require.h"

namespace augur {

ExpertSignature::ExpertSignature(int num_layers, int num_experts)
    : num_layers_(num_layers),
      num_experts_(num_experts),
      counts_(static_cast<size_t>(num_layers) * num_experts) {}

void ExpertSignature::add(int layer, std::span<const int32_t> experts) {
  AUGUR_REQUIRE(layer >= 0 && layer < num_layers_, "layer " + std::to_string(layer));
  for (const int32_t expert : experts) {
    if (expert < 0) continue;
    AUGUR_REQUIRE(expert < num_experts_, "expert " + std::to_string(expert));
    ++counts_[static_cast<size_t>(layer) * num_experts_ + expert];
    ++num_choices_;
  }
}

void ExpertSignature::add(const ExpertSignature& other) {
  AUGUR_REQUIRE(other.num_layers_ == num_layers_ && other.num_experts_ == num_experts_,
                "signatures of different models");
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  num_choices_ += other.num_choices_;
}

std::span<const uint32_t> ExpertSignature::counts(int layer) const {
  AUGUR_REQUIRE(layer >= 0 && layer < num_layers_, "layer " + std::to_string(layer));
  return std::span(counts_).subspan(static_cast<size_t>(layer) * num_experts_, num_experts_);
}

double overlap(const ExpertSignature& a, const ExpertSignature& b) {
  AUGUR_REQUIRE(a.num_layers() == b.num_layers() && a.num_experts() == b.num_experts(),
                "signatures of different models");
  double total = 0;
  int num_layers = 0;
  for (int layer = 0; layer < a.num_layers(); ++layer) {
    const std::span<const uint32_t> of_a = a.counts(layer);
    const std::span<const uint32_t> of_b = b.counts(layer);
    const double sum_a = std::accumulate(of_a.begin(), of_a.end(), 0.0);
    const double sum_b = std::accumulate(of_b.begin(), of_b.end(), 0.0);
    if (sum_a == 0 || sum_b == 0) continue;
    ++num_layers;
    for (size_t e = 0; e < of_a.size(); ++e) total += std::min(of_a[e] / sum_a, of_b[e] / sum_b);
  }
  return num_layers == 0 ? 0 : total / num_layers;
}

}  // namespace augur
