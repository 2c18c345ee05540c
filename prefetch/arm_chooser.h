// Finds which of a few settings costs least, by trying, at a bounded price.
//
// Arm 0 is the safe one: another is kept only while it is cheaper than arm 0 by more than the
// noise. Costs drift (texts change), so an arm is tried for a few steps in a row and compared with
// the steps of the kept arm just before; how much such a comparison varies by chance is learned
// from steps of the kept arm alone, compared with each other in the same way. Deterministic: the
// same costs give the same choices. Threading: one thread.
#pragma once

#include <cstdint>
#include <vector>

namespace augur {

class ArmChooser {
 public:
  struct Options {
    int num_arms = 2;
    double max_probe_share = 0.05;  // of all steps so far, at any time
    double min_gain = 0.01;         // of the cost, for less it changes nothing
    double num_deviations = 3;      // a difference of fewer is noise
  };

  /// Requires at least one arm and a share in [0, 1].
  explicit ArmChooser(const Options& options);

  /// The arm for the next step.
  int arm() const { return probed_ >= 0 ? probed_ : kept_; }
  /// What the step with arm() cost, in any one unit. A cost that is not a positive number is left
  /// out, and the step not counted.
  void on_step_end(double cost);

  int kept_arm() const { return kept_; }
  int64_t num_steps() const { return num_steps_; }
  int64_t num_probe_steps() const { return num_probe_steps_; }

 private:
  // What an arm costs, relative to others of the same time.
  struct Estimate {
    double value = 1;
    double num_probes = 0;  // behind it; 0: unknown. The kept arm is the yardstick of the others
  };

  void on_kept_step(double cost);
  void on_probe_step(double cost);
  void end_probe(double ratio);
  void begin_probe();
  void choose_kept();
  bool is_cheaper(int arm, int than, double num_deviations) const;
  double deviation(const Estimate& estimate) const;

  const Options options_;
  std::vector<Estimate> estimates_;
  int kept_ = 0;
  int probed_ = -1;  // -1: none
  int64_t num_steps_ = 0;
  int64_t num_probe_steps_ = 0;
  bool was_zero_probed_last_ = false;
  int num_to_skip_ = 0;  // steps that still show the arm before

  // The kept arm's recent cost, a mean in which steps decay.
  double mean_cost_ = 0;
  double num_in_mean_ = 0;
  // Steps of the block that is being measured: of the probed arm or, to learn the noise, the kept.
  double block_mean_ = 0;  // of the kept arm, when the block began
  double block_cost_ = 0;  // sum of the steps' costs over that
  int num_in_block_ = 0;
  double noise_ = 0;  // variance of a block's mean over the mean before it
  double num_in_noise_ = 0;
};

}  // namespace augur
