// Reads the model of tokenizer.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/bpe_model.h"
#include "engine/text/json_object.h"
#include "engine/text/merge_table.h"
#include "engine/text/vocabulary.h"

namespace augur {

/// What a BPE model is made of.
struct BpeParts {
  Vocabulary vocabulary;
  MergeTable merges;
  std::vector<int32_t> merged_tokens;
  BpeSettings settings;                  // but for is_byte_level and unk_id
  std::optional<std::string> unk_token;  // perhaps not in the vocabulary
};

/// Throws ConfigError for other models than BPE, dropout, tokens or ids that come up twice, ids
/// from kTokenIdLimit on, more than 4 million tokens, and merges of or to unknown tokens.
BpeParts read_bpe(const JsonObject& json);

}  // namespace augur
