// Ranks waiting requests by how much their experts are those of the requests that run.
//
// A batch whose sequences use the same experts fetches fewer of them. What a prompt will use is
// asked of an oracle; the shares of those that run are kept as a sum, changed as sequences come
// and go. Shares are whole numbers, so that taking one off the sum leaves no trace of it.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/expert_signature.h"

namespace augur {

/// Knows which experts a prompt will use.
class AffinityOracle {
 public:
  virtual ~AffinityOracle() = default;
  /// What is known of a prompt, or null; valid until the next call of anything of the oracle. All
  /// signatures have one shape. Throws nothing. Asked once of each request that comes near
  /// admission and, where nothing was known, again after other sequences have ended.
  virtual const ExpertSignature* signature_of(std::span<const int32_t> prompt_ids) = 0;
};

/// Who is admitted next: without an oracle the oldest, with one him whose experts fit.
struct AffinityOptions {
  AffinityOracle* oracle = nullptr;  // outlives what it is given to
  int64_t window = 16;               // of the oldest waiting sequences one is chosen
  int64_t max_overtakes = 8;         // of one sequence
};

/// By layer and expert, the share of a text's choices, in units of 1 / kOne, rounded down.
class ExpertShares {
 public:
  static constexpr uint32_t kOne = 65535;

  explicit ExpertShares(const ExpertSignature& signature);

  std::span<const uint16_t> values() const { return shares_; }  // [num_layers, num_experts]
  int num_layers() const { return num_layers_; }
  int num_experts() const { return num_experts_; }
  /// Layers that have choices.
  int num_chosen_layers() const { return num_chosen_layers_; }

 private:
  int num_layers_;
  int num_experts_;
  int num_chosen_layers_ = 0;
  std::vector<uint16_t> shares_;
};

/// What the ranker keeps of a request. A request's sequences have one prompt, so one of these.
struct RequestAffinity {
  std::optional<ExpertShares> shares;  // once known
  int num_running = 0;                 // of the request's sequences
  // States of the ranker in which the oracle was asked last and `overlap` was computed.
  int64_t asked_at = -1;
  int64_t scored_at = -1;
  double overlap = 0;
};

class AffinityRanker {
 public:
  /// `oracle` may be null: then nothing is known of any prompt.
  explicit AffinityRanker(AffinityOracle* oracle) : oracle_(oracle) {}

  /// A sequence of this request runs from now on.
  void on_start(std::span<const int32_t> prompt_ids, RequestAffinity& request);
  /// One that ran does no more.
  void on_stop(RequestAffinity& request);

  /// The share of the request's choices, 0 to 1, that falls on what those that run choose on
  /// average (each sequence counts alike, however long its prompt): by layer, the sum over experts
  /// of the smaller of the two shares; the mean over the request's layers. As overlap() of
  /// signatures, but for the rounding (at most num_experts / kOne). 0 where nothing is known.
  /// Costs one pass over a signature when those that run have changed, else nothing.
  double overlap(std::span<const int32_t> prompt_ids, RequestAffinity& request);

 private:
  void learn(std::span<const int32_t> prompt_ids, RequestAffinity& request);
  void add_to_sum(const ExpertShares& shares);
  void take_off_sum(const ExpertShares& shares);
  double overlap_with_sum(const ExpertShares& shares) const;

  AffinityOracle* const oracle_;
  // Of the running sequences of which something is known. Empty until the first.
  std::vector<uint32_t> sum_;  // [num_layers, num_experts]
  uint32_t num_summed_ = 0;
  int64_t sum_version_ = 0;  // counts changes of the sum
  int64_t num_stopped_ = 0;
};

}  // namespace augur
