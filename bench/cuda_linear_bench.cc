// linear on CUDA: the skinny kernel, cuBLASLt and what Linear chooses, at the shapes of
// Qwen3-30B-A3B and GLM-4.5-Air. Weights rotate over more copies than L2 holds.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/gpu_timer.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_args.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/skinny_linear.h"
#include "kernels/cuda/sm90_skinny_linear.h"

namespace augur::bench {
namespace {

constexpr int64_t kRotatedBytes = int64_t{256} << 20;  // five times the L2 of an H100

struct Shape {
  const char* name;
  int64_t num_outputs;
  int64_t num_cols;
  bool is_f32;
};
constexpr Shape kShapes[] = {{"qwen3_qkv", 5120, 2048, false},
                             {"qwen3_o", 2048, 4096, false},
                             {"qwen3_lm_head", 151'936, 2048, true},
                             {"glm_qkv", 14'336, 4096, false},
                             {"glm_o", 4096, 12'288, false}};

class LinearFixture {
 public:
  LinearFixture(const Shape& shape, int64_t num_rows) {
    const int64_t weight_bytes = 2 * shape.num_outputs * shape.num_cols;
    const int64_t num_copies = std::clamp<int64_t>(kRotatedBytes / weight_bytes, 1, 20);
    const cuda::Stream stream = cuda::make_stream();
    for (int64_t i = 0; i < num_copies; ++i) {
      weights_.push_back(cuda::allocate_device(weight_bytes));
      cuda::fill_random(weights_.back().data(), weight_bytes, 0.05f, i, stream.get());
    }
    x_ = cuda::allocate_device(2 * num_rows * shape.num_cols);
    cuda::fill_random(x_.data(), x_.num_bytes(), 1.0f, 77, stream.get());
    const DType out_dtype = shape.is_f32 ? DType::kF32 : DType::kBF16;
    out_ = cuda::allocate_device(num_rows * shape.num_outputs * dtype_bytes(out_dtype));
    AUGUR_CUDA(cudaStreamSynchronize(stream.get()));
    args_ = {.x = dense(x_.data(), DType::kBF16, num_rows, shape.num_cols),
             .weight = {nullptr, shape.num_outputs, shape.num_cols},
             .out = dense(out_.data(), out_dtype, num_rows, shape.num_outputs)};
  }

  LinearArgs args(int repetition) const {
    LinearArgs args = args_;
    args.weight.data = weights_[static_cast<size_t>(repetition) % weights_.size()].data();
    return args;
  }

 private:
  std::vector<Buffer> weights_;
  Buffer x_;
  Buffer out_;
  LinearArgs args_;
};

template <typename Run>
void run_linear(benchmark::State& state, const Shape& shape, int64_t num_rows, const Run& run) {
  const LinearFixture fixture(shape, num_rows);
  const LinearArgs args = fixture.args(0);
  run_gpu_benchmark(
      state, static_cast<double>(cuda::bytes_moved(args)), cuda::num_flops(args),
      [&](cudaStream_t stream, int repetition) { run(fixture.args(repetition), stream); },
      /*clears_l2=*/false);
}

void BM_Sm90Skinny(benchmark::State& state, const Shape& shape, int64_t num_rows) {
  if (!cuda::device_traits().is_hopper()) return state.SkipWithError("needs a Hopper GPU");
  const cuda::SkinnyConfig config =
      cuda::choose_skinny_config(num_rows, shape.num_outputs, cuda::device_traits().num_sms);
  state.SetLabel(config.description());
  run_linear(state, shape, num_rows, [&](const LinearArgs& args, cudaStream_t stream) {
    cuda::sm90_skinny_linear(args, config, stream);
  });
}

void BM_Skinny(benchmark::State& state, const Shape& shape, int64_t num_rows) {
  run_linear(state, shape, num_rows, cuda::skinny_linear);
}

void BM_Linear(benchmark::State& state, const Shape& shape, int64_t num_rows) {
  cuda::Linear linear;
  run_linear(state, shape, num_rows,
             [&](const LinearArgs& args, cudaStream_t stream) { linear.run(args, stream); });
}

void BM_Cublas(benchmark::State& state, const Shape& shape, int64_t num_rows) {
  cuda::DenseGemm gemm;
  run_linear(state, shape, num_rows, [&](const LinearArgs& args, cudaStream_t stream) {
    if (!gemm.run(args, stream)) state.SkipWithError("cuBLASLt has no algorithm");
  });
}

void register_all() {
  for (const Shape& shape : kShapes) {
    const auto add = [&](const char* way, auto* bench, int64_t num_rows) {
      const std::string name =
          std::string(way) + "/" + shape.name + "/rows:" + std::to_string(num_rows);
      benchmark::RegisterBenchmark(name.c_str(), bench, shape, num_rows)
          ->UseManualTime()
          ->Iterations(1);
    };
    for (const int64_t num_rows : {1, 2, 4, 8, 16, 32, 64}) {
      if (num_rows <= cuda::kMaxSkinnyRows) add("skinny", BM_Skinny, num_rows);
      add("sm90_skinny", BM_Sm90Skinny, num_rows);
      add("cublas", BM_Cublas, num_rows);
      add("linear", BM_Linear, num_rows);
    }
    if (shape.num_outputs > 100'000) continue;  // few rows need logits
    for (const int64_t num_rows : {128, 512, 2048, 8192}) add("cublas", BM_Cublas, num_rows);
  }
}

const bool kRegistered = (register_all(), true);

}  // namespace
}  // namespace augur::bench
