// Where the experts of a model lie when they are not in memory: in the checkpoint's files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/expert_key.h"
#include "kernels/ops.h"
#include "kernels/weights.h"
#include "prefetch/file.h"
#include "prefetch/tensor_source.h"

namespace augur {

/// The matrices of one expert: gate and up [intermediate, hidden], down [hidden, intermediate].
struct ExpertSource {
  TensorSource gate;
  TensorSource up;
  TensorSource down;

  int64_t num_bytes() const { return gate.num_bytes() + up.num_bytes() + down.num_bytes(); }
};

/// Reads experts from files into packed blocks.
/// Threading: read may be called from several threads, for different blocks and with a scratch
/// each.
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

  /// Reads expert `key` and packs it with `ops` into `block`, layout().block_bytes long. The block
  /// was zeroed when it was allocated; it may hold another expert. Throws ConfigError when the
  /// file cannot be read; the block's content is then undefined.
  void read(ExpertKey key, const Ops& ops, std::byte* block, Scratch& scratch) const;

  bool has(ExpertKey key) const;
  /// Bytes that read() takes from the files.
  int64_t stored_bytes(ExpertKey key) const;

  const ExpertLayout& layout() const { return layout_; }
  int num_layers() const { return static_cast<int>(sources_.size()); }
  int num_experts(int layer) const { return static_cast<int>(sources_.at(layer).size()); }

 private:
  const ExpertSource& source(ExpertKey key) const;
  void read_matrix(const TensorSource& source,
                   const Ops& ops,
                   std::byte* to,
                   Scratch& scratch) const;

  std::span<const File> files_;
  ExpertLayout layout_;
  std::vector<std::vector<ExpertSource>> sources_;
};

}  // namespace augur
