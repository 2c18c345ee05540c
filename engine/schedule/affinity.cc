#include "engine/schedule/affinity.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

// So many whole shares fit the sum's 32 bits.
constexpr uint32_t kMaxSummed = std::numeric_limits<uint32_t>::max() / ExpertShares::kOne;

}  // namespace

ExpertShares::ExpertShares(const ExpertSignature& signature)
    : num_layers_(signature.num_layers()), num_experts_(signature.num_experts()) {
  shares_.reserve(static_cast<size_t>(num_layers_) * num_experts_);
  for (int layer = 0; layer < num_layers_; ++layer) {
    const std::span<const uint32_t> counts = signature.counts(layer);
    const uint64_t sum = std::accumulate(counts.begin(), counts.end(), uint64_t{0});
    if (sum > 0) ++num_chosen_layers_;
    for (const uint32_t count : counts) {
      shares_.push_back(sum == 0 ? 0 : static_cast<uint16_t>(uint64_t{count} * kOne / sum));
    }
  }
}

void AffinityRanker::on_start(std::span<const int32_t> prompt_ids, RequestAffinity& request) {
  if (oracle_ == nullptr) return;
  learn(prompt_ids, request);
  ++request.num_running;
  if (request.shares) add_to_sum(*request.shares);
}

void AffinityRanker::on_stop(RequestAffinity& request) {
  if (oracle_ == nullptr) return;
  AUGUR_REQUIRE(request.num_running > 0, "no sequence of the request runs");
  ++num_stopped_;
  --request.num_running;
  if (request.shares) take_off_sum(*request.shares);
}

double AffinityRanker::overlap(std::span<const int32_t> prompt_ids, RequestAffinity& request) {
  learn(prompt_ids, request);
  if (!request.shares) return 0;
  if (request.scored_at != sum_version_) {
    request.overlap = overlap_with_sum(*request.shares);
    request.scored_at = sum_version_;
  }
  return request.overlap;
}

// What was unknown may be known once another has run to its end.
void AffinityRanker::learn(std::span<const int32_t> prompt_ids, RequestAffinity& request) {
  if (oracle_ == nullptr || request.shares || request.asked_at == num_stopped_) return;
  request.asked_at = num_stopped_;
  const ExpertSignature* const signature = oracle_->signature_of(prompt_ids);
  if (signature == nullptr) return;
  request.shares.emplace(*signature);
  for (int i = 0; i < request.num_running; ++i) add_to_sum(*request.shares);
}

void AffinityRanker::add_to_sum(const ExpertShares& shares) {
  const std::span<const uint16_t> values = shares.values();
  if (sum_.empty()) sum_.resize(values.size());
  AUGUR_REQUIRE(sum_.size() == values.size(), "signatures of different models");
  AUGUR_REQUIRE(num_summed_ < kMaxSummed, std::to_string(num_summed_) + " sequences run");
  for (size_t i = 0; i < values.size(); ++i) sum_[i] += values[i];
  ++num_summed_;
  ++sum_version_;
}

void AffinityRanker::take_off_sum(const ExpertShares& shares) {
  const std::span<const uint16_t> values = shares.values();
  for (size_t i = 0; i < values.size(); ++i) sum_[i] -= values[i];
  --num_summed_;
  ++sum_version_;
}

double AffinityRanker::overlap_with_sum(const ExpertShares& shares) const {
  if (num_summed_ == 0 || shares.num_chosen_layers() == 0) return 0;
  const std::span<const uint16_t> values = shares.values();
  AUGUR_REQUIRE(sum_.size() == values.size(), "signatures of different models");
  // A layer's smaller shares add up to at most num_summed_ * kOne, which fits 32 bits.
  double total = 0;
  const size_t num_experts = static_cast<size_t>(shares.num_experts());
  for (size_t first = 0; first < values.size(); first += num_experts) {
    uint32_t of_layer = 0;
    for (size_t i = first; i < first + num_experts; ++i) {
      of_layer += std::min(values[i] * num_summed_, sum_[i]);
    }
    total += of_layer;
  }
  return total / (double{ExpertShares::kOne} * num_summed_ * shares.num_chosen_layers());
}

}  // namespace augur
