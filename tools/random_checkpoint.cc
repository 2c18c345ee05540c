#include "tools/random_checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "configs/config_error.h"
#include "engine/model/architecture.h"
#include "engine/model/safetensors_writer.h"
#include "engine/model/weight_plan.h"
#include "kernels/require.h"

namespace augur {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

// One piece of work: large enough for the file system, small enough to share out.
constexpr int64_t kPieceValues = int64_t{1} << 20;
constexpr int64_t kMaxTensors = 1'000'000;  // what a reader accepts in one file
constexpr int64_t kHeaderBytesPerTensor = 200;

// Steele et al. 2014, "Fast splittable pseudorandom number generators", the SplitMix64 finaliser.
uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

// Word `idx` of the stream: four values of 16 bits.
uint64_t random_word(uint64_t seed, int64_t idx) {
  return mix(seed + static_cast<uint64_t>(idx + 1) * 0x9e3779b97f4a7c15u);
}

// FNV-1a, so that a tensor keeps its values when others come or go.
uint64_t stream_of(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return mix(seed ^ mix(hash));
}

// Rounds a finite value to nearest; without to_bf16's test for NaN the loop below vectorises.
void store(float value, Bf16* to) {
  to->bits = static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + 0x8000u) >> 16);
}
void store(float value, float* to) {
  *to = value;
}

template <typename T>
void fill(uint64_t seed, int64_t first, int64_t count, float centre, float spread, T* to) {
  AUGUR_REQUIRE(first % 4 == 0, std::to_string(first));
  const float step = spread / 32768.0f;
  for (int64_t i = 0; i < count; i += 4) {
    const uint64_t word = random_word(seed, (first + i) / 4);
    const int64_t num_values = std::min<int64_t>(4, count - i);
    for (int64_t j = 0; j < num_values; ++j) {
      const auto bits = static_cast<int16_t>(word >> (16 * j));
      store(centre + step * static_cast<float>(bits), to + i + j);
    }
  }
}

struct Distribution {
  float centre = 0;
  float spread = 0;
};

Distribution distribution_of(const WantedTensor& tensor) {
  if (tensor.num_cols > 0) {
    return {0, std::sqrt(3.0f / static_cast<float>(tensor.num_cols))};  // variance 1 / num_cols
  }
  switch (kind_of(tensor.role)) {
    case WeightKind::kNorms:
      return {1, 0.1f};
    case WeightKind::kRouters:
      return {0, 0.01f};
    default:
      return {0, 0.1f};
  }
}

struct RandomTensor {
  TensorInfo info;
  Distribution distribution;
  int64_t num_values = 0;
};

struct Shard {
  std::string file_name;
  std::vector<RandomTensor> tensors;
};

// Counted before names are made: an absurd config is refused while it is cheap.
void check_size(const ModelConfig& config, const RandomCheckpointOptions& options) {
  int64_t num_tensors = 0;
  // Cannot overflow: a tensor has at most 2^41 values, see architecture_fields.h.
  int64_t num_bytes = 0;
  visit_wanted_tensors(config, [&](const WantedTensor& tensor) {
    num_bytes += tensor.num_cols > 0 ? tensor.num_rows * tensor.num_cols * 2 : tensor.num_rows * 4;
    return ++num_tensors <= kMaxTensors;
  });
  if (num_tensors > kMaxTensors) {
    throw ConfigError(options.config_name,
                      fmt::format("describes more than {} tensors", kMaxTensors));
  }
  num_bytes += num_tensors * kHeaderBytesPerTensor;
  const fs::space_info space = fs::space(options.output);
  if (static_cast<uint64_t>(num_bytes) > space.available) {
    throw ConfigError(options.output.string(),
                      fmt::format("the checkpoint takes {:.2f} GB, but the disk has {:.2f} GB "
                                  "free; fewer --layers make it smaller",
                                  static_cast<double>(num_bytes) / 1e9,
                                  static_cast<double>(space.available) / 1e9));
  }
}

