// Everything a person can set, with its defaults. Read once, passed by const reference.
//
// visit_fields is the only list of a struct's fields: name, member, help, accepted numbers.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "configs/config_field.h"
#include "configs/server_config.h"

namespace augur {

enum class DeviceChoice : uint8_t { kAuto, kCpu, kCuda };
enum class PrecisionChoice : uint8_t { kAuto, kBF16, kReference };
enum class IsaChoice : uint8_t { kAuto, kPortable, kAvx2, kAvx512, kAmx };
enum class EvictionChoice : uint8_t { kLru, kLfu, kLeastStale };
enum class RouteMode : uint8_t { kPrefetch, kServe };
enum class ProjectionChoice : uint8_t { kPca, kRandom };
enum class SchedulePolicyChoice : uint8_t { kFcfs, kLongestPrefix, kPriority, kExpertAffinity };
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
inline constexpr std::array<std::string_view, 3> kEnumWords<EvictionChoice>{"lru", "lfu",
                                                                            "least_stale"};
template <>
inline constexpr std::array<std::string_view, 2> kEnumWords<RouteMode>{"prefetch", "serve"};
template <>
inline constexpr std::array<std::string_view, 2> kEnumWords<ProjectionChoice>{"pca", "random"};
template <>
inline constexpr std::array<std::string_view, 4> kEnumWords<SchedulePolicyChoice>{
    "fcfs", "lpm", "priority", "expert_affinity"};
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
  int64_t prefetch_workers = 2;
  std::string routing_trace;

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
    visit("prefetch_workers", &ExecutionConfig::prefetch_workers,
          "threads that read experts into the pool", between(1, 64));
    visit(
        "routing_trace", &ExecutionConfig::routing_trace,
        "for benchmarks: a recorded routing trace whose choices replace the gates'; the output is "
        "then meaningless; empty: the gates choose");
  }
};

struct LowBitConfig {
  bool enabled = false;
  double confidence = 0.1;
  double protected_share = 0.05;
  int64_t calibration_tokens = 256;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("enabled", &LowBitConfig::enabled,
          "keep an int8 copy of every expert beside the pool and let it serve what unsure tokens "
          "choose of experts outside the pool; lossy");
    visit("confidence", &LowBitConfig::confidence,
          "a token is unsure of a layer's experts when the least of its gate weights is below this "
          "share of their sum; 0: none is; above 1 / top_k: every one is",
          between(0, 1));
    visit("protected_share", &LowBitConfig::protected_share,
          "of each layer's experts, those with the largest outputs, which no copy serves",
          between(0, 1));
    visit("calibration_tokens", &LowBitConfig::calibration_tokens,
          "the first tokens of each layer, on which outputs are measured; no copy serves them",
          between(1, 1 << 20));
  }
};

struct ExpertCacheConfig {
  int64_t device_bytes = 0;
  EvictionChoice policy = EvictionChoice::kLfu;
  std::string packed_file;
  bool direct_io = true;
  bool verify = false;
  LowBitConfig low_bit;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("device_bytes", &ExpertCacheConfig::device_bytes,
          "memory for the pool of experts; 0: all experts stay in memory", bytes_at_least(0));
    visit("policy", &ExpertCacheConfig::policy,
          "which expert gives way: lfu: the least frequently used, uses fading; lru: the least "
          "recently used; least_stale: of those not used in this step the one whose layer comes "
          "last");
    visit("packed_file", &ExpertCacheConfig::packed_file,
          "file that augur-pack wrote, to read experts from; empty: the checkpoint's own files");
    visit("direct_io", &ExpertCacheConfig::direct_io,
          "read experts past the page cache, where the file system can");
    visit("verify", &ExpertCacheConfig::verify,
          "check the checksum of every block read from a packed file");
    visit("low_bit", &ExpertCacheConfig::low_bit,
          "Int8 copies of experts outside the pool (docs/lossy-modes.md).");
  }
};

struct ExpertRouteConfig {
  bool enabled = false;
  RouteMode mode = RouteMode::kPrefetch;
  bool exact = false;
  int64_t capacity = 65536;
  int64_t dims = 16;
  double similarity_threshold = 0.92;
  double min_agreement = 0.9;
  ProjectionChoice projection = ProjectionChoice::kPca;
  int64_t fit_tokens = 1024;
  std::string projection_file;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("enabled", &ExpertRouteConfig::enabled,
          "remember gate decisions by reduced hidden state (docs/route-cache.md)");
    visit("mode", &ExpertRouteConfig::mode,
          "prefetch: hits foretell later layers, exact; serve: hits skip the gate, lossy");
    visit("exact", &ExpertRouteConfig::exact,
          "remember by the tokens before instead: the same prefix has the same routes, so that "
          "nothing changes in either mode");
    visit("capacity", &ExpertRouteConfig::capacity, "decisions kept, all layers together",
          between(1, int64_t{1} << 26));
    visit("dims", &ExpertRouteConfig::dims, "values a hidden state is reduced to", between(3, 64));
    visit("similarity_threshold", &ExpertRouteConfig::similarity_threshold,
          "cosine from which a kept decision counts as a hit, to begin with; it adapts to the "
          "agreement measured",
          between(0, 1));
    visit("min_agreement", &ExpertRouteConfig::min_agreement,
          "share of experts in common with the gate's below which a layer's threshold rises and, "
          "at its bound, serving ends",
          between(0, 1));
    visit("projection", &ExpertRouteConfig::projection,
          "how states are reduced: the principal components of the first fit_tokens, or random");
    visit("fit_tokens", &ExpertRouteConfig::fit_tokens,
          "tokens of a layer that the components are fitted on", between(64, 65536));
    visit("projection_file", &ExpertRouteConfig::projection_file,
          "file to load the components from, or to write them to once fitted where it is not "
          "there; empty: neither");
  }
};

