// Prefill attention on a GPU: one sequence from its start, a chunk of a long one, many short ones.
// Every pair of a row and a position it sees counts, nothing that the mask hides.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu_timer.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/prefill_attention.h"

namespace augur::bench {
namespace {

constexpr int kBlockSize = 64;

struct Problem {
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int num_seqs;
  int num_rows;  // of each sequence
  int context_len;
  int window = 0;
};

class DeviceProblem {
 public:
  DeviceProblem(const Problem& problem, cudaStream_t stream) {
    const int64_t num_tokens = int64_t{problem.num_seqs} * problem.num_rows;
    const int64_t width = int64_t{problem.num_heads} * problem.head_dim;
    const int blocks_per_seq = cuda::ceil_div(problem.context_len, kBlockSize);
    const int num_blocks = blocks_per_seq * problem.num_seqs;
    std::vector<int32_t> query_start;
    for (int s = 0; s <= problem.num_seqs; ++s) query_start.push_back(s * problem.num_rows);
    const std::vector<int32_t> context_len(problem.num_seqs, problem.context_len);
    // Blocks as they lie after some time of use: anywhere.
    std::vector<int32_t> block_table(num_blocks);
    for (int i = 0; i < num_blocks; ++i) block_table[i] = i;
    std::shuffle(block_table.begin(), block_table.end(), std::mt19937(1));
    const int64_t block_bytes =
        cuda::kv_block_bytes(kBlockSize, problem.num_kv_heads, problem.head_dim);
    args_.attention = {
        .q = dense(random(num_tokens * width, 2.0f, stream), DType::kBF16, num_tokens, width),
        .num_heads = problem.num_heads,
        .scale = 1 / std::sqrt(static_cast<float>(problem.head_dim)),
        .cache = {.data = random(num_blocks * block_bytes / 2, 1.0f, stream),
                  .num_blocks = num_blocks,
                  .block_size = kBlockSize,
                  .num_kv_heads = problem.num_kv_heads,
                  .head_dim = problem.head_dim},
        .batch = {.num_seqs = problem.num_seqs,
                  .num_tokens = num_tokens,
                  .query_start = upload(query_start),
                  .context_len = upload(context_len),
                  .block_table = upload(block_table),
                  .block_table_stride = blocks_per_seq},
        .out = dense(random(num_tokens * width, 0.0f, stream), DType::kBF16, num_tokens, width)};
    args_.window = problem.window;
    AUGUR_CUDA(cudaStreamSynchronize(stream));
  }

  const cuda::PrefillAttentionArgs& args() const { return args_; }

 private:
  std::byte* random(int64_t num_values, float amplitude, cudaStream_t stream) {
    buffers_.push_back(cuda::allocate_device(num_values * 2));
    auto* const data = buffers_.back().as<std::byte>();
    cuda::fill_random(data, num_values * 2, amplitude, buffers_.size(), stream);
    return data;
  }
  int32_t* upload(const std::vector<int32_t>& values) {
    buffers_.push_back(cuda::allocate_device(static_cast<int64_t>(values.size()) * 4));
    AUGUR_CUDA(cudaMemcpy(buffers_.back().data(), values.data(), values.size() * 4,
                          cudaMemcpyHostToDevice));
    return buffers_.back().as<int32_t>();
  }

  std::vector<Buffer> buffers_;
  cuda::PrefillAttentionArgs args_;
};

using Kernel = void (*)(const cuda::PrefillAttentionArgs&, cudaStream_t);

void BM_PrefillAttention(benchmark::State& state, Kernel kernel, const Problem& problem) {
  const cuda::Stream setup = cuda::make_stream();
  const DeviceProblem device(problem, setup.get());
  const int64_t num_tokens = int64_t{problem.num_seqs} * problem.num_rows;
  const double kv_bytes =
      2.0 * problem.num_seqs * problem.context_len * problem.num_kv_heads * problem.head_dim * 2;
  const double row_bytes = 2.0 * num_tokens * problem.num_heads * problem.head_dim * 2;
  const double num_flops =
      problem.num_seqs * cuda::prefill_attention_flops(problem.num_heads, problem.head_dim,
                                                       problem.num_rows, problem.context_len,
                                                       problem.window);
  run_gpu_benchmark(state, kv_bytes + row_bytes, num_flops,
                    [&](cudaStream_t stream, int) { kernel(device.args(), stream); });
}

void register_point(const std::string& name, const Problem& problem) {
  const auto add = [&](const std::string& kernel_name, Kernel kernel) {
    benchmark::RegisterBenchmark(
        (kernel_name + "/" + name).c_str(),
        [=](benchmark::State& state) { BM_PrefillAttention(state, kernel, problem); })
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMicrosecond);
  };
  if (has_gpu() && cuda::device_traits().is_hopper()) {
    add("sm90", cuda::sm90_prefill_attention);
  }
  add("mma", cuda::mma_prefill_attention);
}

[[maybe_unused]] const bool is_registered = [] {
  struct Heads {
    int num_heads;
    int num_kv_heads;
    int head_dim;
  };
  for (const auto [num_heads, num_kv_heads, head_dim] :
       {Heads{32, 4, 128}, Heads{32, 8, 128}, Heads{96, 8, 128}, Heads{64, 8, 64}}) {
    const std::string heads = std::to_string(num_heads) + "h" + std::to_string(num_kv_heads) +
                              "kv" + std::to_string(head_dim) + "d";
    for (const int num_rows : {1024, 4096, 8192, 16384}) {
      register_point(heads + "/rows:" + std::to_string(num_rows),
                     {num_heads, num_kv_heads, head_dim, 1, num_rows, num_rows});
    }
    register_point(heads + "/rows:512/context:8192",
                   {num_heads, num_kv_heads, head_dim, 1, 512, 8192});
    register_point(heads + "/seqs:32/rows:256", {num_heads, num_kv_heads, head_dim, 32, 256, 256});
  }
  // Few tiles, where it counts most how large they are.
  register_point("64h8kv64d/rows:256/context:8192", {64, 8, 64, 1, 256, 8192});
  register_point("64h8kv64d/seqs:4/rows:128", {64, 8, 64, 4, 128, 128});
  register_point("64h8kv64d/rows:8192/window:128", {64, 8, 64, 1, 8192, 8192, 128});
  register_point("16h2kv256d/rows:8192", {16, 2, 256, 1, 8192, 8192});
  return true;
}();

}  // namespace
}  // namespace augur::bench
