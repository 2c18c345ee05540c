// Which experts and which keys and values are kept in int8 so that they take so many times fewer
// bytes, decided before a weight is read.
//
// The unit of choice is a layer's experts, all of them, and the whole KV cache.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "configs/model_config.h"
#include "kernels/kv_format.h"
#include "kernels/weights.h"

namespace augur {

/// Bytes as the backend keeps them by itself, and as planned.
struct CompressedBytes {
  int64_t before = 0;
  int64_t after = 0;

  CompressedBytes& operator+=(const CompressedBytes& other);
};

struct CompressionPlan {
  std::vector<ExpertFormat> experts;  // by layer of the model
  KvFormat kv_format = KvFormat::kNative;
  CompressedBytes int8_experts;
  CompressedBytes other_experts;  // of layers left as they are
  CompressedBytes kv_cache;

  CompressedBytes total() const;
  double ratio() const;
  /// For people: a line for each of the three with its layers, format and bytes, and the ratio.
  std::string to_string() const;
};

/// What there is to choose from.
struct CompressionChoices {
  std::vector<LayerKind> layers;   // of the model
  int64_t native_layer_bytes = 0;  // of the experts of one layer
  int64_t int8_layer_bytes = 0;
  /// Formats that the KV cache may have, that of less loss first; at least one.
  std::vector<KvFormat> kv_formats;
  /// What the KV cache would take where experts take `expert_bytes`: a cache that fills the memory
  /// there is depends on them.
  std::function<CompressedBytes(int64_t expert_bytes, KvFormat format)> kv_bytes;
};

/// The plan of least loss whose ratio is at least `ratio`. Throws ConfigError for a ratio that
/// cannot be reached, with the largest that can.
CompressionPlan plan_compression(double ratio, const CompressionChoices& choices);

}  // namespace augur
