// What the scheduler asks of prompts' experts, answered from those of prompts seen before.
#pragma once

#include "engine/schedule/affinity.h"
#include "prefetch/prompt_signature.h"

namespace augur {

class SignatureOracle final : public AffinityOracle {
 public:
  /// `signatures` outlives the oracle.
  explicit SignatureOracle(PromptSignature& signatures) : signatures_(signatures) {}

  const ExpertSignature* signature_of(std::span<const int32_t> prompt_ids) override {
    return signatures_.signature_for(prompt_ids);
  }

 private:
  PromptSignature& signatures_;
};

}  // namespace augur
