// The MoE and MLP kernels for many tokens against the reference operations, and those for Hopper
// against the portable ones.
#include <algorithm>
#include <cmath>
#include <functional>
#include <ostream>
#include <random>
#include <string>

#include "kernels/cpu/reference_ops.h"
#include "kernels/cuda/mlp_layout.h"
#include "kernels/cuda/moe_combine.h"
#include "kernels/cuda/moe_portable.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/sm90_moe_prefill.h"
#include "tests/kernels/cuda_fixture.h"
#include "tests/kernels/host_moe_plan.h"

namespace augur::cuda {
namespace {

struct Problem {
  int64_t num_tokens;
  int64_t hidden;
  int64_t intermediate;
  int num_experts;
  int top_k;
  int tile_rows = 128;
  bool has_shared = false;
  DType out_dtype = DType::kF32;
};

std::ostream& operator<<(std::ostream& out, const Problem& p) {
  return out << p.num_tokens << "_tokens_" << p.hidden << "x" << p.intermediate << "_top_"
             << p.top_k << "_of_" << p.num_experts << "_tiles_of_" << p.tile_rows
             << (p.has_shared ? "_shared" : "") << (p.out_dtype == DType::kBF16 ? "_bf16" : "");
}

std::vector<Bf16> random_bf16(int64_t count, float amplitude, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::uniform_real_distribution<float> draw(-amplitude, amplitude);
  std::vector<Bf16> values(count);
  for (Bf16& value : values) value = to_bf16(draw(engine));
  return values;
}

std::vector<float> to_floats(const std::vector<Bf16>& values) {
  std::vector<float> floats(values.size());
  std::ranges::transform(values, floats.begin(), to_float);
  return floats;
}

// Weights of a size that keeps every sum near 1, so that errors are easy to judge.
float weight_amplitude(int64_t num_cols) {
  return std::sqrt(3.0f / static_cast<float>(num_cols));
}

// Relative to the larger of the expected value and the root mean square of its row.
void expect_near(const std::vector<float>& actual,
                 const std::vector<float>& expected,
                 int64_t num_cols,
                 float tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t first = 0; first < expected.size(); first += num_cols) {
    double squares = 0;
    for (int64_t i = 0; i < num_cols; ++i) squares += expected[first + i] * expected[first + i];
    const double rms = std::sqrt(squares / static_cast<double>(num_cols));
    for (int64_t i = 0; i < num_cols; ++i) {
      const double scale = std::max<double>(std::abs(expected[first + i]), rms);
      ASSERT_LE(std::abs(actual[first + i] - expected[first + i]), tolerance * scale + 1e-30)
          << "row " << first / num_cols << " column " << i << ": " << actual[first + i] << " for "
          << expected[first + i];
    }
  }
}

// h and y are rounded to bf16 (2^-9 of a value at most each); over a sum of many such the errors
// of h average out, those of y are at most 2^-9 of the largest of a few addends.
constexpr float kTolerance = 1.5e-2f;

class CudaMoePrefillTest : public CudaTest, public ::testing::WithParamInterface<Problem> {
 protected:
  using Moe = std::function<void(const MoePrefillArgs&, cudaStream_t)>;
  using Mlp = std::function<void(const MlpPrefillArgs&, cudaStream_t)>;

  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    const Problem& p = GetParam();
    x_ = random_bf16(p.num_tokens * p.hidden, 1.7f, 1);
    const int64_t size = p.hidden * p.intermediate;
    for (int e = 0; e < p.num_experts; ++e) {
      gate_.push_back(random_bf16(size, weight_amplitude(p.hidden), 10 + 3 * e));
      up_.push_back(random_bf16(size, weight_amplitude(p.hidden), 11 + 3 * e));
      down_.push_back(random_bf16(size, weight_amplitude(p.intermediate), 12 + 3 * e));
      slots_.push_back((e * 5 + 1) % (p.num_experts % 5 == 0 ? p.num_experts + 1 : p.num_experts));
    }
    // A few crowded experts, and here and there a choice that is left out.
    std::mt19937_64 engine(2);
    for (int64_t t = 0; t < p.num_tokens; ++t) {
      std::vector<int32_t> order(p.num_experts);
      for (int e = 0; e < p.num_experts; ++e) order[e] = e;
      if (t % 3 != 0) std::ranges::shuffle(order, engine);
      for (int c = 0; c < p.top_k; ++c) {
        experts_.push_back(t % 7 == 5 && c == p.top_k / 2 ? -1 : order[c]);
        weights_.push_back(std::uniform_real_distribution<float>(0.05f, 1.0f)(engine));
      }
    }
    shared_ = random_bf16(p.has_shared ? p.num_tokens * p.hidden : 0, 1.0f, 3);
  }

