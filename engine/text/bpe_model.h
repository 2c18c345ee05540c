// Byte-pair encoding of words, as the BPE model of tokenizer.json defines it.
//
// A word begins as one token per character and adjacent tokens merge by rank (Sennrich et al.
// 2016, arXiv:1508.07909). A character that is no token becomes its bytes (byte_fallback), or the
// unknown token, or nothing. In byte-level models the characters are the bytes of the word.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/merge_table.h"
#include "engine/text/vocabulary.h"
#include "engine/text/word_cache.h"

namespace augur {

struct BpeSettings {
  bool is_byte_level = false;  // words are bytes; the vocabulary has their stand-ins
  bool byte_fallback = false;
  bool fuse_unk = false;       // neighbouring unknown characters make one unknown token
  bool ignore_merges = false;  // a word that is a token is that token
  std::optional<int32_t> unk_id;
  std::string continuing_subword_prefix;  // before every character but a word's first
  std::string end_of_word_suffix;         // after a word's last character
};

/// Immutable once built; any number of threads may encode, each with its own Scratch.
class BpeModel {
 public:
  struct Scratch {
    WordCache cache;
    std::vector<int32_t> tokens;
    MergeTable::Scratch merging;
  };

  /// `vocabulary` outlives the model.
  BpeModel(const Vocabulary& vocabulary,
           MergeTable merges,
           BpeSettings settings,
           const std::vector<int32_t>& merged_tokens);

  /// Appends the tokens of `word`, not empty: bytes when byte-level, else well-formed UTF-8.
  void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;

  /// Whether every byte (byte-level) is a token, so that no text is unknown.
  bool knows_every_byte() const;

 private:
  static constexpr int32_t kUnknown = -1;

  void encode_long_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;
  void encode_part(std::string_view part, Scratch& scratch, std::vector<int32_t>& out) const;
  void split_into_characters(std::string_view word, std::vector<int32_t>& tokens) const;
  void add_joins(std::string_view token);
  /// The token of the character at `position`, or kUnknown; moves past it.
  int32_t take_character(std::string_view word, size_t& position) const;
  std::optional<int32_t> find_whole(std::string_view word) const;

  const Vocabulary& vocabulary_;
  const MergeTable merges_;
  const BpeSettings settings_;
  // Tokens of single characters: of bytes when byte-level, else of ASCII characters.
  std::array<int32_t, 256> character_tokens_;
  std::array<int32_t, 256> fallback_tokens_;  // "<0x00>" to "<0xFF>"
  // Byte-level with ignore_merges: tokens by the bytes they stand for.
  std::string whole_bytes_;
  StringIdMap whole_words_;
  // Which characters stand side by side inside some merged token. Where two characters of a word
  // do not, no merge crosses, and the word can be encoded in parts; in byte-level models exact,
  // else a hash, where a false "yes" costs a cut and nothing else. Empty when affixes are in use.
  std::vector<uint64_t> joins_;
};

}  // namespace augur
