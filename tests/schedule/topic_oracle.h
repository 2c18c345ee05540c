// An oracle of made-up topics: the first token of a prompt says which experts it uses.
#pragma once

#include <map>

#include "engine/schedule/affinity.h"

namespace augur::test {

class TopicOracle : public AffinityOracle {
 public:
  /// Prompts that begin with `token_id` choose `experts` of the first layer, each once, of 8; the
  /// second layer has no choices.
  void teach(int32_t token_id, std::span<const int32_t> experts) {
    ExpertSignature signature(/*num_layers=*/2, /*num_experts=*/8);
    signature.add(0, experts);
    signatures_.insert_or_assign(token_id, signature);
  }
  void teach(int32_t token_id, std::initializer_list<int32_t> experts) {
    teach(token_id, std::span(experts.begin(), experts.size()));
  }

  const ExpertSignature* signature_of(std::span<const int32_t> prompt_ids) override {
    ++num_asked_;
    const auto found = signatures_.find(prompt_ids[0]);
    if (found == signatures_.end()) return nullptr;
    // What was returned before is overwritten, as it may be.
    lent_ = found->second;
    return &lent_;
  }
  int num_asked() const { return num_asked_; }

 private:
  std::map<int32_t, ExpertSignature> signatures_;
  ExpertSignature lent_{2, 8};
  int num_asked_ = 0;
};

}  // namespace augur::test
