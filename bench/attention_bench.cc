// Attention, and the norms and rotation around it, on shapes of a small and a large model.
//
// `core_time_per_token` is what one core needs for one token of one layer. `of_bound` is the share
// of this machine's own bound, measured at start: for prefill the bf16 products of the cores, for
// decode the memory bandwidth, which keys and values that fit into the caches can exceed.
// `cache_bytes` is what a decode step reads; int8:1 keeps keys and values in int8.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <vector>

#include "bench/cpu_peak.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/norm_rope.h"

namespace augur::cpu {
namespace {

constexpr int kBlockSize = 32;

struct Shape {
  int num_heads, num_kv_heads, head_dim;
};
constexpr Shape kShapes[] = {{8, 2, 32}, {32, 4, 128}};  // the demo model; Qwen3-30B-A3B

/// `num_seqs` sequences of `context` positions, each asking for its last `num_rows` rows.
struct Problem {
  Problem(const Shape& shape, int num_seqs, int context, int num_rows, KvFormat format)
      : shape(shape), format(format) {
    const int blocks_each = (context + kBlockSize - 1) / kBlockSize;
    const int64_t num_blocks = int64_t{num_seqs} * blocks_each;
    cache_bytes =
        num_blocks * kv_block_bytes_cpu(kBlockSize, shape.num_kv_heads, shape.head_dim, format);
    cache = allocate_host(cache_bytes);
    cols = int64_t{shape.num_heads} * shape.head_dim;
    num_tokens = int64_t{num_seqs} * num_rows;
    std::mt19937 random(1);
    fill_cache(random);
    q.resize(num_tokens * cols);
    for (uint16_t& value : q) value = to_bf16(static_cast<int>(random() % 257) / 128.0f - 1).bits;
    out.resize(q.size());
    block_table.resize(num_blocks);
    for (int64_t i = 0; i < num_blocks; ++i) block_table[i] = static_cast<int32_t>(i);
    std::shuffle(block_table.begin(), block_table.end(), random);
    for (int seq = 0; seq <= num_seqs; ++seq) query_start.push_back(seq * num_rows);
    context_len.assign(num_seqs, context);
    stride = blocks_each;
    positions_seen = static_cast<double>(num_seqs) * num_rows * (context - (num_rows - 1) / 2.0);
  }

  // Numbers within 1.
  void fill_cache(std::mt19937& random) {
    auto* values = reinterpret_cast<uint16_t*>(cache.data());
    for (int64_t i = 0; i < cache_bytes / 2; ++i) {
      values[i] = format == KvFormat::kInt8
                      ? static_cast<uint16_t>(random())
                      : to_bf16(static_cast<int>(random() % 257) / 128.0f - 1).bits;
    }
    if (format != KvFormat::kInt8) return;
    const KvLayout layout = kv_layout(kBlockSize, shape.num_kv_heads, shape.head_dim, format);
    for (int64_t head = 0; head < cache_bytes; head += layout.head_bytes) {
      for (int64_t i = 1; i <= kBlockSize / kKvGroup; ++i) {
        set_scales(head + i * layout.key_group_bytes);
        set_scales(head + layout.values_offset + i * layout.value_group_bytes);
      }
    }
  }
  // Those of the group that ends here.
  void set_scales(int64_t end) {
    auto* scales = reinterpret_cast<float*>(cache.data() + end - kKvScaleBytes);
    std::fill(scales, scales + kKvGroup, 1 / 127.0f);
  }

  AttentionArgs args() {
    AttentionArgs args;
    args.q = dense(q.data(), DType::kBF16, num_tokens, cols);
    args.out = dense(out.data(), DType::kBF16, num_tokens, cols);
    args.num_heads = shape.num_heads;
    args.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    args.cache = {cache.data(),   static_cast<int64_t>(block_table.size()),
                  kBlockSize,     shape.num_kv_heads,
                  shape.head_dim, format};
    args.batch = {static_cast<int>(context_len.size()),
                  num_tokens,
                  query_start.data(),
                  context_len.data(),
                  block_table.data(),
                  stride};
    return args;
  }
  double num_operations() const { return 4.0 * positions_seen * static_cast<double>(cols); }

  Shape shape;
  KvFormat format;
  int64_t cache_bytes, cols, num_tokens, stride;
  double positions_seen;
  Buffer cache;
  std::vector<uint16_t> q, out;
  std::vector<int32_t> block_table, query_start, context_len;
};

void BM_Attention(benchmark::State& state) {
  const Shape& shape = kShapes[state.range(0)];
  const int num_threads = static_cast<int>(state.range(4));
  Problem problem(shape, static_cast<int>(state.range(1)), static_cast<int>(state.range(2)),
                  static_cast<int>(state.range(3)),
                  state.range(5) == 1 ? KvFormat::kInt8 : KvFormat::kNative);
  WorkerPool pool(num_threads);
  StepLimits limits;
  limits.max_tokens = problem.num_tokens;
  limits.max_context = state.range(2);
  limits.num_heads = shape.num_heads;
  limits.head_dim = shape.head_dim;
  std::vector<std::byte> scratch(attention_scratch_bytes(limits, best_isa(), num_threads) + 64);
  std::byte* aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
  const AttentionArgs args = problem.args();
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) attention(args, best_isa(), pool, aligned);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;

