// Tokens and their ids, both ways. Strings lie one after the other in one buffer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace augur {

/// A hash of a short string; words and tokens hash in a few multiplications.
uint64_t hash_bytes(const char* data, size_t num_bytes);

/// Maps strings to ids: an open-addressing table whose keys lie elsewhere.
class StringIdMap {
 public:
  /// Room for `num_entries`; more must not be added.
  void reserve(size_t num_entries);
  /// False when `key` is present already. The bytes of `key` must outlive the map.
  bool insert(std::string_view key, int32_t id);
  std::optional<int32_t> find(std::string_view key) const;

 private:
  struct Slot {
    const char* data = nullptr;  // null: empty
    uint32_t num_bytes = 0;
    int32_t id = 0;
  };
  size_t slot_of(std::string_view key) const;  // where it is, or the empty slot it would take

  std::vector<Slot> slots_;  // a power of two
  size_t mask_ = 0;
};

/// Immutable once built; then any number of threads may read it.
class Vocabulary {
 public:
  enum class AddResult { kAdded, kTokenTaken, kIdTaken };

  /// Room for `num_tokens` with `num_bytes` characters in all and ids of at most `highest_id`;
  /// more must not be added.
  void reserve(size_t num_tokens, size_t num_bytes, int32_t highest_id);
  AddResult add(std::string_view token, int32_t id);

  std::optional<int32_t> find(std::string_view token) const { return ids_.find(token); }
  bool has(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < tokens_.size() && tokens_[id].offset != kNoToken;
  }
  /// The token of `id`, empty when there is none.
  std::string_view token(int32_t id) const {
    if (!has(id)) return {};
    return std::string_view(bytes_).substr(tokens_[id].offset, tokens_[id].num_bytes);
  }
  /// The highest id + 1: ids run below this, perhaps with gaps.
  int32_t id_limit() const { return static_cast<int32_t>(tokens_.size()); }

  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;             // the strings stay where they are: they are
  Vocabulary& operator=(Vocabulary&&) = default;  // larger than any in-place string buffer

 private:
  static constexpr uint32_t kNoToken = UINT32_MAX;
  struct Place {
    uint32_t offset = kNoToken;
    uint32_t num_bytes = 0;
  };
  std::string bytes_;
  std::vector<Place> tokens_;  // by id
  StringIdMap ids_;
};

}  // namespace augur
