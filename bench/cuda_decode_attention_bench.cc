// Attention of decode steps against the time its keys and values take to read.
//
// published_us is the fastest of three serving engines (SGLang 0.5.14, vLLM 0.24.0, TensorRT-LLM
// 1.3.0rc20) for the same heads, batch and context on an H100 SXM, as NVIDIA's aiconfigurator
// tables have it; 0: not there.
#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu_timer.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/pack.h"

namespace augur::bench {
namespace {

using cuda::DecodeAttentionPath;

constexpr int kBlockSize = 64;

struct Heads {
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int window;
};

struct Point {
  Heads heads;
  int num_seqs;
  int context;
  double published_us;
};

template <typename T>
Buffer upload(const std::vector<T>& values, cudaStream_t stream) {
  Buffer buffer = cuda::allocate_device(static_cast<int64_t>(values.size() * sizeof(T)));
  AUGUR_CUDA(cudaMemcpyAsync(buffer.data(), values.data(), values.size() * sizeof(T),
                             cudaMemcpyHostToDevice, stream));
  AUGUR_CUDA(cudaStreamSynchronize(stream));
  return buffer;
}

// Calls in a row read different copies of the cache, 1 GiB in all, so that none is left in L2.
void decode_attention_at(benchmark::State& state,
                         const Heads& heads,
                         const std::vector<int32_t>& contexts,
                         DecodeAttentionPath path,
                         double published_us) {
  const cuda::Stream setup = cuda::make_stream();
  const auto num_seqs = static_cast<int>(contexts.size());
  const int64_t max_context = *std::max_element(contexts.begin(), contexts.end());
  const int64_t stride = max_context / kBlockSize + 1;
  int64_t num_blocks = 0;
  std::vector<int32_t> table(num_seqs * stride);
  for (int seq = 0; seq < num_seqs; ++seq) {
    for (int i = 0; i * kBlockSize < contexts[seq]; ++i) {
      table[seq * stride + i] = static_cast<int32_t>(num_blocks++);
    }
  }
  std::vector<int32_t> order(num_blocks);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  for (int32_t& block : table) block = order[block];

  const int64_t cache_bytes =
      num_blocks * cuda::kv_block_bytes(kBlockSize, heads.num_kv_heads, heads.head_dim);
  const int64_t num_copies = std::clamp<int64_t>((int64_t{1} << 30) / cache_bytes, 2, 20);
  const Buffer caches = cuda::allocate_device(cache_bytes * num_copies);
  cuda::fill_random(caches.data(), caches.num_bytes(), 1, 1, setup.get());
  const int64_t cols = int64_t{heads.num_heads} * heads.head_dim;
  const Buffer q = cuda::allocate_device(num_seqs * cols * 2);
  const Buffer out = cuda::allocate_device(num_seqs * cols * 2);
  cuda::fill_random(q.data(), q.num_bytes(), 1, 2, setup.get());
  const Buffer context_len = upload(contexts, setup.get());
  const Buffer block_table = upload(table, setup.get());
  const Buffer workspace = cuda::allocate_device(cuda::decode_attention_workspace_bytes(
      num_seqs, heads.num_heads, heads.num_kv_heads, heads.head_dim, max_context));
  AUGUR_CUDA(cudaMemsetAsync(workspace.data(), 0, cuda::kDecodeAttentionCounterBytes, setup.get()));
  AUGUR_CUDA(cudaStreamSynchronize(setup.get()));

  cuda::DecodeAttentionArgs args;
  args.attention.q = dense(q.data(), DType::kBF16, num_seqs, cols);
  args.attention.out = dense(out.data(), DType::kBF16, num_seqs, cols);
  args.attention.num_heads = heads.num_heads;
  args.attention.scale = 0.1f;
  args.attention.cache = {caches.data(), num_blocks, kBlockSize, heads.num_kv_heads,
                          heads.head_dim};
  args.attention.batch = {
      num_seqs, num_seqs, nullptr, context_len.as<int32_t>(), block_table.as<int32_t>(), stride};
  args.max_context = max_context;
  args.window = heads.window;
  args.workspace = workspace.data();
  args.workspace_bytes = workspace.num_bytes();
  args.path = path;

  int64_t num_positions = 0;
  for (const int32_t context : contexts) {
    num_positions += heads.window > 0 ? std::min(context, heads.window) : context;
  }
  run_gpu_benchmark(
      state, static_cast<double>(bytes_moved(args, num_positions)), 0,
      [&](cudaStream_t stream, int repetition) {
        args.attention.cache.data = caches.data() + repetition % num_copies * cache_bytes;
        decode_attention(args, stream);
      },
      /*clears_l2=*/false);
  state.counters["published_us"] = published_us;
}

constexpr Heads kQwen = {32, 4, 128, 0};
constexpr Heads kMixtral = {32, 8, 128, 0};
constexpr Heads kGlm = {96, 8, 128, 0};
constexpr Heads kGptOss = {64, 8, 64, 0};
constexpr Heads kGptOssWindow = {64, 8, 64, 128};
constexpr Heads kOlmoe = {16, 16, 128, 0};

constexpr Point kPoints[] = {
    {kQwen, 1, 1024, 12},
    {kQwen, 1, 4096, 13},
    {kQwen, 1, 8192, 15},
    {kQwen, 1, 32768, 36},
    {kQwen, 1, 131072, 0},
    {kQwen, 32, 1024, 33},
    {kQwen, 32, 4096, 98},
    {kQwen, 32, 8192, 184},
    {kQwen, 128, 1024, 104},
    {kQwen, 128, 4096, 356},
    {kMixtral, 1, 1024, 12},
    {kMixtral, 1, 4096, 14},
    {kMixtral, 1, 8192, 17},
    {kMixtral, 1, 32768, 57},
    {kMixtral, 32, 1024, 56},
    {kMixtral, 32, 4096, 184},
    {kMixtral, 32, 8192, 354},
    {kMixtral, 128, 1024, 190},
    {kMixtral, 128, 4096, 690},
    {kGlm, 1, 1024, 12},
    {kGlm, 1, 4096, 14},
    {kGlm, 1, 8192, 18},
    {kGlm, 32, 1024, 57},
    {kGlm, 32, 4096, 184},
    {kGlm, 128, 1024, 194},
    {kGptOss, 1, 1024, 11},
    {kGptOss, 1, 4096, 13},
    {kGptOss, 1, 8192, 15},
    {kGptOss, 1, 32768, 36},
    {kGptOss, 32, 1024, 36},
    {kGptOss, 32, 4096, 101},
    {kGptOss, 32, 8192, 184},
    {kGptOss, 128, 1024, 102},
    {kGptOss, 128, 4096, 364},
    {kGptOssWindow, 1, 4096, 10},
    {kGptOssWindow, 32, 4096, 14},
    {kGptOssWindow, 128, 4096, 36},
    {kOlmoe, 1, 1024, 12},
    {kOlmoe, 1, 4096, 17},
    {kOlmoe, 1, 8192, 34},
    {kOlmoe, 1, 32768, 99},
    {kOlmoe, 32, 1024, 102},
    {kOlmoe, 32, 4096, 355},
    {kOlmoe, 32, 8192, 694},
    {kOlmoe, 128, 1024, 367},
};

const char* path_name(DecodeAttentionPath path) {
  switch (path) {
    case DecodeAttentionPath::kPortable:
      return "portable";
    case DecodeAttentionPath::kBulk:
      return "bulk";
    default:
      return "auto";
  }
}

std::string heads_name(const Heads& heads) {
  return std::to_string(heads.num_heads) + "/" + std::to_string(heads.num_kv_heads) + " dim " +
         std::to_string(heads.head_dim) +
         (heads.window > 0 ? " window " + std::to_string(heads.window) : "");
}

void add(const std::string& name,
         const Heads& heads,
         const std::vector<int32_t>& contexts,
         double published_us) {
  for (const DecodeAttentionPath path :
       {DecodeAttentionPath::kPortable, DecodeAttentionPath::kBulk}) {
    benchmark::RegisterBenchmark(
        (std::string(path_name(path)) + ", " + heads_name(heads) + ", " + name).c_str(),
        [=](benchmark::State& state) {
          decode_attention_at(state, heads, contexts, path, published_us);
        })
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMicrosecond);
  }
}

const bool kIsRegistered = [] {
  for (const Point& point : kPoints) {
    add("batch " + std::to_string(point.num_seqs) + ", context " + std::to_string(point.context),
        point.heads, std::vector<int32_t>(point.num_seqs, point.context), point.published_us);
  }
  // Contexts of a real batch differ.
  std::vector<int32_t> mixed;
  std::mt19937 random(3);
  for (int i = 0; i < 32; ++i) mixed.push_back(static_cast<int32_t>(200 + random() % 8000));
  add("batch 32, contexts 200 to 8,200", kQwen, mixed, 0);
  std::vector<int32_t> one_long(31, 1000);
  one_long.push_back(65536);
  add("batch 32, 31 of 1,000 and one of 65,536", kQwen, one_long, 0);
  return true;
}();

}  // namespace
}  // namespace augur::bench