struct CacheConfig {
  ExpertCacheConfig experts;
  ExpertRouteConfig expert_route;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("experts", &CacheConfig::experts, "The pool of experts (docs/expert-memory.md).");
    visit("expert_route", &CacheConfig::expert_route, "The route cache.");
  }
};

struct PrefetchConfig {
  bool enabled = true;
  int64_t distance = 2;
  bool gate_lookahead = true;
  bool transition = true;
  bool recency = true;
  bool prompt_signature = true;
  bool adapts = true;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("enabled", &PrefetchConfig::enabled,
          "read experts before they are wanted, where they do not all stay in memory");
    visit("distance", &PrefetchConfig::distance, "layers with experts to look ahead",
          between(1, 8));
    visit("gate_lookahead", &PrefetchConfig::gate_lookahead,
          "guess by the later layers' gates on this layer's hidden state");
    visit("transition", &PrefetchConfig::transition,
          "guess by which experts followed those of this layer so far");
    visit("recency", &PrefetchConfig::recency, "guess what the last tokens used");
    visit("prompt_signature", &PrefetchConfig::prompt_signature,
          "guess what the prompt used, when it was last seen and since");
    visit(
        "adapts", &PrefetchConfig::adapts,
        "measure what reading ahead gains and do as much as helps, nothing where it costs; false: "
        "always as much as has room");
  }
};

struct KvCacheConfig {
  KvDtypeChoice dtype = KvDtypeChoice::kAuto;
  int64_t block_size = 0;
  int64_t bytes = 0;
  int64_t max_context = 0;
  bool prefix_cache = true;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("dtype", &KvCacheConfig::dtype,
          "what keys and values are kept in; int8, on a CPU only, takes half the memory and is "
          "lossy: answers change slightly; auto: the backend's own, bf16");
    visit("block_size", &KvCacheConfig::block_size,
          "positions in one block of the KV cache, the unit in which requests share it; 0: 16 on a "
          "CPU, 32 on a CUDA device",
          between(0, 1024, 16));
    visit("bytes", &KvCacheConfig::bytes,
          "memory for the KV cache; 0: enough for max_batch_size sequences of max_context, as "
          "far as free memory goes",
          bytes_at_least(0));
    visit("max_context", &KvCacheConfig::max_context,
          "longest sequence, prompt and output together; 0: the model's own", between(0, 1 << 30));
    visit("prefix_cache", &KvCacheConfig::prefix_cache,
          "keep keys and values for requests that begin alike; answers do not change");
  }
};

struct CompressionConfig {
  bool enabled = false;
  double ratio = 1.75;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("enabled", &CompressionConfig::enabled,
          "keep as many layers' experts, and keys and values, in int8 as the ratio asks for; on a "
          "CPU only, lossy");
    visit("ratio", &CompressionConfig::ratio,
          "bytes of experts and KV cache in bf16, divided by their bytes then, at least",
          between(1, 4));
  }
};

struct MemoryConfig {
  CompressionConfig compression;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("compression", &MemoryConfig::compression,
          "Experts, keys and values in fewer bytes (docs/lossy-modes.md).");
  }
};

struct ScheduleConfig {
  SchedulePolicyChoice policy = SchedulePolicyChoice::kFcfs;
  int64_t affinity_window = 16;
  int64_t affinity_max_overtakes = 8;
  bool fair_queueing = false;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("policy", &ScheduleConfig::policy,
          "who is admitted next; fcfs: first come, first served; lpm: whose prompt begins with "
          "most of what the prefix cache holds; priority: whose priority is lowest, which may "
          "preempt others; expert_affinity: whose experts are most like those of the requests "
          "that run, as far as they are known");
    visit("affinity_window", &ScheduleConfig::affinity_window,
          "of so many that have waited longest lpm and expert_affinity choose one",
          between(1, 1024));
    visit("affinity_max_overtakes", &ScheduleConfig::affinity_max_overtakes,
          "so often may they admit later ones before one that waits", between(0, 65536));
    visit("fair_queueing", &ScheduleConfig::fair_queueing,
          "API keys, or users where there are none, take turns by the tokens they were served");
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
  CacheConfig cache;
  PrefetchConfig prefetch;
  KvCacheConfig kv_cache;
  MemoryConfig memory;
  ScheduleConfig schedule;
  ServerConfig server;
  MetricsConfig metrics;
  WarmupConfig warmup;
  LoggingConfig logging;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("model", &EngineConfig::model, "Which model.");
    visit("execution", &EngineConfig::execution, "How it runs.");
    visit("cache", &EngineConfig::cache, "What is kept of experts and of gate decisions.");
    visit("prefetch", &EngineConfig::prefetch, "Reading experts before they are wanted.");
    visit("kv_cache", &EngineConfig::kv_cache, "The keys and values kept of each sequence.");
    visit("memory", &EngineConfig::memory, "What memory holds.");
    visit("schedule", &EngineConfig::schedule, "The order in which requests are served.");
    visit("server", &EngineConfig::server, "Of augur-server: where it listens and whom it serves.");
    visit("metrics", &EngineConfig::metrics, "What augur-server tells of itself.");
    visit("warmup", &EngineConfig::warmup, "What augur-server runs before it is ready.");
    visit("logging", &EngineConfig::logging, "What is told on stderr.");
  }
};

}  // namespace augur
