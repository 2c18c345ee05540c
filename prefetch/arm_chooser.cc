#include "prefetch/arm_chooser.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

constexpr int kBlockSteps = 4;
// After a change of arms the first step still runs on what the arm before it fetched.
constexpr int kSkippedSteps = 1;
constexpr int kProbeSteps = kSkippedSteps + kBlockSteps;
// The kept arm's mean looks back about so many steps: enough to be much steadier than a block.
constexpr double kMeanSteps = 16;
// No probe before so many steps of the kept arm, and blocks behind the noise.
constexpr double kLeastMeanSteps = 8;
constexpr double kLeastNoiseBlocks = 4;
constexpr double kNoiseBlocks = 32;
// An estimate is a mean of at most about so many probes, so that it follows slow changes.
constexpr double kMostProbes = 16;
// What an estimate keeps of its weight when some other arm was probed.
constexpr double kProbeMemory = 0.97;
// One step out of many may wait for a disk that sleeps: no step counts for more than this many
// times the mean.
constexpr double kLargestRatio = 2;

}  // namespace

ArmChooser::ArmChooser(const Options& options) : options_(options) {
  AUGUR_REQUIRE(options.num_arms >= 1, std::to_string(options.num_arms) + " arms");
  AUGUR_REQUIRE(options.max_probe_share >= 0 && options.max_probe_share <= 1,
                std::to_string(options.max_probe_share));
  estimates_.resize(options.num_arms);
  estimates_[0].num_probes = 1;
}

void ArmChooser::on_step_end(double cost) {
  if (!(cost > 0) || !std::isfinite(cost)) return;
  ++num_steps_;
  if (probed_ >= 0) ++num_probe_steps_;
  if (num_to_skip_ > 0) {
    --num_to_skip_;
  } else if (probed_ >= 0) {
    on_probe_step(cost);
  } else {
    on_kept_step(cost);
  }
  if (probed_ < 0) begin_probe();
}

void ArmChooser::on_kept_step(double cost) {
  const double ratio = num_in_mean_ > 0 ? std::min(cost / mean_cost_, kLargestRatio) : 1;
  if (num_in_mean_ >= kLeastMeanSteps) {
    // Compared with the mean before the block, as a probe would be.
    if (num_in_block_ == 0) block_mean_ = mean_cost_;
    block_cost_ += std::min(cost / block_mean_, kLargestRatio);
    if (++num_in_block_ == kBlockSteps) {
      const double error = block_cost_ / kBlockSteps - 1;
      num_in_noise_ = std::min(num_in_noise_ + 1, kNoiseBlocks);
      noise_ += (error * error - noise_) / num_in_noise_;
      block_cost_ = 0;
      num_in_block_ = 0;
    }
  }
  num_in_mean_ = std::min(num_in_mean_ + 1, kMeanSteps);
  if (mean_cost_ == 0) mean_cost_ = cost;
  mean_cost_ += mean_cost_ * (ratio - 1) / num_in_mean_;
}

void ArmChooser::on_probe_step(double cost) {
  block_cost_ += std::min(cost / block_mean_, kLargestRatio);
  if (++num_in_block_ < kBlockSteps) return;
  const double ratio = block_cost_ / kBlockSteps;
  block_cost_ = 0;
  num_in_block_ = 0;
  end_probe(ratio);
}

void ArmChooser::end_probe(double ratio) {
  Estimate& estimate = estimates_[probed_];
  const double value = estimates_[kept_].value * ratio;
  if (estimate.num_probes > 0 &&
      std::abs(value - estimate.value) >
          options_.num_deviations * (deviation(estimate) + deviation({value, 1})) +
              options_.min_gain * estimate.value) {
    // Not by chance: the work has changed, and what is known of the other arms is out of date.
    for (Estimate& other : estimates_) {
      if (&other != &estimates_[kept_]) other.num_probes = 0;
    }
  }
  for (Estimate& other : estimates_) {
    if (&other != &estimates_[kept_]) other.num_probes *= kProbeMemory;
  }
  estimate.num_probes = std::min(estimate.num_probes + 1, kMostProbes);
  estimate.value += (value - estimate.value) / std::max(estimate.num_probes, 1.0);
  probed_ = -1;
  num_to_skip_ = kSkippedSteps;
  choose_kept();
}

double ArmChooser::deviation(const Estimate& estimate) const {
  return estimate.value * std::sqrt(noise_ / std::max(estimate.num_probes, 1.0));
}

bool ArmChooser::is_cheaper(int arm, int than, double num_deviations) const {
  const Estimate& a = estimates_[arm];
  const Estimate& b = estimates_[than];
  // The kept arm is the yardstick: its own value is exact.
  const double variance = (arm == kept_ ? 0 : deviation(a) * deviation(a)) +
                          (than == kept_ ? 0 : deviation(b) * deviation(b));
  return b.value - a.value > num_deviations * std::sqrt(variance) + options_.min_gain * b.value;
}

void ArmChooser::choose_kept() {
  int best = kept_;
  for (int arm = 0; arm < options_.num_arms; ++arm) {
    if (estimates_[arm].num_probes > 0 && is_cheaper(arm, best, options_.num_deviations)) {
      best = arm;
    }
  }
  // An arm that is kept must stay cheaper than arm 0, by half of what it took to choose it: else
  // the choice would flutter.
  if (best != 0 && best == kept_ && estimates_[0].num_probes > 0 &&
      !is_cheaper(best, 0, options_.num_deviations / 2)) {
    best = 0;
  }
  if (best == kept_) return;
  estimates_[kept_].num_probes = std::max(estimates_[kept_].num_probes, 1.0);
  kept_ = best;
  num_in_mean_ = 0;
  mean_cost_ = 0;
}

void ArmChooser::begin_probe() {
  const double credit = options_.max_probe_share * static_cast<double>(num_steps_ + kProbeSteps) -
                        static_cast<double>(num_probe_steps_);
  if (options_.num_arms < 2 || credit < kProbeSteps || num_in_mean_ < kLeastMeanSteps ||
      num_in_noise_ < kLeastNoiseBlocks) {
    return;
  }
  // Arm 0 every other time: whether prefetching pays at all is the first question. Otherwise the
  // arm that may be best as far as is known: one not tried, or tried little, may always be.
  int next = -1;
  double lowest = 0;
  for (int arm = 0; arm < options_.num_arms; ++arm) {
    if (arm == kept_) continue;
    const Estimate& estimate = estimates_[arm];
    const double bound = estimate.num_probes == 0
                             ? -1
                             : estimate.value - options_.num_deviations * deviation(estimate);
    if (next < 0 || bound < lowest) {
      next = arm;
      lowest = bound;
    }
  }
  if (kept_ != 0 && !was_zero_probed_last_) next = 0;
  was_zero_probed_last_ = next == 0;
  probed_ = next;
  num_to_skip_ = kSkippedSteps;
  block_mean_ = mean_cost_;
  block_cost_ = 0;
  num_in_block_ = 0;
}

}  // namespace augur
