// XXH3-64 of bytes that come piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

struct XXH3_state_s;

namespace augur {

class StreamChecksum {
 public:
  /// Allocates the state, about half a KiB.
  StreamChecksum();

  /// Forgets what came before.
  void reset();
  void add(const std::byte* bytes, int64_t num_bytes);
  /// Of what came since reset().
  uint64_t value() const;

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

}  // namespace augur
