#include "engine/model/checkpoint.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <map>
#include <utility>

#include "configs/config_error.h"
#include "engine/text/in_quotes.h"

namespace augur {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = 100'000'000;  // as the header of a single file
constexpr size_t kMaxShards = 10'000;

// Tensor names by shard.
using WeightMap = std::map<std::string, std::vector<std::string>, std::less<>>;

// A plain file name: it can only lead to an entry of the folder itself.
bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' &&
         name.find('/') == std::string_view::npos && name.find('\\') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos && name.ends_with(".safetensors");
}

WeightMap read_index(const fs::path& path) {
  const simdjson::padded_string json(read_text_file(path, kMaxIndexBytes));
  const std::string where = path.string();
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (const auto error = parser.parse(json).get(root)) {
    throw ConfigError(where, fmt::format("is not JSON: {}", simdjson::error_message(error)));
  }
  simdjson::dom::object entries;
  if (root["weight_map"].get(entries)) {
    throw ConfigError(where, "has no object 'weight_map' from tensor names to files");
  }
  WeightMap shards;
  for (const auto [tensor, value] : entries) {
    std::string_view shard;
    if (value.get(shard)) {
      throw ConfigError(where, "weight_map: the file of " + in_quotes(tensor) + " is not a string");
    }
    if (!is_plain_name(shard)) {
      throw ConfigError(where, "weight_map: " + in_quotes(tensor) + " is placed in " +
                                   in_quotes(shard) +
                                   "; accepted: the plain name of a .safetensors file of the same "
                                   "folder");
    }
    auto place = shards.find(shard);
    if (place == shards.end()) place = shards.emplace(shard, std::vector<std::string>()).first;
    place->second.emplace_back(tensor);
    if (shards.size() > kMaxShards) {
      throw ConfigError(where, fmt::format("weight_map: more than {} files", kMaxShards));
    }
  }
  if (shards.empty()) throw ConfigError(where, "weight_map is empty");
  return shards;
}

bool by_name(const TensorInfo& a, const TensorInfo& b) {
  return a.name < b.name;
}

const TensorInfo* find_by_name(std::span<const TensorInfo> sorted, std::string_view name) {
  const auto found = std::lower_bound(
      sorted.begin(), sorted.end(), name,
      [](const TensorInfo& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return found != sorted.end() && found->name == name ? &*found : nullptr;
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw ConfigError(folder.string(), fs::exists(folder, ignored)
                                           ? "is not a folder; accepted: a model folder with "
                                             "config.json and .safetensors files"
                                           : "there is no such folder");
  }
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;

  if (fs::exists(folder / kSingleFile, ignored)) {
    checkpoint.files_.emplace_back(folder / kSingleFile);
    checkpoint.tensors_ = read_safetensors_header(checkpoint.files_.back());
    std::sort(checkpoint.tensors_.begin(), checkpoint.tensors_.end(), by_name);
    return checkpoint;
  }
  if (!fs::exists(folder / kIndexFile, ignored)) {
    throw ConfigError(folder.string(), fmt::format("holds no weights; accepted: {} or {} with the "
                                                   "files it names",
                                                   kSingleFile, kIndexFile));
  }

  const fs::path index_path = folder / kIndexFile;
  WeightMap shards = read_index(index_path);
  for (const auto& [shard, names] : shards) {
    if (!fs::exists(folder / shard, ignored)) {
      throw ConfigError((folder / shard).string(),
                        fmt::format("is missing; {} places {} tensors in it, {} among them",
                                    kIndexFile, names.size(), in_quotes(names.front())));
    }
  }
  for (auto& [shard, names] : shards) {
    const auto file_idx = static_cast<int32_t>(checkpoint.files_.size());
    checkpoint.files_.emplace_back(folder / shard);
    std::vector<TensorInfo> found = read_safetensors_header(checkpoint.files_.back());
    std::sort(found.begin(), found.end(), by_name);
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      const TensorInfo* tensor = find_by_name(found, name);
      if (tensor == nullptr) {
        throw ConfigError(
            (folder / shard).string(),
            fmt::format("has no tensor {}, which {} places there", in_quotes(name), kIndexFile));
      }
      checkpoint.tensors_.push_back(*tensor);
      checkpoint.tensors_.back().file_idx = file_idx;
    }
  }
  std::sort(checkpoint.tensors_.begin(), checkpoint.tensors_.end(), by_name);
  const auto twin =
      std::adjacent_find(checkpoint.tensors_.begin(), checkpoint.tensors_.end(),
                         [](const TensorInfo& a, const TensorInfo& b) { return a.name == b.name; });
  if (twin != checkpoint.tensors_.end()) {
    throw ConfigError(index_path.string(), "weight_map lists " + in_quotes(twin->name) + " twice");
  }
  return checkpoint;
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  return find_by_name(tensors_, name);
}

std::string Checkpoint::where(const TensorInfo& tensor) const {
  return files_.at(tensor.file_idx).path().filename().string() + ": tensor " +
         in_quotes(tensor.name);
}

}  // namespace augur
