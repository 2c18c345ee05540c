// Writes a model folder with random weights: real shapes to test and time with, no download.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "kernels/bf16.h"

namespace augur {

struct RandomCheckpointOptions {
  std::filesystem::path output;     // a folder without a model in it; made when missing
  std::string_view config_json;     // as config.json
  std::string config_name;          // for errors
  int num_layers = 0;               // 0: as config_json says
  uint64_t seed = 0;                // a tensor's values depend on this and its name alone
  int64_t shard_bytes = 0;          // data of one file, unless a tensor is larger
  int num_threads = 1;              // that make and write values
  std::filesystem::path tokenizer;  // folder to copy tokenizer files from; empty: none
  std::function<void(int64_t bytes_written, int64_t bytes_wanted)> on_progress;  // or empty
};

struct RandomCheckpointReport {
  int64_t num_bytes = 0;  // of tensor data
  int64_t num_tensors = 0;
  int64_t num_parameters = 0;
  int num_shards = 0;
  double seconds = 0;
};

/// Matrices are uniform with variance 1 / inputs, so that a layer's output is as large as its
/// input and activations stay finite at any depth; norms lie around 1, biases around 0. Weights
/// are bf16, the routers' correction biases float32, as published. Throws ConfigError for a
/// config that Augur cannot run, an output folder that holds a model, or a disk that has not the
/// room (before writing, or when it fills up; what was written is then removed).
RandomCheckpointReport write_random_checkpoint(const RandomCheckpointOptions& options);

/// Values [first, first + count) of the stream `seed`, uniform in [centre - spread,
/// centre + spread]. Requires `first` to be a multiple of 4.
void fill_random(uint64_t seed, int64_t first, int64_t count, float centre, float spread, Bf16* to);
void fill_random(
    uint64_t seed, int64_t first, int64_t count, float centre, float spread, float* to);

}  // namespace augur