  const double rounds = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["core_time_per_token"] =
      Counter(rounds * static_cast<double>(problem.num_tokens) / num_threads,
              Counter::kIsRate | Counter::kInvert);
  if (state.range(3) == 1) {
    static const double bytes_a_second = read_bandwidth(pool);
    state.counters["of_bound"] =
        rounds * static_cast<double>(problem.cache_bytes) / bytes_a_second / elapsed.count();
    state.counters["cache_bytes"] = static_cast<double>(problem.cache_bytes);
  } else if (has_isa(Isa::kAvx2)) {
    static const double operations_a_second = [] {
      WorkerPool one(1);
      return peak_flops(best_isa(), one);
    }();
    state.counters["of_bound"] =
        rounds * problem.num_operations() / operations_a_second / num_threads / elapsed.count();
  }
}
BENCHMARK(BM_Attention)
    ->ArgNames({"shape", "seqs", "context", "rows", "threads", "int8"})
    ->Args({0, 2, 700, 700, 1, 0})  // scoring: 350 positions seen on average
    ->Args({0, 2, 700, 700, 1, 1})
    ->Args({0, 2, 700, 700, 2, 0})
    ->Args({0, 16, 100, 100, 1, 0})
    ->Args({1, 1, 1024, 1024, 1, 0})
    ->Args({1, 1, 1024, 1024, 1, 1})
    ->Args({1, 1, 4096, 256, 2, 0})
    ->Args({0, 64, 1000, 1, 1, 0})  // decode
    ->Args({0, 64, 1000, 1, 2, 0})
    ->Args({0, 64, 1000, 1, 2, 1})
    ->Args({1, 1, 8192, 1, 2, 0})
    ->Args({1, 1, 8192, 1, 2, 1})
    ->Args({1, 1, 32768, 1, 1, 0})
    ->Args({1, 1, 32768, 1, 1, 1})
    ->Args({1, 1, 32768, 1, 2, 0})
    ->Args({1, 1, 32768, 1, 2, 1})
    ->Args({1, 16, 4096, 1, 2, 0})
    ->Args({1, 16, 4096, 1, 2, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

void BM_AddRmsNorm(benchmark::State& state) {
  const int64_t num_rows = state.range(0);
  const int64_t num_cols = state.range(1);
  std::vector<float> hidden(num_rows * num_cols, 0.0f), delta(hidden.size(), 1e-3f),
      out_f32(hidden.size());
  std::vector<float> weight(num_cols, 1.0f);
  std::vector<uint16_t> out(hidden.size());
  AddRmsNormArgs args;
  args.hidden = dense(hidden.data(), DType::kF32, num_rows, num_cols);
  args.delta = dense(delta.data(), DType::kF32, num_rows, num_cols);
  args.weight = weight.data();
  args.eps = 1e-6f;
  args.out = dense(out.data(), DType::kBF16, num_rows, num_cols);
  args.out_f32 = dense(out_f32.data(), DType::kF32, num_rows, num_cols);
  WorkerPool pool(1);
  for (auto _ : state) add_rms_norm(args, best_isa(), pool);
  state.SetItemsProcessed(state.iterations() * num_rows);
  state.SetBytesProcessed(state.iterations() * num_rows * num_cols * 18);
}
BENCHMARK(BM_AddRmsNorm)->ArgNames({"rows", "cols"})->Args({256, 256})->Args({256, 2048});

void BM_RopeAndCache(benchmark::State& state) {
  const Shape& shape = kShapes[state.range(0)];
  const KvFormat format = state.range(1) == 1 ? KvFormat::kInt8 : KvFormat::kNative;
  constexpr int kTokens = 256;
  const int64_t q_cols = int64_t{shape.num_heads} * shape.head_dim;
  const int64_t qkv_cols = q_cols + int64_t{2} * shape.num_kv_heads * shape.head_dim;
  std::vector<float> qkv(kTokens * qkv_cols, 0.5f), norm(shape.head_dim, 1.0f);
  std::vector<float> turn(int64_t{kTokens} * shape.head_dim / 2, 0.7f);
  std::vector<uint16_t> q(kTokens * q_cols);
  std::vector<std::byte> cache(
      kTokens / kBlockSize *
      kv_block_bytes_cpu(kBlockSize, shape.num_kv_heads, shape.head_dim, format));
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
  for (int token = 0; token < kTokens; ++token) {
    positions.push_back(token);
    slots.push_back(token);
  }
  RopeAndCacheArgs args;
  args.qkv = dense(qkv.data(), DType::kF32, kTokens, qkv_cols);
  args.num_heads = shape.num_heads;
  args.q_norm = args.k_norm = norm.data();
  args.norm_eps = 1e-6f;
  args.rope = {turn.data(), turn.data(), shape.head_dim, false};
  args.positions = positions.data();
  args.kv_slots = slots.data();
  args.cache = {cache.data(),       kTokens / kBlockSize, kBlockSize,
                shape.num_kv_heads, shape.head_dim,       format};
  args.q_out = dense(q.data(), DType::kBF16, kTokens, q_cols);
  WorkerPool pool(1);
  for (auto _ : state) rope_and_cache(args, best_isa(), pool);
  state.SetItemsProcessed(state.iterations() * kTokens);
}
BENCHMARK(BM_RopeAndCache)
    ->ArgNames({"shape", "int8"})
    ->Args({0, 0})
    ->Args({0, 1})
    ->Args({1, 0})
    ->Args({1, 1});

}  // namespace
}  // namespace augur::cpu
