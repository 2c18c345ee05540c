// Which experts a text uses: what is known of a prompt before it runs again.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/routing_observer.h"

namespace augur {

/// How often each expert of each layer was chosen by some tokens.
class ExpertSignature {
 public:
  ExpertSignature(int num_layers, int num_experts);

  /// Counts the choices of one row; -1 counts for nothing. `layer` is the model's.
  void add(int layer, std::span<const int32_t> experts);
  /// Counts what another of the same shape counted.
  void add(const ExpertSignature& other);

  /// Of a layer, by expert.
  std::span<const uint32_t> counts(int layer) const;
  int num_layers() const { return num_layers_; }
  int num_experts() const { return num_experts_; }
  int64_t num_choices() const { return num_choices_; }

 private:
  int num_layers_;
  int num_experts_;
  int64_t num_choices_ = 0;
  std::vector<uint32_t> counts_;  // [num_layers, num_experts]
};

/// How alike the experts of two texts are, 0 to 1: by layer, the sum over experts of the smaller of
/// the two shares of choices; the mean over layers that both have choices in, 0 when there is none.
double overlap(const ExpertSignature& a, const ExpertSignature& b);

}  // namespace augur
