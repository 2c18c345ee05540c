#include "cache/similarity_threshold.h"

#include <algorithm>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

// Steps are shares of the way to 1, where states are the same: from .90 to .95 halves the squared
// distance of the states just as from .98 to .99.
constexpr float kRaise = 0.5f;
constexpr float kLower = 1.25f;  // down in smaller steps than up: what fails was served at a cost

}  // namespace

SimilarityThreshold::SimilarityThreshold(const ThresholdLimits& limits)
    : limits_(limits), value_(limits.start) {
  AUGUR_REQUIRE(limits.lowest > 0 && limits.lowest <= limits.start &&
                    limits.start <= limits.highest && limits.highest <= 1,
                std::to_string(limits.lowest) + " <= " + std::to_string(limits.start) +
                    " <= " + std::to_string(limits.highest));
  AUGUR_REQUIRE(limits.min_agreement >= 0 && limits.min_agreement <= 1,
                "min_agreement is " + std::to_string(limits.min_agreement));
}

void SimilarityThreshold::on_look_up(bool is_hit) {
  ++num_look_ups_;
  if (is_hit) ++num_hits_;
}

void SimilarityThreshold::on_check(double agreement) {
  ++num_checks_;
  // The mean at first, then an exponential one.
  agreement_ += (agreement - agreement_) /
                static_cast<double>(std::min<int64_t>(num_checks_, kChecksPerDecision));
  if (num_checks_ % kChecksPerDecision == 0) decide();
}

void SimilarityThreshold::decide() {
  if (failed_ > 0 && ++num_decisions_since_failure_ >= kDecisionsToForget) failed_ = 0;
  if (agreement_ < limits_.min_agreement) return raise();
  is_proven_ = true;
  const auto num_misses = static_cast<double>(num_look_ups_ - num_hits_);
  if (agreement_ >= std::min(limits_.min_agreement + kMargin, 1.0) &&
      num_misses > kWorthwhileMisses * static_cast<double>(num_look_ups_)) {
    lower();
  }
  num_look_ups_ = num_hits_ = 0;
}

void SimilarityThreshold::raise() {
  is_proven_ = false;
  if (value_ >= limits_.highest) {
    // One bad spell does not end it: two decisions' worth of checks must say so.
    if (num_checks_ >= 2 * kChecksPerDecision) is_hopeless_ = true;
    return;
  }
  failed_ = std::max(failed_, value_);
  num_decisions_since_failure_ = 0;
  const float raised = 1 - (1 - value_) * kRaise;
  // A last step that would be tiny is not worth its checks.
  const float nearly = std::max((1 - limits_.highest) * 1.5f, 1e-4f);
  change_to(1 - raised <= nearly ? limits_.highest : raised);
}

void SimilarityThreshold::lower() {
  const float lowered = std::max(limits_.lowest, 1 - (1 - value_) * kLower);
  if (value_ <= limits_.lowest || lowered <= failed_) return;
  change_to(lowered);
}

void SimilarityThreshold::change_to(float value) {
  value_ = value;
  is_proven_ = false;
  num_checks_ = num_look_ups_ = num_hits_ = 0;
  agreement_ = 0;
}

}  // namespace augur