std::vector<Shard> lay_out(const ModelDescription& model, int64_t shard_bytes) {
  std::vector<Shard> shards(1);
  int64_t bytes_in_shard = 0;
  visit_wanted_tensors(model.config, [&](const WantedTensor& wanted) {
    RandomTensor tensor;
    tensor.info.name = model.architecture->names.name(wanted.role, wanted.layer, wanted.expert);
    tensor.info.dtype =
        wanted.role == WeightRole::kCorrectionBias ? TensorDType::kF32 : TensorDType::kBF16;
    tensor.info.shape = wanted.shape();
    tensor.distribution = distribution_of(wanted);
    tensor.num_values = wanted.num_rows * std::max<int64_t>(wanted.num_cols, 1);
    const int64_t num_bytes = tensor.num_values * bits_of(tensor.info.dtype) / 8;
    if (bytes_in_shard > 0 && bytes_in_shard + num_bytes > shard_bytes) {
      shards.emplace_back();
      bytes_in_shard = 0;
    }
    bytes_in_shard += num_bytes;
    shards.back().tensors.push_back(std::move(tensor));
    return true;
  });
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].file_name =
        shards.size() == 1 ? "model.safetensors"
                           : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  }
  return shards;
}

// Calls task(piece_idx) for each piece from several threads; the first error is thrown here.
template <typename Task>
void for_each_piece(int64_t num_pieces, int num_threads, const Task& task) {
  std::atomic<int64_t> next_piece{0};
  std::mutex error_mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      for (int64_t piece = next_piece++; piece < num_pieces; piece = next_piece++) task(piece);
    } catch (...) {
      next_piece = num_pieces;
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  };
  std::vector<std::jthread> threads;
  for (int i = 1; i < num_threads; ++i) threads.emplace_back(work);
  work();
  threads.clear();
  if (error) std::rethrow_exception(error);
}

struct Piece {
  size_t tensor_idx = 0;
  int64_t first_value = 0;
  int64_t num_values = 0;
};

void write_shard(const Shard& shard,
                 const RandomCheckpointOptions& options,
                 int64_t bytes_wanted,
                 std::atomic<int64_t>& bytes_written) {
  std::vector<TensorInfo> infos;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < shard.tensors.size(); ++i) {
    infos.push_back(shard.tensors[i].info);
    for (int64_t first = 0; first < shard.tensors[i].num_values; first += kPieceValues) {
      pieces.push_back({i, first, std::min(kPieceValues, shard.tensors[i].num_values - first)});
    }
  }
  SafetensorsWriter writer(options.output / shard.file_name, std::move(infos));
  std::mutex progress_mutex;
  for_each_piece(static_cast<int64_t>(pieces.size()), options.num_threads, [&](int64_t piece_idx) {
    const Piece& piece = pieces[piece_idx];
    const RandomTensor& tensor = shard.tensors[piece.tensor_idx];
    const uint64_t stream = stream_of(options.seed, tensor.info.name);
    const auto [centre, spread] = tensor.distribution;
    const auto write = [&]<typename T>(std::vector<T>& values) {
      values.resize(static_cast<size_t>(kPieceValues));
      fill_random(stream, piece.first_value, piece.num_values, centre, spread, values.data());
      constexpr auto kValueBytes = static_cast<int64_t>(sizeof(T));
      writer.write(piece.tensor_idx, piece.first_value * kValueBytes, values.data(),
                   piece.num_values * kValueBytes);
      return piece.num_values * kValueBytes;
    };
    thread_local std::vector<Bf16> narrow;
    thread_local std::vector<float> wide;
    bytes_written += tensor.info.dtype == TensorDType::kBF16 ? write(narrow) : write(wide);
    if (options.on_progress) {
      const std::lock_guard lock(progress_mutex);
      options.on_progress(bytes_written, bytes_wanted);
    }
  });
  writer.finish();
}

void write_text(const fs::path& path, const std::string& text) {
  OutputFile file(path);
  file.write_at(0, text.data(), static_cast<int64_t>(text.size()));
  file.close();
}

std::string index_json(const std::vector<Shard>& shards, int64_t num_bytes) {
  json::object weight_map;
  for (const Shard& shard : shards) {
    for (const RandomTensor& tensor : shard.tensors) {
      weight_map[tensor.info.name] = shard.file_name;
    }
  }
  json::object index;
  index["metadata"] = {{"total_size", num_bytes}};
  index["weight_map"] = std::move(weight_map);
  return json::serialize(index) + "\n";
}

