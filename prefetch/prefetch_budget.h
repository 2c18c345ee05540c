// How many bytes may be prefetched while one layer runs, such that it never slows a step down.
//
// Whether prefetching pays depends on the link, the pool and the text, and its sign changes. So it
// is measured: budgets from nothing to the largest are tried for a small share of the steps, the
// best one is kept, and nothing is prefetched where none is better than nothing. Steps of different
// sizes cost differently and are judged apart, in classes: 1, 2, 3 to 4, ..., 33 to 64 rows.
// Deterministic: the same costs give the same budgets.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "prefetch/arm_chooser.h"

namespace augur {

class PrefetchBudget {
 public:
  struct Options {
    int64_t expert_bytes = 0;        // of one block
    int max_experts_per_layer = 16;  // the largest budget, rounded down to a power of two; 0: none
    double max_probe_share = 0.05;   // of the steps, in which other budgets are tried
  };

  /// Requires expert_bytes > 0 and counts and shares that are not negative.
  explicit PrefetchBudget(const Options& options);

  /// Bytes per layer for the next step, of `num_rows` rows; 0 when it has more than
  /// kMaxGuessedRows, which are not guessed, or none.
  int64_t bytes_per_layer(int64_t num_rows) const;
  /// Tells what that step cost: the time it took, in any unit that stays the same. Every step that
  /// was run with the budget is told of, once.
  void on_step_end(double cost_us, int64_t num_rows);

  /// Without the budgets that are only being tried.
  int64_t kept_bytes_per_layer(int64_t num_rows) const;
  int64_t num_steps() const;
  int64_t num_probe_steps() const;

 private:
  int64_t bytes_of(int arm) const;

  const Options options_;
  std::vector<ArmChooser> choosers_;  // by class of rows
};

}  // namespace augur
