#include "engine/server/token_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "engine/text/byte_alphabet.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

namespace augur::server {
namespace {

// Enough for an answer's usual tokens; bounds what one answer keeps.
constexpr size_t kMaxEntries = 8192;

bool is_utf8(std::string_view bytes) {
  std::string repaired;
  return valid_utf8_or_repaired(bytes, repaired).data() == bytes.data();
}

/// The byte of a token "<0xHH>".
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  uint8_t byte = 0;
  const char* const end = token.data() + 5;
  const auto parsed = std::from_chars(token.data() + 3, end, byte, 16);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return static_cast<char>(byte);
}

/// What `id` decodes to behind another token: at the start of a text a decoder may drop a space.
std::string decode_inside(const Tokenizer& tokenizer, int32_t id) {
  const std::optional<int32_t> anchor = tokenizer.token_to_id("a");
  if (!anchor) return tokenizer.decode(std::array{id}, /*skip_special_tokens=*/false);
  const std::string before = tokenizer.decode(std::array{*anchor}, false);
  const std::string both = tokenizer.decode(std::array{*anchor, id}, false);
  if (!both.starts_with(before)) return tokenizer.decode(std::array{id}, false);
  return both.substr(before.size());
}

std::string bytes_of(const Tokenizer& tokenizer, int32_t id) {
  std::string text = decode_inside(tokenizer, id);
  if (text.find(kReplacementCharacter) == std::string::npos) return text;
  // Half a character, repaired. The token's own writing has the bytes, if it is one that says so:
  // repaired, they must come to the same.
  const std::string_view token = tokenizer.id_to_token(id);
  std::optional<std::string> bytes = bytes_of_stand_ins(token);
  if (!bytes) {
    const std::optional<char> byte = fallback_byte(token);
    if (!byte) return text;
    bytes.emplace(1, *byte);
  }
  std::string repaired;
  return valid_utf8_or_repaired(*bytes, repaired) == text ? *bytes : text;
}

}  // namespace

int count_characters(std::string_view bytes) {
  const auto begins = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; };
  return static_cast<int>(std::count_if(bytes.begin(), bytes.end(), begins));
}

const TokenTexts::Entry& TokenTexts::of(int32_t token_id) {
  const auto found = entries_.find(token_id);
  if (found != entries_.end()) return found->second;
  if (entries_.size() >= kMaxEntries) entries_.clear();
  Entry entry;
  if (tokenizer_ == nullptr) {
    entry.bytes = fmt::format("token_id:{}", token_id);
  } else {
    entry.bytes = bytes_of(*tokenizer_, token_id);
    entry.is_text = is_utf8(entry.bytes);
    entry.is_special = tokenizer_->is_special(token_id);
  }
  entry.num_characters = count_characters(entry.bytes);
  return entries_.emplace(token_id, std::move(entry)).first->second;
}

}  // namespace augur::server
