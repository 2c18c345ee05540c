#include "engine/text/bpe_model.h"

#include <algorithm>
#include <span>
#include <string>

#include "engine/text/byte_alphabet.h"
#include "engine/text/utf8.h"

namespace augur {
namespace {

constexpr size_t kNumJoins = 1 << 20;  // bits: 128 KiB

size_t join_of(char32_t left, char32_t right) {
  if (left < 256 && right < 256) return left << 8 | right;
  return ((uint64_t{left} << 21 | right) * 0x9E3779B97F4A7C15) >> 44;
}

}  // namespace

BpeModel::BpeModel(const Vocabulary& vocabulary,
                   MergeTable merges,
                   BpeSettings settings,
                   const std::vector<int32_t>& merged_tokens)
    : vocabulary_(vocabulary), merges_(std::move(merges)), settings_(std::move(settings)) {
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    const bool is_character = settings_.is_byte_level || byte < 0x80;
    if (is_character) {
      append_utf8(settings_.is_byte_level ? byte_to_stand_in(static_cast<uint8_t>(byte)) : byte,
                  character);
    }
    character_tokens_[byte] =
        is_character ? vocabulary_.find(character).value_or(kUnknown) : kUnknown;
    static constexpr char kHex[] = "0123456789ABCDEF";
    const std::string fallback = {'<', '0', 'x', kHex[byte >> 4], kHex[byte & 15], '>'};
    fallback_tokens_[byte] = vocabulary_.find(fallback).value_or(kUnknown);
  }
  if (settings_.continuing_subword_prefix.empty() && settings_.end_of_word_suffix.empty()) {
    joins_.assign(kNumJoins / 64, 0);
    for (const int32_t token : merged_tokens) add_joins(vocabulary_.token(token));
  }
  if (settings_.is_byte_level && settings_.ignore_merges) {
    // First all the bytes, then the map: it points at them, and they must not move.
    std::vector<std::pair<size_t, int32_t>> ends;
    for (int32_t id = 0; id < vocabulary_.id_limit(); ++id) {
      if (!vocabulary_.has(id)) continue;
      const std::optional<std::string> bytes = bytes_of_stand_ins(vocabulary_.token(id));
      if (!bytes || bytes->empty()) continue;
      whole_bytes_ += *bytes;
      ends.emplace_back(whole_bytes_.size(), id);
    }
    whole_words_.reserve(ends.size());
    size_t begin = 0;
    for (const auto& [end, id] : ends) {
      whole_words_.insert(std::string_view(whole_bytes_).substr(begin, end - begin), id);
      begin = end;
    }
  }
}

void BpeModel::add_joins(std::string_view token) {
  const auto join = [&](char32_t left, char32_t right) {
    const size_t bit = join_of(left, right);
    joins_[bit / 64] |= uint64_t{1} << (bit % 64);
  };
  char32_t previous = 0;
  for (size_t position = 0; position < token.size();) {
    const bool is_first = position == 0;
    char32_t c = next_code_point(token, position);
    if (settings_.is_byte_level) {
      const std::optional<uint8_t> byte = stand_in_to_byte(c);
      if (!byte) return;  // no word holds this token: its characters cannot come up
      c = *byte;
    }
    if (!is_first) join(previous, c);
    previous = c;
  }
}

bool BpeModel::knows_every_byte() const {
  return settings_.is_byte_level && std::find(character_tokens_.begin(), character_tokens_.end(),
                                              kUnknown) == character_tokens_.end();
}

void BpeModel::encode_word(std::string_view word,
                           Scratch& scratch,
                           std::vector<int32_t>& out) const {
  if (word.size() > WordCache::kMaxWordBytes) return encode_long_word(word, scratch, out);
  WordCache::Entry& entry = scratch.cache.entry_of(hash_bytes(word.data(), word.size()));
  if (entry.holds(word)) {
    out.insert(out.end(), entry.tokens, entry.tokens + entry.num_tokens);
    return;
  }
  const size_t num_before = out.size();
  if (const std::optional<int32_t> whole = find_whole(word)) {
    out.push_back(*whole);
  } else {
    encode_part(word, scratch, out);
  }
  WordCache::store(entry, word, std::span(out).subspan(num_before));
}