  int64_t num_slots() const { return GetParam().num_experts + 1; }

  std::byte* pack(std::byte* to, const std::vector<Bf16>& values, int64_t rows, int64_t cols) {
    pack_tiled(to, rows, cols, 0, rows, upload(values), stream());
    return to;
  }

  ExpertTable upload_table() {
    const Problem& p = GetParam();
    ExpertTable table;
    table.layout.hidden_size = p.hidden;
    table.layout.intermediate_size = p.intermediate;
    table.layout.up_offset = tiled_matrix_bytes(p.intermediate, p.hidden);
    table.layout.down_offset = 2 * table.layout.up_offset;
    table.layout.block_bytes =
        table.layout.down_offset + tiled_matrix_bytes(p.hidden, p.intermediate);
    std::byte* const slots = device_array<std::byte>(num_slots() * table.layout.block_bytes);
    AUGUR_CUDA(cudaMemsetAsync(slots, 0, num_slots() * table.layout.block_bytes, stream()));
    for (int e = 0; e < p.num_experts; ++e) {
      std::byte* const block = slots + slots_[e] * table.layout.block_bytes;
      pack(block, gate_[e], p.intermediate, p.hidden);
      pack(block + table.layout.up_offset, up_[e], p.intermediate, p.hidden);
      pack(block + table.layout.down_offset, down_[e], p.hidden, p.intermediate);
    }
    table.slots = slots;
    table.slot_of_expert = upload(slots_);
    table.num_experts = p.num_experts;
    return table;
  }

  Tensor upload_rows(const std::vector<Bf16>& values) {
    return dense(upload(values), DType::kBF16, GetParam().num_tokens, GetParam().hidden);
  }

  Tensor result() {
    const Problem& p = GetParam();
    void* const data = device_array<std::byte>(p.num_tokens * p.hidden * dtype_bytes(p.out_dtype));
    return dense(data, p.out_dtype, p.num_tokens, p.hidden);
  }

  std::vector<float> read(const Tensor& tensor) {
    const int64_t count = tensor.num_rows * tensor.num_cols;
    if (tensor.dtype == DType::kF32) return download(tensor.row<float>(0), count);
    return to_floats(download(tensor.row<Bf16>(0), count));
  }

  std::vector<float> run_moe(const Moe& moe, int64_t workspace_bytes) {
    const Problem& p = GetParam();
    HostMoePlan plan = host_moe_plan(experts_, slots_, p.tile_rows);
    const int32_t num_tiles = static_cast<int32_t>(plan.tiles.size());
    plan.tiles.resize(plan.tiles.size() + 1);  // so that there is an array, also of no tiles
    EXPECT_LE(num_tiles, max_tiles(p.num_tokens * p.top_k, p.num_experts, p.tile_rows));
    MoePrefillArgs args;
    args.moe.x = upload_rows(x_);
    args.moe.experts = upload(experts_);
    args.moe.weights = upload(weights_);
    args.moe.top_k = p.top_k;
    args.moe.table = upload_table();
    args.moe.out = result();
    args.plan = {upload(plan.sorted), upload(plan.tiles), upload(std::vector{num_tiles}),
                 p.tile_rows};
    args.workspace = device_array<std::byte>(workspace_bytes);
    if (p.has_shared) args.shared_out = upload_rows(shared_);
    moe(args, stream());
    const std::vector<float> first = read(args.moe.out);
    // Again on what the first run left in the workspace: the same bits.
    moe(args, stream());
    EXPECT_EQ(first, read(args.moe.out));
    return first;
  }

  std::vector<float> reference_moe() {
    const Problem& p = GetParam();
    const std::unique_ptr<Ops> ops = make_reference_ops(2);
    StepLimits limits;
    limits.max_tokens = std::max<int64_t>(1, p.num_tokens);
    limits.hidden_size = p.hidden;
    limits.expert_intermediate_size = p.intermediate;
    limits.num_experts = p.num_experts;
    limits.top_k = p.top_k;
    ops->reserve(limits);
    const ExpertLayout layout = expert_layout(*ops, p.hidden, p.intermediate);
    const Buffer pool = ops->allocate(num_slots() * layout.block_bytes);
    for (int e = 0; e < p.num_experts; ++e) {
      std::byte* const block = pool.data() + slots_[e] * layout.block_bytes;
      const auto pack_rows = [&](int64_t offset, int64_t rows, int64_t cols,
                                 const std::vector<Bf16>& values) {
        ops->pack_rows(MatrixUse::kMlp, block + offset, rows, cols, 0, rows, values.data());
      };
      pack_rows(0, p.intermediate, p.hidden, gate_[e]);
      pack_rows(layout.up_offset, p.intermediate, p.hidden, up_[e]);
      pack_rows(layout.down_offset, p.hidden, p.intermediate, down_[e]);
    }
    std::vector<float> x = to_floats(x_);
    std::vector<float> out(x.size());
    MoeArgs args;
    args.x = dense(x.data(), DType::kF32, p.num_tokens, p.hidden);
    // It takes no -1: a choice that is left out becomes one of weight 0.
    std::vector<int32_t> experts = experts_;
    std::vector<float> weights = weights_;
    for (size_t i = 0; i < experts.size(); ++i) {
      if (experts[i] >= 0) continue;
      experts[i] = 0;
      weights[i] = 0;
    }
    args.experts = experts.data();
    args.weights = weights.data();
    args.top_k = p.top_k;
    args.table = {pool.data(), layout, slots_.data(), p.num_experts};
    args.out = dense(out.data(), DType::kF32, p.num_tokens, p.hidden);
    ops->moe(args);
    for (size_t i = 0; i < shared_.size(); ++i) out[i] += to_float(shared_[i]);
    return out;
  }

