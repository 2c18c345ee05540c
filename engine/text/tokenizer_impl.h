// What a Tokenizer is made of; for tokenizer.cc and detokenizer.cc.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/added_tokens.h"
#include "engine/text/bpe_model.h"
#include "engine/text/decoder_chain.h"
#include "engine/text/normalizer.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_components.h"
#include "engine/text/vocabulary.h"

namespace augur {

struct Tokenizer::Impl {
  // Constant after construction.
  Vocabulary vocabulary;          // of the model
  std::vector<AddedToken> added;  // sorted by id
  StringIdMap added_ids;          // by content
  AddedTokenFinder plain_finder;  // of tokens found in the text as it came
  AddedTokenFinder normalized_finder;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::optional<BpeModel> model;
  SpecialTokens special_tokens;
  std::vector<DecoderStep> decoder;
  // What the decoders see of added tokens: the normalized form of those that are normalized.
  std::vector<std::string> added_decode_texts;  // beside `added`

  // Working memory of encode, one per call under way; kept, since it holds the word caches.
  mutable std::mutex scratch_mutex;
  mutable std::vector<std::unique_ptr<BpeModel::Scratch>> idle_scratch;

  /// The place in `added` of the token with this id, or nothing.
  std::optional<size_t> added_idx(int32_t id) const;
  /// What the decoders see of `id`; nothing for ids to pass over.
  std::optional<std::string_view> decode_text(int32_t id, bool skip_special_tokens) const;
};

}  // namespace augur