void BpeModel::encode_long_word(std::string_view word,
                                Scratch& scratch,
                                std::vector<int32_t>& out) const {
  if (const std::optional<int32_t> whole = find_whole(word)) {
    out.push_back(*whole);
    return;
  }
  if (joins_.empty()) return encode_part(word, scratch, out);
  // The cache holds whole words; with ignore_merges a part may have other tokens than the same
  // text as a word.
  const auto encode = [&](std::string_view part) {
    if (settings_.ignore_merges || part.size() > WordCache::kMaxWordBytes) {
      encode_part(part, scratch, out);
    } else {
      encode_word(part, scratch, out);
    }
  };
  size_t begin = 0;
  char32_t previous = 0;
  bool previous_is_known = false;
  for (size_t position = 0; position < word.size();) {
    const size_t start = position;
    // Unknown characters may fuse with their neighbours, so no cut touches them.
    const bool is_known = take_character(word, position) != kUnknown;
    size_t reread = start;
    const char32_t c = settings_.is_byte_level ? static_cast<unsigned char>(word[start])
                                               : next_code_point(word, reread);
    const size_t bit = join_of(previous, c);
    const bool is_joined = (joins_[bit / 64] >> (bit % 64) & 1) != 0;
    if (start > 0 && !is_joined && is_known && previous_is_known) {
      encode(word.substr(begin, start - begin));
      begin = start;
    }
    previous = c;
    previous_is_known = is_known;
  }
  encode(word.substr(begin));
}

void BpeModel::encode_part(std::string_view part,
                           Scratch& scratch,
                           std::vector<int32_t>& out) const {
  std::vector<int32_t>& tokens = scratch.tokens;
  tokens.clear();
  split_into_characters(part, tokens);
  const size_t num_tokens = merges_.apply(tokens, scratch.merging);
  out.insert(out.end(), tokens.begin(), tokens.begin() + num_tokens);
  constexpr size_t kMaxKeptTokens = 1 << 20;
  if (tokens.capacity() > kMaxKeptTokens) {
    tokens = {};
    scratch.merging = {};
  }
}

std::optional<int32_t> BpeModel::find_whole(std::string_view word) const {
  if (!settings_.ignore_merges) return std::nullopt;
  return settings_.is_byte_level ? whole_words_.find(word) : vocabulary_.find(word);
}

int32_t BpeModel::take_character(std::string_view word, size_t& position) const {
  const auto byte = static_cast<unsigned char>(word[position]);
  if (byte < 0x80 || settings_.is_byte_level) {
    ++position;
    return character_tokens_[byte];
  }
  const size_t begin = position;
  next_code_point(word, position);
  return vocabulary_.find(word.substr(begin, position - begin)).value_or(kUnknown);
}

void BpeModel::split_into_characters(std::string_view word, std::vector<int32_t>& tokens) const {
  const bool has_affixes =
      !settings_.continuing_subword_prefix.empty() || !settings_.end_of_word_suffix.empty();
  bool unk_waits = false;
  std::string character;
  for (size_t position = 0; position < word.size();) {
    const size_t begin = position;
    int32_t token = take_character(word, position);
    if (token == kUnknown || has_affixes) {
      const std::string_view text = word.substr(begin, position - begin);
      character.clear();
      if (begin > 0) character += settings_.continuing_subword_prefix;
      if (settings_.is_byte_level) {
        append_stand_ins(text, character);
      } else {
        character += text;
      }
      if (position == word.size()) character += settings_.end_of_word_suffix;
      if (has_affixes) token = vocabulary_.find(character).value_or(kUnknown);
    }
    if (token != kUnknown) {
      if (unk_waits) tokens.push_back(*settings_.unk_id);
      unk_waits = false;
      tokens.push_back(token);
      continue;
    }
    const auto fallback_of = [&](char byte) {
      return fallback_tokens_[static_cast<unsigned char>(byte)];
    };
    if (settings_.byte_fallback && std::none_of(character.begin(), character.end(), [&](char byte) {
          return fallback_of(byte) == kUnknown;
        })) {
      // An unknown token that waits goes after these bytes, not before: so does the reference
      // implementation, and a vocabulary with only some byte tokens shows it.
      for (const char byte : character) tokens.push_back(fallback_of(byte));
      continue;
    }
    if (!settings_.unk_id) continue;
    if (unk_waits && !settings_.fuse_unk) tokens.push_back(*settings_.unk_id);
    unk_waits = true;
  }
  if (unk_waits) tokens.push_back(*settings_.unk_id);
}

}  // namespace augur