  std::vector<float> run_mlp(const Mlp& mlp, int64_t workspace_bytes) {
    const ExpertTable table = upload_table();
    MlpPrefillArgs args;
    args.mlp.x = upload_rows(x_);
    args.mlp.weights = table.layout.view(table.slots + slots_[0] * table.layout.block_bytes);
    args.mlp.out = result();
    args.workspace = device_array<std::byte>(workspace_bytes);
    mlp(args, stream());
    return read(args.mlp.out);
  }

  std::vector<float> reference_mlp() {
    // All rows through expert 0: the same as its MoE with one choice of weight 1.
    const Problem& p = GetParam();
    std::vector<float> out(x_.size());
    std::vector<float> h(p.intermediate);
    for (int64_t t = 0; t < p.num_tokens; ++t) {
      for (int64_t i = 0; i < p.intermediate; ++i) {
        float gate = 0;
        float up = 0;
        for (int64_t k = 0; k < p.hidden; ++k) {
          gate += to_float(x_[t * p.hidden + k]) * to_float(gate_[0][i * p.hidden + k]);
          up += to_float(x_[t * p.hidden + k]) * to_float(up_[0][i * p.hidden + k]);
        }
        h[i] = gate / (1.0f + std::exp(-gate)) * up;
      }
      for (int64_t j = 0; j < p.hidden; ++j) {
        float sum = 0;
        for (int64_t i = 0; i < p.intermediate; ++i) {
          sum += h[i] * to_float(down_[0][j * p.intermediate + i]);
        }
        out[t * p.hidden + j] = sum;
      }
    }
    return out;
  }

  int64_t portable_bytes(int top_k) const {
    const Problem& p = GetParam();
    return moe_portable_workspace_bytes(p.num_tokens, top_k, p.hidden, p.intermediate);
  }
  int64_t sm90_bytes(int top_k, int num_experts) const {
    const Problem& p = GetParam();
    return sm90_moe_prefill_workspace_bytes(p.num_tokens, top_k, num_experts, p.hidden,
                                            p.intermediate);
  }

  std::vector<Bf16> x_, shared_;
  std::vector<std::vector<Bf16>> gate_, up_, down_;
  std::vector<int32_t> slots_, experts_;
  std::vector<float> weights_;
};

class CudaMoePortableTest : public CudaMoePrefillTest {};

TEST_P(CudaMoePortableTest, MoeIsNearTheReference) {
  expect_near(run_moe(moe_portable, portable_bytes(GetParam().top_k)), reference_moe(),
              GetParam().hidden, kTolerance);
}

