#include <cmath>
#include <random>
#include <string>

#include "kernels/bf16.h"
#include "kernels/cpu/reference_ops.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rope_cache.h"
#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

std::vector<float> random_floats(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> values(-2, 2);
  std::vector<float> result(count);
  for (float& value : result) value = values(generator);
  return result;
}

std::vector<Bf16> rounded(const std::vector<float>& values) {
  std::vector<Bf16> result;
  for (const float value : values) result.push_back(to_bf16(value));
  return result;
}
std::vector<float> widened(const std::vector<Bf16>& values) {
  std::vector<float> result;
  for (const Bf16 value : values) result.push_back(to_float(value));
  return result;
}

// Near in units of the result's own rounding; sums of squares of a few thousand values in another
// order differ by about 1e-6 of the whole.
void expect_near(const std::vector<float>& actual,
                 const std::vector<float>& expected,
                 DType dtype,
                 const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  const float tolerance = dtype == DType::kBF16 ? 1.0f / 200 : 1e-5f;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance * (std::abs(expected[i]) + 1e-3f))
        << what << " " << i;
  }
}

struct NormProblem {
  int64_t num_rows;
  int64_t num_cols;
  bool has_delta;
  DType delta_type;
  DType out_type;
  bool has_out_f32;
};

class CudaRmsNormTest : public CudaTest, public ::testing::WithParamInterface<NormProblem> {
 protected:
  /// Device memory of this type with these values, rounded.
  void* upload_as(DType dtype, const std::vector<float>& values) {
    if (dtype == DType::kF32) return upload(values);
    return upload(rounded(values));
  }
  std::vector<float> download_as(DType dtype, const void* data, int64_t count) {
    if (dtype == DType::kF32) return download(static_cast<const float*>(data), count);
    return widened(download(static_cast<const Bf16*>(data), count));
  }
};

