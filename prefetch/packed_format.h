// The bytes of a packed file's header and index: little-endian, as these structs lie in memory.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace augur::packed {

inline constexpr char kMagic[8] = {'A', 'U', 'G', 'U', 'R', 'X', 'P', 'T'};
inline constexpr uint32_t kVersion = 1;
/// The header takes as much, zero past its struct; index and blocks begin at multiples of it, as
/// direct I/O wants.
inline constexpr int64_t kAlignment = 4096;
inline constexpr uint32_t kDtypeBf16 = 1;
// More than any model has; they bound what is allocated for a file.
inline constexpr int64_t kMaxLayers = 4096;
inline constexpr int64_t kMaxExpertsPerLayer = 65536;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t dtype;
  char weight_layout[48];  // zero-terminated
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t up_offset;
  int64_t down_offset;
  int64_t block_bytes;
  int64_t num_layers;
  int64_t num_experts;  // of all layers: entries of the index
  int64_t index_offset;
  int64_t data_offset;  // of the first block
  int64_t file_bytes;
  uint64_t checkpoint_fingerprint;
  uint64_t index_checksum;   // XXH3-64 of the entries
  uint64_t header_checksum;  // XXH3-64 of the fields before this one
};

struct IndexEntry {
  int32_t layer;
  int32_t expert;
  int64_t offset;
  int64_t num_bytes;
  uint64_t checksum;  // XXH3-64 of the block
};

static_assert(std::endian::native == std::endian::little);
static_assert(sizeof(Header) == 168 && sizeof(Header) <= kAlignment);
static_assert(sizeof(IndexEntry) == 32);
static_assert(std::is_trivially_copyable_v<Header> && std::is_trivially_copyable_v<IndexEntry>);

constexpr int64_t align_up(int64_t num_bytes) {
  return (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace augur::packed