// The config.json to write: so many layers, and no draft layer since none is written.
json::object config_object(const RandomCheckpointOptions& options) {
  json::error_code error;
  json::value parsed = json::parse(options.config_json, error);
  if (error || !parsed.is_object()) {
    throw ConfigError(options.config_name,
                      error ? "is not JSON: " + error.message() : "is not a JSON object");
  }
  json::object config = std::move(parsed.as_object());
  if (config.contains("num_nextn_predict_layers")) config["num_nextn_predict_layers"] = 0;
  if (options.num_layers == 0) return config;

  const int64_t num_layers = options.num_layers;
  config["num_hidden_layers"] = num_layers;
  config.erase("layer_types");  // one entry per layer; readers take it from the other keys
  if (json::value* dense = config.if_contains("first_k_dense_replace");
      dense != nullptr && dense->is_int64()) {
    *dense = std::min(dense->as_int64(), num_layers);
  }
  if (json::value* dense = config.if_contains("mlp_only_layers");
      dense != nullptr && dense->is_array()) {
    json::array kept;
    for (const json::value& layer : dense->as_array()) {
      if (!layer.is_int64() || layer.as_int64() < num_layers) kept.push_back(layer);
    }
    *dense = std::move(kept);
  }
  return config;
}

// Removes what was written, latest first, unless told that all went well.
class Cleanup {
 public:
  ~Cleanup() {
    std::error_code ignored;
    while (!paths_.empty()) {
      fs::remove(paths_.back(), ignored);
      paths_.pop_back();
    }
  }
  fs::path add(fs::path path) { return paths_.emplace_back(std::move(path)); }
  void keep() { paths_.clear(); }

 private:
  std::vector<fs::path> paths_;
};

void prepare_folder(const fs::path& folder, Cleanup& cleanup) {
  std::error_code error;
  if (fs::create_directories(folder, error)) cleanup.add(folder);
  if (error) throw ConfigError(folder.string(), "cannot be created: " + error.message());
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".safetensors" || path.filename() == "config.json" ||
        path.filename() == "model.safetensors.index.json") {
      throw ConfigError(folder.string(), "already holds " + path.filename().string() +
                                             "; accepted: a folder without a model");
    }
  }
}

void copy_tokenizer(const fs::path& from, const fs::path& to, Cleanup& cleanup) {
  if (!fs::exists(from / "tokenizer.json")) {
    throw ConfigError(from.string(), "holds no tokenizer.json");
  }
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "chat_template.jinja"}) {
    if (!fs::exists(from / name)) continue;
    std::error_code error;
    fs::copy_file(from / name, cleanup.add(to / name), fs::copy_options::overwrite_existing, error);
    if (error) throw ConfigError((to / name).string(), "cannot be written: " + error.message());
  }
}

}  // namespace

void fill_random(
    uint64_t seed, int64_t first, int64_t count, float centre, float spread, Bf16* to) {
  fill(seed, first, count, centre, spread, to);
}

void fill_random(
    uint64_t seed, int64_t first, int64_t count, float centre, float spread, float* to) {
  fill(seed, first, count, centre, spread, to);
}

RandomCheckpointReport write_random_checkpoint(const RandomCheckpointOptions& options) {
  AUGUR_REQUIRE(options.num_threads >= 1 && options.shard_bytes >= 1 && options.num_layers >= 0,
                fmt::format("{} threads, shards of {} bytes, {} layers", options.num_threads,
                            options.shard_bytes, options.num_layers));
  const auto start = std::chrono::steady_clock::now();
  const json::object config = config_object(options);
  const std::string config_text = json::serialize(config) + "\n";
  const ModelDescription model =
      describe_model(HfConfig::parse(config_text, options.config_name), GenerationConfig());
  Cleanup cleanup;
  prepare_folder(options.output, cleanup);
  check_size(model.config, options);

  const std::vector<Shard> shards = lay_out(model, options.shard_bytes);
  RandomCheckpointReport report;
  report.num_shards = static_cast<int>(shards.size());
  for (const Shard& shard : shards) {
    for (const RandomTensor& tensor : shard.tensors) {
      ++report.num_tensors;
      report.num_parameters += tensor.num_values;
      report.num_bytes += tensor.num_values * bits_of(tensor.info.dtype) / 8;
    }
  }

  if (!options.tokenizer.empty()) copy_tokenizer(options.tokenizer, options.output, cleanup);
  write_text(cleanup.add(options.output / "config.json"), config_text);
  json::object generation = {{"do_sample", false}};
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (const json::value* id = config.if_contains(key)) generation[key] = *id;
  }
  write_text(cleanup.add(options.output / "generation_config.json"),
             json::serialize(generation) + "\n");
  std::atomic<int64_t> bytes_written{0};
  for (const Shard& shard : shards) {
    cleanup.add(options.output / shard.file_name);
    write_shard(shard, options, report.num_bytes, bytes_written);
  }
  if (shards.size() > 1) {
    write_text(cleanup.add(options.output / "model.safetensors.index.json"),
               index_json(shards, report.num_bytes));
  }
  cleanup.keep();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace augur
