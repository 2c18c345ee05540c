#include "tests/kernels/ops_contract.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/cpu/reference_ops.h"

namespace augur::contract {

namespace {

// The same numbers with every library, and quick to seed. Source: Steele, Lea, Flood 2014,
// "Fast splittable pseudorandom number generators" (SplitMix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x2545f4914f6cdd1d) {}
  uint64_t operator()() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }

 private:
  uint64_t state_;
};

}  // namespace

std::vector<float> random_values(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& value : values) {
    value = to_float(to_bf16(static_cast<float>(random() >> 40) * 0x1p-23f - 1.0f));
  }
  return values;
}

std::vector<int32_t> random_order(int64_t count, uint64_t seed) {
  std::vector<int32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  Random random(seed);
  for (int64_t i = count - 1; i > 0; --i) std::swap(order[i], order[random() % (i + 1)]);
  return order;
}

::testing::AssertionResult rows_are_near(const std::vector<float>& actual,
                                         const std::vector<float>& expected,
                                         int64_t num_cols,
                                         float tolerance) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure()
           << actual.size() << " values, expected " << expected.size();
  }
  const auto count = static_cast<int64_t>(expected.size());
  for (int64_t row = 0; row * num_cols < count; ++row) {
    const float* const want = expected.data() + row * num_cols;
    const float* const got = actual.data() + row * num_cols;
    const double squares = std::inner_product(want, want + num_cols, want, 0.0);
    const double rms = std::sqrt(squares / static_cast<double>(num_cols));
    for (int64_t col = 0; col < num_cols; ++col) {
      const double scale = std::max(rms, std::abs(double{want[col]}));
      // Said so that NaN fails.
      if (!(std::abs(double{got[col]} - want[col]) <= tolerance * scale)) {
        return ::testing::AssertionFailure()
               << "row " << row << ", column " << col << ": " << got[col] << ", expected "
               << want[col] << " within " << tolerance << " of " << scale;
      }
    }
  }
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult are_identical(std::span<const float> actual,
                                         std::span<const float> expected) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure()
           << actual.size() << " values, expected " << expected.size();
  }
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::memcmp(&actual[i], &expected[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure()
             << "value " << i << ": " << actual[i] << " is not " << expected[i] << " bit for bit";
    }
  }
  return ::testing::AssertionSuccess();
}

StepLimits contract_limits() {
  StepLimits limits;
  limits.max_tokens = 600;
  limits.max_seqs = 600;
  limits.max_logit_rows = 64;
  limits.max_context = 600;
  limits.hidden_size = 512;
  limits.vocab_size = 3000;
  limits.num_heads = 16;
  limits.num_kv_heads = 16;
  limits.head_dim = 128;
  limits.mlp_intermediate_size = 512;
  limits.expert_intermediate_size = 256;
  limits.num_experts = 128;
  limits.top_k = 8;
  limits.num_low_bit_experts = 128;
  return limits;
}

std::byte* Arena::zeros(int64_t num_bytes) {
  buffers_.push_back(ops_.allocate(num_bytes));
  return buffers_.back().data();
}

std::byte* Arena::upload(const void* data, int64_t num_bytes) {
  std::byte* const to = zeros(num_bytes);
  if (num_bytes > 0) ops_.upload(to, data, num_bytes);
  return to;
}

Tensor Arena::tensor(std::span<const float> values,
                     int64_t num_rows,
                     int64_t num_cols,
                     DType dtype,
                     int64_t padding) {
  const int64_t stride = num_cols + padding;
  std::vector<std::byte> host(num_rows * stride * dtype_bytes(dtype));
  for (int64_t i = 0; i < num_rows * num_cols; ++i) {
    const int64_t place = i / num_cols * stride + i % num_cols;
    if (dtype == DType::kBF16) {
      const Bf16 value = to_bf16(values[i]);
      std::memcpy(host.data() + place * 2, &value, 2);
    } else {
      std::memcpy(host.data() + place * 4, &values[i], 4);
    }
  }
  std::byte* const data = upload(host.data(), static_cast<int64_t>(host.size()));
  return {data, dtype, num_rows, num_cols, stride};
}

Tensor Arena::result(int64_t num_rows, int64_t num_cols, DType dtype, int64_t padding) {
  const std::vector<float> unset(num_rows * num_cols, -12345.0f);
  return tensor(unset, num_rows, num_cols, dtype, padding);
}

PackedMatrix Arena::pack(MatrixUse use,
                         std::span<const float> values,
                         int64_t num_rows,
                         int64_t num_cols) {
  std::byte* const to = zeros(ops_.packed_bytes(use, num_rows, num_cols));
  pack_into(use, to, values, num_rows, num_cols);
  return {to, num_rows, num_cols};
}

void Arena::pack_into(MatrixUse use,
                      std::byte* to,
                      std::span<const float> values,
                      int64_t num_rows,
                      int64_t num_cols) {
  std::vector<Bf16> host(values.size());
  std::transform(values.begin(), values.end(), host.begin(), to_bf16);
  const int64_t middle = num_rows / 3;
  ops_.pack_rows(use, to, num_rows, num_cols, 0, middle, host.data());
  ops_.pack_rows(use, to, num_rows, num_cols, middle, num_rows - middle,
                 host.data() + middle * num_cols);
}

std::vector<float> Arena::read(const Tensor& tensor) {
  std::vector<float> values;
  values.reserve(tensor.num_rows * tensor.num_cols);
  const int64_t count = tensor.num_rows * tensor.row_stride;
  const auto append = [&](const auto& host, auto&& convert) {
    for (int64_t row = 0; row < tensor.num_rows; ++row) {
      for (int64_t col = 0; col < tensor.num_cols; ++col) {
        values.push_back(convert(host[row * tensor.row_stride + col]));
      }
    }
  };
  if (tensor.dtype == DType::kBF16) {
    append(read(static_cast<const Bf16*>(tensor.data), count), to_float);
  } else {
    append(read(static_cast<const float*>(tensor.data), count), [](float value) { return value; });
  }
  return values;
}

void OpsContract::SetUp() {
  ops_ = GetParam().make();
  reference_ = make_reference_ops(2);
  for (Ops* ops : {ops_.get(), reference_.get()}) {
    EXPECT_GT(ops->workspace_bytes(contract_limits()), 0);
    ops->reserve(contract_limits());
  }
}

INSTANTIATE_TEST_SUITE_P(Backends,
                         OpsContract,
                         ::testing::ValuesIn(backends()),
                         [](const auto& info) { return info.param.name; });

::testing::AssertionResult OpsContract::are_same_rows(std::span<const float> actual,
                                                      std::span<const float> expected,
                                                      int64_t num_cols) {
  if (!GetParam().depends_on_row_count) return are_identical(actual, expected);
  return rows_are_near({actual.begin(), actual.end()}, {expected.begin(), expected.end()}, num_cols,
                       GetParam().activation_tolerance);
}

}  // namespace augur::contract
