// Reads the components of tokenizer.json around the model: normalizer, pre_tokenizer,
// post_processor and decoder. Sequences are flattened. All functions throw ConfigError.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/text/decoder_chain.h"
#include "engine/text/json_object.h"
#include "engine/text/normalizer.h"
#include "engine/text/pre_tokenizer.h"

namespace augur {

/// Ids are below this.
inline constexpr int64_t kTokenIdLimit = 16'000'000;

/// What the post-processors put around the tokens of a text.
struct SpecialTokens {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

void read_normalizer(const JsonObject& json, std::vector<NormalizerStep>& steps);
void read_pre_tokenizer(const JsonObject& json, std::vector<PreTokenizerStep>& steps);
void read_post_processor(const JsonObject& json, SpecialTokens& special_tokens);
void read_decoder(const JsonObject& json, std::vector<DecoderStep>& steps);

}  // namespace augur
