#include "prefetch/stream_checksum.h"

#include <xxhash.h>

#include <new>

namespace augur {

void StreamChecksum::Free::operator()(XXH3_state_s* state) const {
  XXH3_freeState(state);
}

StreamChecksum::StreamChecksum() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  reset();
}

void StreamChecksum::reset() {
  XXH3_64bits_reset(state_.get());
}

void StreamChecksum::add(const std::byte* bytes, int64_t num_bytes) {
  XXH3_64bits_update(state_.get(), bytes, static_cast<size_t>(num_bytes));
}

uint64_t StreamChecksum::value() const {
  return XXH3_64bits_digest(state_.get());
}

}  // namespace augur
