// Everything a person can set, with its defaults. Read once, passed by const reference.
//
// visit_fields is the only list of a struct's fields: name, member, help, accepted numbers.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "configs/config_field.h"

namespace augur {

enum class DeviceChoice : uint8_t { kAuto, kCpu, kCuda };
enum class PrecisionChoice : uint8_t { kAuto, kBF16, kReference };
enum class IsaChoice : uint8_t { kAuto, kPortable, kAvx2, kAvx512, kAmx };
enum class KvDtypeChoice : uint8_t { kAuto, kBF16, kInt8 };
enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError, kOff };

/// The words for an enum's values, in their order.
template <typename Enum>
inline constexpr std::array<std::string_view, 0> kEnumWords{};
template <>
inline constexpr std::array<std::string_view, 3> kEnumWords<DeviceChoice>{"auto", "cpu", "cuda"};
template <>
inline constexpr std::array<std::string_view, 3> kEnumWords<PrecisionChoice>{"auto", "bf16",
                                                                             "reference"};
template <>
inline constexpr std::array<std::string_view, 5> kEnumWords<IsaChoice>{"auto", "portable", "avx2",
                                                                       "avx512", "amx"};
template <>
inline constexpr std::array<std::string_view, 3> kEnumWords<KvDtypeChoice>{"auto", "bf16", "int8"};
template <>
inline constexpr std::array<std::string_view, 5> kEnumWords<LogLevel>{"debug", "info", "warning",
                                                                      "error", "off"};

struct ModelPathConfig {
  std::string path;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("path", &ModelPathConfig::path,
          "folder of the checkpoint, in Hugging Face layout; empty: the bundled demo model");
  }
};

struct ExecutionConfig {
  DeviceChoice device = DeviceChoice::kAuto;
  PrecisionChoice precision = PrecisionChoice::kAuto;
  IsaChoice isa = IsaChoice::kAuto;
  int64_t num_threads = 0;
  bool pin_threads = true;
  int64_t max_batch_size = 64;
  int64_t max_tokens_per_step = 0;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("device", &ExecutionConfig::device,
          "where the model runs; auto: a CUDA device where there is one");
    visit("precision", &ExecutionConfig::precision,
          "arithmetic: bf16 weights and activations with float32 sums, or the slow float32 "
          "reference; auto: bf16");
    visit("isa", &ExecutionConfig::isa,
          "instruction set of the CPU kernels; auto: the best the machine has");
    visit("num_threads", &ExecutionConfig::num_threads,
          "worker threads; 0: one for each core the process may use", between(0, 1024));
    visit("pin_threads", &ExecutionConfig::pin_threads,
          "keep each worker thread on one core, where the threads are as many as the cores");
    visit("max_batch_size", &ExecutionConfig::max_batch_size, "sequences that run at once",
          between(1, 65536));
    visit("max_tokens_per_step", &ExecutionConfig::max_tokens_per_step,
          "tokens computed in one step, prompts and generated ones together; at least "
          "max_batch_size; 0: 2048 on a CPU, 8192 on a CUDA device",
          between(0, 1048576));
  }
};

struct KvCacheConfig {
  KvDtypeChoice dtype = KvDtypeChoice::kAuto;
  int64_t block_size = 64;
  int64_t bytes = 0;
  int64_t max_context = 0;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("dtype", &KvCacheConfig::dtype,
          "what keys and values are kept in; int8, on a CPU only, takes half the memory and is "
          "lossy: answers change slightly; auto: the backend's own, bf16");
    visit("block_size", &KvCacheConfig::block_size, "positions in one block of the KV cache",
          between(16, 1024, 16));
    visit("bytes", &KvCacheConfig::bytes,
          "memory for the KV cache; 0: enough for max_batch_size sequences of max_context, as "
          "far as free memory goes",
          bytes_at_least(0));
    visit("max_context", &KvCacheConfig::max_context,
          "longest sequence, prompt and output together; 0: the model's own", between(0, 1 << 30));
  }
};

struct LoggingConfig {
  LogLevel level = LogLevel::kInfo;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("level", &LoggingConfig::level, "the least serious messages that are shown");
  }
};

struct EngineConfig {
  ModelPathConfig model;
  ExecutionConfig execution;
  KvCacheConfig kv_cache;
  LoggingConfig logging;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("model", &EngineConfig::model, "Which model.");
    visit("execution", &EngineConfig::execution, "How it runs.");
    visit("kv_cache", &EngineConfig::kv_cache, "The keys and values kept of each sequence.");
    visit("logging", &EngineConfig::logging, "What is told on stderr.");
  }
};

}  // namespace augur