TEST_P(CudaMoePortableTest, MlpIsNearTheReference) {
  expect_near(run_mlp(mlp_portable, portable_bytes(1)), reference_mlp(), GetParam().hidden,
              kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Problems,
                         CudaMoePortableTest,
                         ::testing::Values(Problem{0, 64, 64, 2, 1},
                                           Problem{1, 32, 16, 1, 1, 16},
                                           Problem{5, 50, 23, 5, 2, 16},
                                           Problem{40, 136, 72, 9, 3, 16, true},
                                           Problem{70, 50, 23, 5, 2, 64, true},
                                           Problem{200, 200, 136, 6, 4, 128, false, DType::kBF16},
                                           Problem{150, 264, 130, 3, 2, 64, true, DType::kBF16}),
                         ::testing::PrintToStringParamName());

class CudaMoeSm90Test : public CudaMoePrefillTest {
 protected:
  void SetUp() override {
    CudaMoePrefillTest::SetUp();
    if (!IsSkipped() && !device_traits().is_hopper()) GTEST_SKIP() << "not a Hopper GPU";
  }
};

TEST_P(CudaMoeSm90Test, MoeIsNearTheReference) {
  const Problem& p = GetParam();
  expect_near(run_moe(sm90_moe_prefill, sm90_bytes(p.top_k, p.num_experts)), reference_moe(),
              p.hidden, kTolerance);
}

TEST_P(CudaMoeSm90Test, MlpIsNearTheReference) {
  expect_near(run_mlp(sm90_mlp_prefill, sm90_bytes(1, 1)), reference_mlp(), GetParam().hidden,
              kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Problems,
                         CudaMoeSm90Test,
                         ::testing::Values(Problem{0, 64, 64, 2, 1},
                                           Problem{1, 64, 64, 1, 1},
                                           Problem{3, 8, 8, 2, 2},
                                           Problem{65, 136, 72, 9, 3, 128, true},
                                           Problem{200, 200, 136, 6, 4, 128, false, DType::kBF16},
                                           Problem{300, 328, 200, 3, 2, 128, true},
                                           Problem{400, 512, 384, 4, 2, 128, true, DType::kBF16},
                                           Problem{300, 72, 1032, 3, 2, 128, true},
                                           Problem{300, 200, 1100, 2, 1, 128, false, DType::kBF16}),
                         ::testing::PrintToStringParamName());

TEST_P(CudaMoeSm90Test, ChoicesThatAreLeftOutAddNothing) {
  const Problem& p = GetParam();
  std::ranges::fill(experts_, -1);
  std::vector<float> expected(p.num_tokens * p.hidden);
  for (size_t i = 0; i < shared_.size(); ++i) expected[i] = to_float(shared_[i]);
  EXPECT_EQ(run_moe(sm90_moe_prefill, sm90_bytes(p.top_k, p.num_experts)), expected);
}

// Problems too large for the reference: the portable kernels are the oracle.
class CudaMoeSm90LargeTest : public CudaMoeSm90Test {};

TEST_P(CudaMoeSm90LargeTest, MoeIsNearThePortableKernels) {
  const Problem& p = GetParam();
  expect_near(run_moe(sm90_moe_prefill, sm90_bytes(p.top_k, p.num_experts)),
              run_moe(moe_portable, portable_bytes(p.top_k)), p.hidden, kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Problems,
                         CudaMoeSm90LargeTest,
                         ::testing::Values(Problem{1000, 2048, 768, 8, 4},
                                           Problem{3000, 1024, 1408, 16, 6, 128, true}),
                         ::testing::PrintToStringParamName());

TEST(MoePrefillConfigTest, TellsWhatTheLaunchesNeed) {
  const MoePrefillConfig few = moe_prefill_config(1024, 8, 128, 2048, 768);
  EXPECT_EQ(few.tile_rows, 128);
  EXPECT_EQ(few.max_tiles, 128 + 64);
  EXPECT_EQ(few.num_gate_up_items, few.max_tiles * 6);
  EXPECT_EQ(few.num_down_items, few.max_tiles * 8);
  EXPECT_FALSE(few.lays_out_x);
  EXPECT_EQ(few.workspace_bytes, few.max_tiles * 128 * 768 * 2 + 8192 * 2048 * 2);
  const MoePrefillConfig wide = moe_prefill_config(1024, 2, 8, 4096, 14336);
  EXPECT_TRUE(wide.lays_out_x);
  EXPECT_EQ(wide.workspace_bytes, wide.max_tiles * 128 * (14336 + 4096) * 2);
  EXPECT_NE(few.to_string(), wide.to_string());
}

class CudaMoeCombineTest : public CudaTest {};

TEST_F(CudaMoeCombineTest, AddsInTheOrderOfChoiceAndSkipsWhatIsLeftOut) {
  // Powers of two that only this order keeps: 2^24 + 1 - 2^24 is 0 in float32, and 1 the other way.
  const std::vector<Bf16> y = {to_bf16(16777216.0f), to_bf16(1.0f), to_bf16(-16777216.0f),
                               to_bf16(NAN),         to_bf16(2.0f), to_bf16(3.0f)};
  std::vector<Bf16> rows(6 * 8);
  for (int i = 0; i < 6; ++i) rows[8 * i] = y[i];
  float* const out = device_array<float>(2);
  MoeCombineArgs args;
  args.y = {upload(rows), DType::kBF16, 6, 1, 8};
  args.experts = upload(std::vector<int32_t>{0, 1, 2, -1, 1, 2});
  args.weights = upload(std::vector<float>{1, 1, 1, 1, 0.5f, 2});
  args.top_k = 3;
  args.out = dense(out, DType::kF32, 2, 1);
  moe_combine(args, stream());
  EXPECT_EQ(download(out, 2), (std::vector<float>{0, 7}));
}

}  // namespace
}  // namespace augur::cuda