TEST_P(CudaRmsNormTest, IsNearTheReference) {
  const NormProblem problem = GetParam();
  const int64_t rows = problem.num_rows;
  const int64_t cols = problem.num_cols;
  const int64_t count = rows * cols;
  constexpr float kEps = 1e-5f;
  const std::vector<float> hidden = random_floats(count, 1);
  std::vector<float> delta = random_floats(count, 2);
  if (problem.delta_type == DType::kBF16) delta = widened(rounded(delta));
  const std::vector<float> weight = random_floats(cols, 3);

  std::vector<float> expected_hidden = hidden;
  std::vector<float> expected(count);
  AddRmsNormArgs args = {.hidden = dense(expected_hidden.data(), DType::kF32, rows, cols),
                         .weight = weight.data(),
                         .eps = kEps,
                         .out = dense(expected.data(), DType::kF32, rows, cols)};
  if (problem.has_delta) args.delta = dense(delta.data(), DType::kF32, rows, cols);
  make_reference_ops(1)->add_rms_norm(args);

  float* const device_hidden = upload(hidden);
  void* const out = device_array<float>(count);
  float* const out_f32 = device_array<float>(count);
  args.hidden.data = device_hidden;
  if (problem.has_delta) {
    args.delta = dense(upload_as(problem.delta_type, delta), problem.delta_type, rows, cols);
  }
  args.weight = upload(weight);
  args.out = dense(out, problem.out_type, rows, cols);
  if (problem.has_out_f32) args.out_f32 = dense(out_f32, DType::kF32, rows, cols);
  add_rms_norm(args, stream());

  EXPECT_EQ(download(device_hidden, count), expected_hidden);
  expect_near(download_as(problem.out_type, out, count), expected, problem.out_type, "out");
  if (problem.has_out_f32) {
    expect_near(download(out_f32, count), expected, DType::kF32, "out_f32");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Problems,
    CudaRmsNormTest,
    ::testing::Values(NormProblem{0, 64, true, DType::kF32, DType::kBF16, false},
                      NormProblem{1, 2048, true, DType::kF32, DType::kBF16, true},
                      NormProblem{1, 4096, true, DType::kBF16, DType::kBF16, true},
                      NormProblem{3, 1, true, DType::kBF16, DType::kBF16, true},
                      NormProblem{7, 33, true, DType::kBF16, DType::kF32, true},
                      NormProblem{5, 72, false, DType::kF32, DType::kF32, false},
                      NormProblem{2, 8200, true, DType::kF32, DType::kBF16, false},
                      NormProblem{2, 16392, true, DType::kF32, DType::kBF16, true},
                      NormProblem{64, 5120, false, DType::kBF16, DType::kBF16, true},
                      NormProblem{1500, 2048, true, DType::kBF16, DType::kBF16, true}));

struct RopeProblem {
  int64_t num_tokens;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int rotary_dim;
  bool is_interleaved;
  bool has_norm;
  DType qkv_type;
  int block_size;
};

class CudaRopeTest : public CudaTest, public ::testing::WithParamInterface<RopeProblem> {};

// One head by the definition, in double.
std::vector<float> turned(
    const float* from, const RopeProblem& problem, const float* norm, double eps, int position) {
  const int dim = problem.head_dim;
  std::vector<double> x(from, from + dim);
  if (norm != nullptr) {
    double sum = 0;
    for (const double value : x) sum += value * value;
    for (int d = 0; d < dim; ++d) x[d] *= norm[d] / std::sqrt(sum / dim + eps);
  }
  std::vector<float> out(x.begin(), x.end());
  const int half = problem.rotary_dim / 2;
  for (int i = 0; i < half; ++i) {
    const int first = problem.is_interleaved ? 2 * i : i;
    const int second = problem.is_interleaved ? 2 * i + 1 : i + half;
    const double angle = 0.1 * position / (i + 1);
    out[first] = static_cast<float>(x[first] * std::cos(angle) - x[second] * std::sin(angle));
    out[second] = static_cast<float>(x[second] * std::cos(angle) + x[first] * std::sin(angle));
  }
  return out;
}

TEST_P(CudaRopeTest, TurnsAndCachesEveryHeadAndLeavesTheRestOfTheCache) {
  const RopeProblem problem = GetParam();
  const int64_t num_tokens = problem.num_tokens;
  const int dim = problem.head_dim;
  const int total_heads = problem.num_heads + 2 * problem.num_kv_heads;
  const int half = problem.rotary_dim / 2;
  constexpr int kMaxPosition = 50;
  constexpr float kEps = 1e-6f;
  std::vector<float> qkv = random_floats(num_tokens * total_heads * dim, 4);
  if (problem.qkv_type == DType::kBF16) qkv = widened(rounded(qkv));
  const std::vector<float> q_norm = random_floats(dim, 5);
  const std::vector<float> k_norm = random_floats(dim, 6);
  std::vector<float> cos(kMaxPosition * half);
  std::vector<float> sin(kMaxPosition * half);
  for (int p = 0; p < kMaxPosition; ++p) {
    for (int i = 0; i < half; ++i) {
      cos[p * half + i] = static_cast<float>(std::cos(0.1 * p / (i + 1)));
      sin[p * half + i] = static_cast<float>(std::sin(0.1 * p / (i + 1)));
    }
  }
  // Slots out of order; every fifth row pads the step.
  const int64_t num_blocks = num_tokens / problem.block_size + 2;
  std::vector<int32_t> positions(num_tokens);
  std::vector<int64_t> slots(num_tokens);
  for (int64_t t = 0; t < num_tokens; ++t) {
    positions[t] = static_cast<int32_t>(t * 13 % kMaxPosition);
    slots[t] = t % 5 == 4 ? -1 : num_blocks * problem.block_size - 3 - t;
  }

  const int64_t cache_bytes =
      num_blocks * kv_block_bytes(problem.block_size, problem.num_kv_heads, dim);
  RopeAndCacheArgs args;
  const int64_t num_cols = int64_t{total_heads} * dim;
  args.qkv = problem.qkv_type == DType::kBF16
                 ? dense(upload(rounded(qkv)), DType::kBF16, num_tokens, num_cols)
                 : dense(upload(qkv), DType::kF32, num_tokens, num_cols);
  args.num_heads = problem.num_heads;
  if (problem.has_norm) {
    args.q_norm = upload(q_norm);
    args.k_norm = upload(k_norm);
  }
  args.norm_eps = kEps;
  args.rope = {upload(cos), upload(sin), problem.rotary_dim, problem.is_interleaved};
  args.positions = upload(positions);
  args.kv_slots = upload(slots);
  args.cache = {device_array<std::byte>(cache_bytes), num_blocks, problem.block_size,
                problem.num_kv_heads, dim};
  Bf16* const q_out = device_array<Bf16>(num_tokens * problem.num_heads * dim);
  args.q_out = dense(q_out, DType::kBF16, num_tokens, int64_t{problem.num_heads} * dim);
  rope_and_cache(args, stream());

  const std::vector<float> actual_q =
      widened(download(q_out, num_tokens * problem.num_heads * dim));
  std::vector<float> expected_q;
  const std::vector<std::byte> cache = download(args.cache.data, cache_bytes);
  std::vector<bool> is_written(cache_bytes / 2);
  for (int64_t t = 0; t < num_tokens; ++t) {
    for (int head = 0; head < total_heads; ++head) {
      const float* const from = &qkv[(t * total_heads + head) * dim];
      const bool is_query = head < problem.num_heads;
      const bool is_value = head >= problem.num_heads + problem.num_kv_heads;
      const float* const norm =
          !problem.has_norm || is_value ? nullptr : (is_query ? q_norm : k_norm).data();
      const std::vector<float> expected = is_value
                                              ? std::vector<float>(from, from + dim)
                                              : turned(from, problem, norm, kEps, positions[t]);
      if (is_query) {
        expected_q.insert(expected_q.end(), expected.begin(), expected.end());
        continue;
      }
      if (slots[t] < 0) continue;
      const int kv_head = (head - problem.num_heads) % problem.num_kv_heads;
      const int64_t block_bytes = kv_block_bytes(problem.block_size, problem.num_kv_heads, dim);
      const int64_t base = slots[t] / problem.block_size * block_bytes +
                           (is_value ? block_bytes / 2 : 0) +
                           kv_head_offset(problem.block_size, dim, kv_head);
      for (int d = 0; d < num_kv_groups(dim) * kKvGroupCols; ++d) {
        const int64_t at =
            base +
            kv_value_offset(problem.block_size, static_cast<int>(slots[t] % problem.block_size), d);
        const float actual = to_float(*reinterpret_cast<const Bf16*>(&cache[at]));
        const float value = d < dim ? expected[d] : 0.0f;
        // Rounding to bf16, and the difference of two near products.
        ASSERT_NEAR(actual, value, std::abs(value) / 200 + 1e-5f)
            << "token " << t << ", head " << head << ", column " << d;
        ASSERT_FALSE(is_written[at / 2]);
        is_written[at / 2] = true;
      }
    }
  }
  ASSERT_EQ(actual_q.size(), expected_q.size());
  for (size_t i = 0; i < actual_q.size(); ++i) {
    ASSERT_NEAR(actual_q[i], expected_q[i], std::abs(expected_q[i]) / 200 + 1e-5f) << i;
  }
  for (int64_t i = 0; i < cache_bytes / 2; ++i) {
    if (is_written[i]) continue;
    ASSERT_EQ(reinterpret_cast<const Bf16*>(cache.data())[i].bits, 0xFFFF) << "at value " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Problems,
    CudaRopeTest,
    ::testing::Values(RopeProblem{0, 4, 2, 64, 64, false, true, DType::kF32, 16},
                      RopeProblem{1, 32, 4, 128, 128, false, true, DType::kF32, 16},
                      RopeProblem{9, 96, 8, 128, 64, false, false, DType::kBF16, 64},
                      RopeProblem{33, 4, 1, 64, 64, true, true, DType::kBF16, 16},
                      RopeProblem{17, 3, 3, 80, 20, false, true, DType::kF32, 32},
                      RopeProblem{6, 5, 1, 33, 22, false, true, DType::kF32, 16},
                      RopeProblem{6, 2, 2, 50, 10, true, false, DType::kBF16, 16},
                      RopeProblem{5, 4, 2, 256, 256, false, true, DType::kBF16, 16},
                      RopeProblem{700, 8, 2, 128, 128, false, true, DType::kF32, 64},
                      RopeProblem{3, 2, 1, 192, 0, false, true, DType::kF32, 16}));

}  // namespace
}  // namespace augur::cuda
