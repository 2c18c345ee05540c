#include "engine/text/vocabulary.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/require.h"

namespace augur {
namespace {

uint64_t load8(const char* p) {
  uint64_t value;
  std::memcpy(&value, p, 8);
  return value;
}

uint64_t load4(const char* p) {
  uint32_t value;
  std::memcpy(&value, p, 4);
  return value;
}

uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Odd constants with evenly spread bits: digits of pi.
constexpr uint64_t kMultiplierA = 0x243F6A8885A308D3;
constexpr uint64_t kMultiplierB = 0x13198A2E03707345;

}  // namespace

uint64_t hash_bytes(const char* data, size_t num_bytes) {
  uint64_t hash = num_bytes * kMultiplierB;
  while (num_bytes > 16) {
    hash = mix(hash ^ load8(data) ^ kMultiplierA, load8(data + 8) ^ kMultiplierB);
    data += 16;
    num_bytes -= 16;
  }
  uint64_t low = 0;
  uint64_t high = 0;
  if (num_bytes >= 8) {  // the two loads may overlap
    low = load8(data);
    high = load8(data + num_bytes - 8);
  } else if (num_bytes >= 4) {
    low = load4(data);
    high = load4(data + num_bytes - 4);
  } else if (num_bytes > 0) {
    low = static_cast<unsigned char>(data[0]) |
          static_cast<uint64_t>(static_cast<unsigned char>(data[num_bytes / 2])) << 8 |
          static_cast<uint64_t>(static_cast<unsigned char>(data[num_bytes - 1])) << 16;
  }
  return mix(hash ^ low ^ kMultiplierA, high ^ kMultiplierB);
}

void StringIdMap::reserve(size_t num_entries) {
  slots_.assign(std::bit_ceil(num_entries * 2 + 1), Slot{});
  mask_ = slots_.size() - 1;
}

size_t StringIdMap::slot_of(std::string_view key) const {
  size_t slot = hash_bytes(key.data(), key.size()) & mask_;
  while (slots_[slot].data != nullptr &&
         std::string_view(slots_[slot].data, slots_[slot].num_bytes) != key) {
    slot = (slot + 1) & mask_;
  }
  return slot;
}

bool StringIdMap::insert(std::string_view key, int32_t id) {
  Slot& slot = slots_[slot_of(key)];
  if (slot.data != nullptr) return false;
  slot = {key.data(), static_cast<uint32_t>(key.size()), id};
  return true;
}

std::optional<int32_t> StringIdMap::find(std::string_view key) const {
  if (slots_.empty()) return std::nullopt;
  const Slot& slot = slots_[slot_of(key)];
  if (slot.data == nullptr) return std::nullopt;
  return slot.id;
}

void Vocabulary::reserve(size_t num_tokens, size_t num_bytes, int32_t highest_id) {
  AUGUR_REQUIRE(num_bytes < kNoToken, "the tokens have " + std::to_string(num_bytes) + " bytes");
  constexpr size_t kPastInPlaceStrings = 64;
  bytes_.reserve(std::max(num_bytes, kPastInPlaceStrings));
  tokens_.assign(static_cast<size_t>(highest_id) + 1, Place{});
  ids_.reserve(num_tokens);
}

Vocabulary::AddResult Vocabulary::add(std::string_view token, int32_t id) {
  if (has(id)) return AddResult::kIdTaken;
  AUGUR_REQUIRE(bytes_.size() + token.size() <= bytes_.capacity(), "reserve was too small");
  const size_t offset = bytes_.size();
  bytes_.append(token);
  const std::string_view stored = std::string_view(bytes_).substr(offset);
  if (!ids_.insert(stored, id)) {
    bytes_.resize(offset);
    return AddResult::kTokenTaken;
  }
  tokens_[id] = {static_cast<uint32_t>(offset), static_cast<uint32_t>(token.size())};
  return AddResult::kAdded;
}

}  // namespace augur
