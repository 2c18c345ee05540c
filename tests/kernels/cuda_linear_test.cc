#include "kernels/cuda/linear.h"

#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "kernels/cuda/linear_plain.h"
#include "kernels/cuda/skinny_linear.h"
#include "kernels/cuda/sm90_skinny_linear.h"
#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

enum class Way { kPlain, kCublas, kSkinny, kSm90Skinny, kChosen };

struct Shape {
  int64_t num_cols;
  int64_t num_outputs;
  int64_t x_padding = 0;    // elements between rows
  int64_t out_padding = 0;  // elements between rows
};

std::vector<Bf16> random_bf16(int64_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<Bf16> values(count);
  for (Bf16& value : values) value = to_bf16(uniform(engine));
  return values;
}

std::vector<float> random_f32(int64_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(engine);
  return values;
}

/// A product on the device, and what went into it on the host.
class LinearTest : public CudaTest {
 protected:
  /// Room around the rows of x holds NaN, so that reading it would show.
  LinearArgs make(const Shape& shape, int64_t num_rows, DType out_dtype, bool has_bias) {
    shape_ = shape;
    x_ = random_bf16(num_rows * shape.num_cols, 1);
    weight_ = random_bf16(shape.num_outputs * shape.num_cols, 2);
    bias_ = has_bias ? random_f32(shape.num_outputs, 3) : std::vector<float>();
    const int64_t x_stride = shape.num_cols + shape.x_padding;
    std::vector<Bf16> padded(num_rows * x_stride, to_bf16(std::nanf("")));
    for (int64_t row = 0; row < num_rows; ++row) {
      std::copy_n(&x_[row * shape.num_cols], shape.num_cols, &padded[row * x_stride]);
    }
    const int64_t out_stride = shape.num_outputs + shape.out_padding;
    std::byte* const out = device_array<std::byte>(num_rows * out_stride * dtype_bytes(out_dtype));
    return {.x = {upload(padded), DType::kBF16, num_rows, shape.num_cols, x_stride},
            .weight = {reinterpret_cast<std::byte*>(upload(weight_)), shape.num_outputs,
                       shape.num_cols},
            .bias = has_bias ? upload(bias_) : nullptr,
            .out = {out, out_dtype, num_rows, shape.num_outputs, out_stride}};
  }

  /// False where the way does not take these.
  bool run(Way way, const LinearArgs& args) {
    switch (way) {
      case Way::kPlain:
        linear_plain(args, stream());
        return true;
      case Way::kCublas:
        return gemm().run(args, stream());
      case Way::kSkinny:
        if (!fits_skinny_linear(args)) return false;
        skinny_linear(args, stream());
        return true;
      case Way::kSm90Skinny:
        if (!device_traits().is_hopper() || !fits_sm90_skinny_linear(args)) return false;
        sm90_skinny_linear(
            args, choose_skinny_config(args.x.num_rows, args.out.num_cols, device_traits().num_sms),
            stream());
        return true;
      case Way::kChosen:
        chosen().run(args, stream());
        return true;
    }
    return false;
  }

  /// All of out with what lies between its rows, as its bits.
  std::vector<uint32_t> out_bits(const Tensor& out) {
    const int64_t count = out.num_rows * out.row_stride;
    if (out.dtype == DType::kF32) return download(static_cast<const uint32_t*>(out.data), count);
    const auto halves = download(static_cast<const uint16_t*>(out.data), count);
    return {halves.begin(), halves.end()};
  }

  void expect_product(const LinearArgs& args, Way way) {
    const bool is_f32 = args.out.dtype == DType::kF32;
    const std::vector<uint32_t> bits = out_bits(args.out);
    for (int64_t row = 0; row < args.out.num_rows; ++row) {
      for (int64_t output = 0; output < args.out.row_stride; ++output) {
        const uint32_t actual_bits = bits[row * args.out.row_stride + output];
        if (output >= args.out.num_cols) {
          ASSERT_EQ(actual_bits, is_f32 ? 0xFFFFFFFFu : 0xFFFFu) << "beside row " << row;
          continue;
        }
        double sum = 0;
        double magnitude = 0;
        for (int64_t col = 0; col < shape_.num_cols; ++col) {
          const double product = static_cast<double>(to_float(x_[row * shape_.num_cols + col])) *
                                 to_float(weight_[output * shape_.num_cols + col]);
          sum += product;
          magnitude += std::abs(product);
        }
        const double bias = bias_.empty() ? 0 : bias_[output];
        const double actual = is_f32 ? std::bit_cast<float>(actual_bits)
                                     : to_float(Bf16{static_cast<uint16_t>(actual_bits)});
        // The tensor cores keep a few bits less than float32 between additions. bf16 rounds by up
        // to 2^-8; cuBLASLt also rounds the bias, and with odd strides the sum before it.
        double tolerance = 4e-6 * (magnitude + std::abs(bias)) + 1e-30;
        if (!is_f32) tolerance += std::abs(sum + bias) / 256;
        if (!is_f32 && (way == Way::kCublas || way == Way::kChosen) && !bias_.empty()) {
          tolerance += (std::abs(sum) + std::abs(bias)) / 256;
        }
        ASSERT_NEAR(actual, sum + bias, tolerance) << "row " << row << ", output " << output;
      }
    }
  }

