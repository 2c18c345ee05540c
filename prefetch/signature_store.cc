#include "prefetch/signature_store.h"

#include "kernels/require.h"

namespace augur {

void PrefixHash::extend(int32_t token_id) {
  // The finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
  // generators") over the hash so far and the token; the odd constant keeps token 0 from being
  // nothing.
  uint64_t mixed = value_ * 0x9e3779b97f4a7c15u + static_cast<uint32_t>(token_id) + 1;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
  value_ = mixed ^ (mixed >> 31);
}

SignatureStore::SignatureStore(size_t capacity) : capacity_(capacity) {
  AUGUR_REQUIRE(capacity >= 1, "no room for signatures");
}

std::shared_ptr<const ExpertSignature> SignatureStore::find(uint64_t hash) {
  const auto found = by_hash_.find(hash);
  if (found == by_hash_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->second;
}

void SignatureStore::insert(uint64_t hash, ExpertSignature signature) {
  auto kept = std::make_shared<const ExpertSignature>(std::move(signature));
  if (find(hash) != nullptr) {
    entries_.front().second = std::move(kept);
    return;
  }
  if (entries_.size() == capacity_) {
    by_hash_.erase(entries_.back().first);
    entries_.pop_back();
  }
  entries_.emplace_front(hash, std::move(kept));
  by_hash_.emplace(hash, entries_.begin());
}

}  // namespace augur
