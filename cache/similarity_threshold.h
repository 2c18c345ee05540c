// How alike two states must be before one's routing stands for the other's: learned while running.
//
// Every so often it is checked what the gate would have said. When the choices agree less than
// wanted, the threshold rises; when they agree well and look-ups miss, it falls; a threshold that
// was found too low is not tried again for a while. After a change nothing is known of the new
// threshold: is_proven() is false until enough was checked at it. When even the upper bound
// disagrees, is_hopeless() turns true for good.
// Threading: one thread.
#pragma once

#include <cstdint>

namespace augur {

struct ThresholdLimits {
  float start = 0.92f;
  float lowest = 0.80f;
  float highest = 0.995f;
  double min_agreement = 0.9;
};

class SimilarityThreshold {
 public:
  static constexpr int kChecksPerDecision = 32;
  /// A threshold that agrees by less than this above the minimum stays.
  static constexpr double kMargin = 0.02;
  /// No lower threshold is tried when fewer look-ups than this share miss.
  static constexpr double kWorthwhileMisses = 0.02;
  /// Decisions after which a threshold that failed may be tried again.
  static constexpr int kDecisionsToForget = 16;

  /// Requires 0 < lowest <= start <= highest <= 1 and min_agreement in [0, 1].
  explicit SimilarityThreshold(const ThresholdLimits& limits);

  /// A look-up that was `is_hit` at this threshold.
  void on_look_up(bool is_hit);
  /// A hit's choice was compared with the gate's: the share of experts both chose.
  void on_check(double agreement);

  float value() const { return value_; }
  bool is_proven() const { return is_proven_; }
  bool is_hopeless() const { return is_hopeless_; }
  /// Smoothed over about kChecksPerDecision checks at this threshold; 0 before the first.
  double agreement() const { return agreement_; }

 private:
  void decide();
  void raise();
  void lower();
  void change_to(float value);

  ThresholdLimits limits_;
  float value_;
  bool is_proven_ = false;
  bool is_hopeless_ = false;
  // Since the last change.
  int64_t num_checks_ = 0;
  double agreement_ = 0;
  int64_t num_look_ups_ = 0;
  int64_t num_hits_ = 0;
  // The highest threshold that failed, 0 for none, and decisions since.
  float failed_ = 0;
  int num_decisions_since_failure_ = 0;
};

}  // namespace augur
