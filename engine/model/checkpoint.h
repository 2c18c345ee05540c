// A model folder as Hugging Face lays it out: its weight files and which tensor lies in which.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/safetensors.h"
#include "prefetch/file.h"

namespace augur {

/// The weights of a folder: model.safetensors, or the shards that model.safetensors.index.json
/// lists. Files stay open, so that a folder replaced under a running program does no harm.
/// Threading: constant after open.
class Checkpoint {
 public:
  /// Reads and checks every header. Throws ConfigError naming the file: no weights in the folder,
  /// a missing shard, a shard name that is not a plain file name, a tensor that is not where the
  /// index says, or a file that read_safetensors_header refuses. The folder's files may be links
  /// (a Hugging Face cache is a folder of links); names in the index may not lead out of it.
  static Checkpoint open(const std::filesystem::path& folder);

  /// Null when there is no such tensor.
  const TensorInfo* find(std::string_view name) const;
  /// "model-00001-of-00003.safetensors: tensor 'x'", for messages.
  std::string where(const TensorInfo& tensor) const;

  const std::filesystem::path& folder() const { return folder_; }
  std::span<const TensorInfo> tensors() const { return tensors_; }  // by name
  std::span<const File> files() const { return files_; }

 private:
  std::filesystem::path folder_;
  std::vector<File> files_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace augur
