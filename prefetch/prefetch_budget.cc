#include "prefetch/prefetch_budget.h"

#include <bit>
#include <string>

#include "kernels/require.h"
#include "prefetch/predictor.h"

namespace augur {
namespace {

// The smallest power of two that is not less names the class.
int class_of(int64_t num_rows) {
  return std::bit_width(static_cast<uint64_t>(num_rows - 1));
}

bool is_judged(int64_t num_rows) {
  return num_rows >= 1 && num_rows <= kMaxGuessedRows;
}

}  // namespace

PrefetchBudget::PrefetchBudget(const Options& options) : options_(options) {
  AUGUR_REQUIRE(options.expert_bytes > 0, std::to_string(options.expert_bytes) + " bytes");
  AUGUR_REQUIRE(options.max_experts_per_layer >= 0,
                std::to_string(options.max_experts_per_layer) + " experts");
  ArmChooser::Options arms;
  // Arm 0 is nothing, arm i is 2^(i - 1) experts.
  arms.num_arms = 1 + std::bit_width(static_cast<unsigned>(options.max_experts_per_layer));
  arms.max_probe_share = options.max_probe_share;
  choosers_ = std::vector<ArmChooser>(class_of(kMaxGuessedRows) + 1, ArmChooser(arms));
}

int64_t PrefetchBudget::bytes_of(int arm) const {
  return arm == 0 ? 0 : options_.expert_bytes << (arm - 1);
}

int64_t PrefetchBudget::bytes_per_layer(int64_t num_rows) const {
  return is_judged(num_rows) ? bytes_of(choosers_[class_of(num_rows)].arm()) : 0;
}

int64_t PrefetchBudget::kept_bytes_per_layer(int64_t num_rows) const {
  return is_judged(num_rows) ? bytes_of(choosers_[class_of(num_rows)].kept_arm()) : 0;
}

void PrefetchBudget::on_step_end(double cost_us, int64_t num_rows) {
  if (is_judged(num_rows)) choosers_[class_of(num_rows)].on_step_end(cost_us);
}

int64_t PrefetchBudget::num_steps() const {
  int64_t total = 0;
  for (const ArmChooser& chooser : choosers_) total += chooser.num_steps();
  return total;
}

int64_t PrefetchBudget::num_probe_steps() const {
  int64_t total = 0;
  for (const ArmChooser& chooser : choosers_) total += chooser.num_probe_steps();
  return total;
}

}  // namespace augur
