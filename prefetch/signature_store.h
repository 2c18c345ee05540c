// What is known of the experts of texts that ran before, by the hash of the text.
//
// Threading: one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>

#include "cache/expert_signature.h"

namespace augur {

/// A 64-bit hash of a text's first tokens, extended token by token. Two texts with the same hash
/// would share a signature: a worse guess, no wrong result.
class PrefixHash {
 public:
  PrefixHash() = default;
  explicit PrefixHash(std::span<const int32_t> token_ids) {
    for (const int32_t id : token_ids) extend(id);
  }
  void extend(int32_t token_id);
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0;
};

/// Signatures by hash; the one not asked for longest goes when there are too many.
class SignatureStore {
 public:
  /// Requires capacity >= 1.
  explicit SignatureStore(size_t capacity);

  /// Null when it is unknown. Counts as a use.
  std::shared_ptr<const ExpertSignature> find(uint64_t hash);
  /// Replaces what was known.
  void insert(uint64_t hash, ExpertSignature signature);
  size_t size() const { return by_hash_.size(); }

 private:
  using Entry = std::pair<uint64_t, std::shared_ptr<const ExpertSignature>>;

  const size_t capacity_;
  std::list<Entry> entries_;  // the most recently used first
  std::unordered_map<uint64_t, std::list<Entry>::iterator> by_hash_;
};

}  // namespace augur
