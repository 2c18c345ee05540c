// Where the experts of a model lie when they are not in memory: in the checkpoint's files, matrix
// by matrix, or in a packed file, block by block as the backend wants them.
//
// An expert is read as a row of chunks: each one range of one file, and what becomes of its bytes
// in the block. read() does all of it in one call; the Loader reads the chunks itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/expert_key.h"
#include "kernels/ops.h"
#include "kernels/weights.h"
#include "prefetch/file.h"
#include "prefetch/packed_file.h"
#include "prefetch/tensor_source.h"

namespace augur {

/// The matrices of one expert: gate and up [intermediate, hidden], down [hidden, intermediate].
struct ExpertSource {
  TensorSource gate;
  TensorSource up;
  TensorSource down;

  int64_t num_bytes() const { return gate.num_bytes() + up.num_bytes() + down.num_bytes(); }
};

/// One range of a file and its place in an expert's block.
struct ExpertChunk {
  int32_t file_idx = 0;  // of ExpertStore::files()
  int64_t offset = 0;    // in the file
  int64_t num_bytes = 0;
  /// Rows [first_row, first_row + num_rows) of this matrix, which begins at block_offset; null:
  /// the bytes are the block's own from block_offset on.
  const TensorSource* matrix = nullptr;
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t block_offset = 0;

  bool is_verbatim() const { return matrix == nullptr; }
};

/// Reads experts from files into packed blocks.
/// Threading: constant; every method may be called from several threads, for different blocks and
/// with a scratch each.
class ExpertStore {
 public:
  /// Memory for reading one expert, kept by the caller so that reads after the first allocate
  /// nothing.
  struct Scratch {
    std::vector<Bf16> rows;
    std::vector<std::byte> stored;
  };

  /// `sources[layer]` has an entry per expert; it is empty for a layer without experts. The files
  /// outlive the store. Requires every source to have the layout's shape and a file.
  ExpertStore(std::span<const File> files,
              const ExpertLayout& layout,
              std::vector<std::vector<ExpertSource>> sources);
  /// The file's experts, which outlives the store. Whether it suits the backend is for
  /// PackedFile::require_match to say.
  explicit ExpertStore(const PackedFile& packed);

  /// Reads expert `key` and packs it with `ops` into `block`, layout().block_bytes long. The block
  /// was zeroed when it was allocated; it may hold another expert. Throws ConfigError when the
  /// file cannot be read, or a block of a packed file has not its checksum; the block's content is
  /// then undefined.
  void read(ExpertKey key, const Ops& ops, std::byte* block, Scratch& scratch) const;

  bool has(ExpertKey key) const;
  /// Bytes that read() takes from the files.
  int64_t stored_bytes(ExpertKey key) const;

  /// How many chunks of at most `max_bytes` an expert makes. A chunk is whole rows, so one is
  /// longer where a row is. Requires max_bytes >= 4096 here and below.
  int num_chunks(ExpertKey key, int64_t max_bytes) const;
  /// The chunks together are the expert, each byte once. Requires chunk_idx < num_chunks.
  ExpertChunk chunk(ExpertKey key, int chunk_idx, int64_t max_bytes) const;
  /// The longest chunk of any expert; 0 without experts.
  int64_t largest_chunk_bytes(int64_t max_bytes) const;
  /// Puts the bytes of a chunk where they belong in `block`. `rows` is for converting: room for
  /// chunk.num_rows rows.
  void place(const ExpertChunk& chunk,
             const std::byte* stored,
             const Ops& ops,
             std::byte* block,
             std::span<Bf16> rows) const;
  /// XXH3-64 of the expert's stored bytes, in the order of its chunks, where the files have one.
  std::optional<uint64_t> checksum(ExpertKey key) const;

  /// Tells the experts of one checkpoint from another's of the same shape: a hash of the first
  /// 4 KiB of each matrix of every layer's first and last expert. Of a packed file, that of the
  /// checkpoint it was made from. Throws ConfigError when they cannot be read.
  uint64_t fingerprint() const;

  std::span<const File> files() const { return files_; }
  const ExpertLayout& layout() const { return layout_; }
  int num_layers() const { return static_cast<int>(num_experts_.size()); }
  int num_experts(int layer) const { return num_experts_.at(layer); }

 private:
  void require(ExpertKey key) const;

  std::span<const File> files_;
  ExpertLayout layout_;
  std::vector<int> num_experts_;                    // by layer
  std::vector<std::vector<ExpertSource>> sources_;  // empty with a packed file
  const PackedFile* packed_ = nullptr;
};

/// "expert 3 of layer 7", for messages.
std::string describe(ExpertKey key);

}  // namespace augur
