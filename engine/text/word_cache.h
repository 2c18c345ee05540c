// Remembers the tokens of short words. Fixed size, one entry per hash value: a new word takes the
// place of the old. Natural text repeats its words, so most never reach the merging.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

namespace augur {

/// Used by one thread at a time.
class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 22;
  static constexpr size_t kMaxTokens = 10;

  /// One cache line, so that a hit costs one miss at most.
  struct alignas(64) Entry {
    uint8_t num_word_bytes;  // 0: empty
    uint8_t num_tokens;
    char word[kMaxWordBytes];
    int32_t tokens[kMaxTokens];

    bool holds(std::string_view text) const {
      return num_word_bytes == text.size() && std::memcmp(word, text.data(), text.size()) == 0;
    }
  };
  static_assert(sizeof(Entry) == 64);

  WordCache() : entries_(std::make_unique<Entry[]>(kNumEntries)) {}

  /// The entry that `word`, of 1 to kMaxWordBytes bytes, is or would be in.
  Entry& entry_of(uint64_t hash) { return entries_[hash & (kNumEntries - 1)]; }

  static void store(Entry& entry, std::string_view word, std::span<const int32_t> tokens) {
    if (tokens.size() > kMaxTokens) return;
    entry.num_word_bytes = static_cast<uint8_t>(word.size());
    entry.num_tokens = static_cast<uint8_t>(tokens.size());
    std::memcpy(entry.word, word.data(), word.size());
    std::memcpy(entry.tokens, tokens.data(), tokens.size_bytes());
  }

 private:
  static constexpr size_t kNumEntries = 1 << 15;  // 2 MiB: a second-level cache's worth
  std::unique_ptr<Entry[]> entries_;
};

}  // namespace augur