  DenseGemm& gemm() {
    if (!gemm_) gemm_.emplace();
    return *gemm_;
  }
  Linear& chosen() {
    if (!chosen_) chosen_.emplace();
    return *chosen_;
  }

 private:
  Shape shape_;
  std::vector<Bf16> x_;
  std::vector<Bf16> weight_;
  std::vector<float> bias_;
  std::optional<DenseGemm> gemm_;
  std::optional<Linear> chosen_;
};

class LinearShapeTest : public LinearTest, public ::testing::WithParamInterface<Shape> {};

TEST_P(LinearShapeTest, EqualsTheProductInFloat64ByEveryWayThatTakesIt) {
  int num_taken[5] = {};
  for (const int64_t num_rows : {0, 1, 3, 8, 17, 64, 65, 200}) {
    for (const DType out_dtype : {DType::kF32, DType::kBF16}) {
      for (const bool has_bias : {false, true}) {
        for (const Way way :
             {Way::kPlain, Way::kCublas, Way::kSkinny, Way::kSm90Skinny, Way::kChosen}) {
          SCOPED_TRACE("rows " + std::to_string(num_rows) + ", " +
                       (out_dtype == DType::kF32 ? "f32" : "bf16") + (has_bias ? ", bias" : "") +
                       ", way " + std::to_string(static_cast<int>(way)));
          const LinearArgs args = make(GetParam(), num_rows, out_dtype, has_bias);
          if (!run(way, args)) continue;
          ++num_taken[static_cast<int>(way)];
          expect_product(args, way);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
  EXPECT_EQ(num_taken[static_cast<int>(Way::kPlain)], 32);
  EXPECT_EQ(num_taken[static_cast<int>(Way::kChosen)], 32);
  const bool has_16_byte_rows = GetParam().num_cols % 8 == 0 && GetParam().x_padding % 8 == 0;
  if (has_16_byte_rows) {
    EXPECT_EQ(num_taken[static_cast<int>(Way::kCublas)], 32);
    EXPECT_EQ(num_taken[static_cast<int>(Way::kSkinny)], 3 * 4) << "1, 3 and 8 rows";
    if (device_traits().is_hopper()) {
      EXPECT_EQ(num_taken[static_cast<int>(Way::kSm90Skinny)], 5 * 4) << "1 to 64 rows";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         LinearShapeTest,
                         ::testing::Values(Shape{48, 20},
                                           Shape{64, 192},
                                           Shape{8, 1},
                                           Shape{1, 1},
                                           Shape{37, 65, /*x_padding=*/3, /*out_padding=*/5},
                                           Shape{50, 30},
                                           Shape{200, 136, /*x_padding=*/8, /*out_padding=*/3},
                                           Shape{768, 320, /*x_padding=*/0, /*out_padding=*/64}));

struct Size {
  int64_t num_rows;
  int64_t num_cols;
  int64_t num_outputs;
};

class LinearSizeTest : public LinearTest, public ::testing::WithParamInterface<Size> {};

// Sizes that use every way of cutting the work; the plain kernel is the oracle (checked above).
TEST_P(LinearSizeTest, AgreesWithThePlainKernel) {
  const auto [num_rows, num_cols, num_outputs] = GetParam();
  const LinearArgs args = make({num_cols, num_outputs}, num_rows, DType::kF32, true);
  run(Way::kPlain, args);
  const std::vector<uint32_t> expected = out_bits(args.out);
  AUGUR_CUDA(cudaMemsetAsync(args.out.data, 0xFF, 4 * num_rows * num_outputs, stream()));
  chosen().run(args, stream());
  const std::vector<uint32_t> actual = out_bits(args.out);
  // Sums of num_cols products of mean magnitude 1/4, as above.
  const double tolerance = 4e-6 * (0.25 * static_cast<double>(num_cols) + 1);
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(std::bit_cast<float>(actual[i]), std::bit_cast<float>(expected[i]), tolerance)
        << "row " << i / num_outputs << ", output " << i % num_outputs;
  }
}

TEST_P(LinearSizeTest, GivesARowTheSameBitsWhateverTheOtherRowsHoldAndRunAfterRun) {
  const auto [num_rows, num_cols, num_outputs] = GetParam();
  const LinearArgs args = make({num_cols, num_outputs}, num_rows, DType::kF32, false);
  chosen().run(args, stream());
  const std::vector<uint32_t> first = out_bits(args.out);
  for (int run = 0; run < 5; ++run) {
    chosen().run(args, stream());
    ASSERT_EQ(out_bits(args.out), first);
  }
  // All rows but the middle one become NaN.
  const int64_t kept = num_rows / 2;
  AUGUR_CUDA(cudaMemsetAsync(args.x.data, 0xFF, 2 * kept * num_cols, stream()));
  AUGUR_CUDA(cudaMemsetAsync(args.x.row<Bf16>(kept + 1), 0xFF, 2 * (num_rows - kept - 1) * num_cols,
                             stream()));
  chosen().run(args, stream());
  const std::vector<uint32_t> second = out_bits(args.out);
  EXPECT_TRUE(std::equal(&first[kept * num_outputs], &first[kept * num_outputs] + num_outputs,
                         &second[kept * num_outputs]));
}

TEST_P(LinearSizeTest, RunsFromAGraph) {
  const auto [num_rows, num_cols, num_outputs] = GetParam();
  const LinearArgs args = make({num_cols, num_outputs}, num_rows, DType::kBF16, true);
  chosen().run(args, stream());
  const std::vector<uint32_t> expected = out_bits(args.out);
  AUGUR_CUDA(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < 3; ++i) chosen().run(args, stream());
  cudaGraph_t raw_graph = nullptr;
  AUGUR_CUDA(cudaStreamEndCapture(stream(), &raw_graph));
  const Graph graph(raw_graph);
  cudaGraphExec_t raw_exec = nullptr;
  AUGUR_CUDA(cudaGraphInstantiate(&raw_exec, graph.get(), 0));
  const GraphExec exec(raw_exec);
  AUGUR_CUDA(cudaMemsetAsync(args.out.data, 0xFF, 2 * num_rows * num_outputs, stream()));
  for (int i = 0; i < 3; ++i) AUGUR_CUDA(cudaGraphLaunch(exec.get(), stream()));
  EXPECT_EQ(out_bits(args.out), expected);
}

INSTANTIATE_TEST_SUITE_P(Sizes,
                         LinearSizeTest,
                         ::testing::Values(Size{1, 2048, 5120},
                                           Size{1, 4096, 2048},
                                           Size{5, 1032, 40'000},
                                           Size{16, 12'288, 4096},
                                           Size{12, 4096, 2048},
                                           Size{17, 2048, 8512},
                                           Size{33, 4096, 2048},
                                           Size{64, 2048, 5120},
                                           Size{300, 2048, 1024}));

LinearWay way_of(int64_t num_rows, int64_t num_cols, int64_t num_outputs, int compute_capability) {
  const LinearArgs args = {.x = dense(nullptr, DType::kBF16, num_rows, num_cols),
                           .weight = {nullptr, num_outputs, num_cols},
                           .out = dense(nullptr, DType::kBF16, num_rows, num_outputs)};
  return choose_linear(args, {.num_sms = 132, .compute_capability = compute_capability});
}

TEST(ChooseLinear, GoesByRowsAndSizeAndTakesSm90KernelsToHopperAlone) {
  EXPECT_EQ(way_of(1, 2048, 5120, 90), LinearWay::kSm90Skinny);
  EXPECT_EQ(way_of(1, 2048, 5120, 80), LinearWay::kSkinny);
  EXPECT_EQ(way_of(8, 4096, 2048, 90), LinearWay::kSkinny);
  EXPECT_EQ(way_of(32, 4096, 2048, 90), LinearWay::kGemm);
  EXPECT_EQ(way_of(8, 12'288, 4096, 90), LinearWay::kSkinny);
  EXPECT_EQ(way_of(16, 12'288, 4096, 90), LinearWay::kSm90Skinny);
  EXPECT_EQ(way_of(1, 2048, 151'936, 90), LinearWay::kSm90Skinny);
  EXPECT_EQ(way_of(1, 2048, 151'936, 80), LinearWay::kSkinny);
  EXPECT_EQ(way_of(32, 2048, 5120, 90), LinearWay::kSm90Skinny);
  EXPECT_EQ(way_of(32, 2048, 5120, 80), LinearWay::kGemm);
  EXPECT_EQ(way_of(64, 2048, 5120, 90), LinearWay::kGemm);
  EXPECT_EQ(way_of(64, 2048, 151'936, 90), LinearWay::kSm90Skinny);
  EXPECT_EQ(way_of(65, 2048, 151'936, 90), LinearWay::kGemm);
  EXPECT_EQ(way_of(1, 2047, 5120, 90), LinearWay::kGemm) << "rows that are not 16-byte aligned";
}

TEST(SkinnyConfig, GivesEveryBlockAStripAndTheRingsTheRoomOfAMultiprocessor) {
  for (const int64_t num_outputs : {1, 64, 2048, 5120, 14'336, 151'936}) {
    for (const int64_t num_rows : {1, 8, 9, 16, 17, 32, 33, 64}) {
      const SkinnyConfig config = choose_skinny_config(num_rows, num_outputs, /*num_sms=*/132);
      SCOPED_TRACE(config.description());
      EXPECT_GE(config.padded_rows, num_rows);
      EXPECT_LE(config.padded_rows, kMaxSm90SkinnyRows);
      EXPECT_LE(config.num_blocks, ceil_div<int64_t>(num_outputs, 64));
      const int64_t ring_bytes = config.num_stages * int64_t{64 + config.padded_rows} * 128;
      const int blocks_per_sm = config.num_blocks > 132 ? 2 : 1;
      EXPECT_LE(blocks_per_sm * ring_bytes, 220 << 10);
      EXPECT_GE(blocks_per_sm * ring_bytes, 150 << 10);
    }
  }
}

}  // namespace
}  // namespace augur::cuda
