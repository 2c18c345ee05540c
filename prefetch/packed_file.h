// A file of experts as one backend lays them out in memory: reading one is one run of bytes that
// needs no packing, and with direct I/O no copy either.
//
//   header   4096 bytes, see packed_format.h
//   index    an entry per expert, by layer and expert: place, length, checksum
//   blocks   each at a multiple of 4096 bytes, zeros between
//
// Nothing of it is believed before it was checked against the file's own size, and header and index
// against their checksums.
// Threading: constant after construction.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "cache/expert_key.h"
#include "kernels/weights.h"
#include "prefetch/file.h"

namespace augur {

/// What must be equal for a packed file to serve a model on a backend.
struct PackedIdentity {
  ExpertLayout layout;
  std::string weight_layout;            // Ops::weight_layout of the backend, 1 to 47 characters
  std::vector<int32_t> num_experts;     // by layer of the model; 0 in a layer without experts
  uint64_t checkpoint_fingerprint = 0;  // ExpertStore::fingerprint of what it was made from
};

class PackedFile {
 public:
  struct Entry {
    ExpertKey key;
    int64_t offset = 0;     // of the block, layout.block_bytes long
    uint64_t checksum = 0;  // XXH3-64 of the block
  };

  /// Opens and checks header and index. Throws ConfigError, saying what was found and what is
  /// accepted, for a file that is not a packed file, is of another version, damaged or cut short.
  /// Blocks are not read.
  explicit PackedFile(const std::filesystem::path& path);

  /// Throws ConfigError naming the first thing that differs from `wanted`.
  void require_match(const PackedIdentity& wanted) const;

  const PackedIdentity& identity() const { return identity_; }
  std::span<const Entry> entries() const { return entries_; }  // by key
  /// Requires an expert of the file.
  const Entry& entry(ExpertKey key) const;
  const File& file() const { return file_; }

 private:
  File file_;
  PackedIdentity identity_;
  std::vector<Entry> entries_;
  std::vector<int64_t> first_entry_of_;  // by layer
};

}  // namespace augur
