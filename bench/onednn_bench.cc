// A peer of gemm_bench: the same products of bf16 activations and weights by oneDNN, with weights
// reordered once into the format it prefers. OMP_NUM_THREADS sets its threads.
#include <benchmark/benchmark.h>
#include <dnnl.hpp>

#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/cpu/memory.h"

namespace augur::cpu {
namespace {

constexpr int64_t kColdBytes = int64_t{256} << 20;

void onednn_bench(benchmark::State& state, int64_t num_tokens, int64_t num_rows, int64_t num_cols) {
  using dnnl::memory;
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto any = memory::format_tag::any;
  const memory::desc x_desc({num_tokens, num_cols}, memory::data_type::bf16,
                            memory::format_tag::ab);
  const memory::desc weight_any({num_cols, num_rows}, memory::data_type::bf16, any);
  const memory::desc out_desc({num_tokens, num_rows}, memory::data_type::f32,
                              memory::format_tag::ab);
  const dnnl::matmul::primitive_desc desc({x_desc, weight_any, out_desc}, engine);
  const dnnl::matmul product(desc);
  const auto weight_bytes = static_cast<int64_t>(desc.weights_desc().get_size());
  // Copies that together exceed the caches, as in gemm_bench. What the numbers are does not
  // matter, so the weights are filled in the preferred format directly.
  const int64_t num_copies = std::max<int64_t>(1, kColdBytes / weight_bytes);
  Buffer weights = allocate_host(weight_bytes * num_copies);
  Buffer x = allocate_host(num_tokens * num_cols * 2);
  for (Buffer* buffer : {&weights, &x}) {
    auto* const values = buffer->as<uint16_t>();
    for (int64_t i = 0; i < buffer->num_bytes() / 2; ++i) {
      values[i] = static_cast<uint16_t>(0x3c00 | (i * 40503 & 0x807f));
    }
  }
  Buffer out = allocate_host(num_tokens * num_rows * 4);
  std::vector<std::unordered_map<int, memory>> args;
  for (int64_t copy = 0; copy < num_copies; ++copy) {
    args.push_back({{DNNL_ARG_SRC, memory(x_desc, engine, x.data())},
                    {DNNL_ARG_WEIGHTS,
                     memory(desc.weights_desc(), engine, weights.data() + copy * weight_bytes)},
                    {DNNL_ARG_DST, memory(out_desc, engine, out.data())}});
  }
  product.execute(stream, args[0]);
  stream.wait();
  size_t copy_idx = 0;
  for (auto _ : state) {
    product.execute(stream, args[copy_idx]);
    stream.wait();
    copy_idx = (copy_idx + 1) % args.size();
  }
  const double flops = 2.0 * static_cast<double>(num_tokens * num_rows * num_cols);
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace
}  // namespace augur::cpu

int main(int argc, char** argv) {
  const int64_t shapes[][2] = {{2048, 2048}, {512, 256}, {8192, 256}, {256, 64}};
  for (const auto& [num_rows, num_cols] : shapes) {
    for (int64_t num_tokens : {1, 4, 16, 64, 256, 2048}) {
      const std::string name = "onednn/" + std::to_string(num_rows) + "x" +
                               std::to_string(num_cols) + "/tokens:" + std::to_string(num_tokens);
      benchmark::RegisterBenchmark(name.c_str(), augur::cpu::onednn_bench, num_tokens, num_rows,
                                   num_cols)
          ->UseRealTime()
          ->MinTime(0.1);
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
