#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <ostream>

#include "kernels/cpu/reference_ops.h"
#include "kernels/cuda/mlp_layout.h"
#include "kernels/cuda/sm90_moe_decode.h"
#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

// The inner values are rounded to bf16 once (2^-9 of each, at most): what remains after their sum
// is near 2^-9 of the row's root mean square, and a bf16 result adds 2^-9 of itself.
constexpr float kTolerance = 1.0f / 64;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x2545F4914F6CDD1D + 1) {}
  uint32_t operator()() {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return static_cast<uint32_t>(state_ >> 33);
  }
  std::vector<Bf16> values(int64_t count) {
    std::vector<Bf16> values(count);
    for (Bf16& value : values) {
      value = to_bf16(static_cast<float>((*this)()) * 0x1p-30f - 1.0f);
    }
    return values;
  }

 private:
  uint64_t state_;
};

std::vector<float> to_floats(const std::vector<Bf16>& values) {
  std::vector<float> floats(values.size());
  std::ranges::transform(values, floats.begin(), to_float);
  return floats;
}

struct Problem {
  int64_t num_tokens;
  int top_k;
  int num_experts;
  int64_t hidden;
  int64_t intermediate;
  DType out_dtype = DType::kF32;
  bool has_shared = false;
  bool leaves_out = false;  // some choices are -1
};

std::ostream& operator<<(std::ostream& out, const Problem& problem) {
  return out << problem.num_tokens << " tokens, " << problem.top_k << " of " << problem.num_experts
             << " experts, " << problem.hidden << " x " << problem.intermediate
             << (problem.out_dtype == DType::kBF16 ? ", bf16" : "")
             << (problem.has_shared ? ", shared" : "")
             << (problem.leaves_out ? ", some left out" : "");
}

// Matrices of one MLP, row-major.
struct Matrices {
  Matrices(int64_t hidden, int64_t intermediate, uint64_t seed)
      : hidden(hidden),
        intermediate(intermediate),
        gate(Random(seed).values(intermediate * hidden)),
        up(Random(seed + 1).values(intermediate * hidden)),
        down(Random(seed + 2).values(intermediate * hidden)) {}
  int64_t hidden, intermediate;
  std::vector<Bf16> gate, up, down;
};

// As mlp_layout.h says, NaN in rows that fill up the last strip: nothing may depend on them.
void pack_on_host(const std::vector<Bf16>& matrix,
                  int64_t num_rows,
                  int64_t num_cols,
                  std::byte* to) {
  std::memset(to, 0xFF, tiled_matrix_bytes(num_rows, num_cols));
  const int64_t all_cols = num_tiles(num_cols) * kTileCols;
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t col = 0; col < all_cols; ++col) {
      const Bf16 value = col < num_cols ? matrix[row * num_cols + col] : Bf16{};
      std::memcpy(to + tiled_offset(row, col, num_cols), &value, 2);
    }
  }
}

ExpertLayout layout_of(int64_t hidden, int64_t intermediate) {
  const int64_t gate_bytes = tiled_matrix_bytes(intermediate, hidden);
  return {hidden, intermediate, gate_bytes, 2 * gate_bytes,
          2 * gate_bytes + tiled_matrix_bytes(hidden, intermediate)};
}

void pack_block(const Matrices& matrices, std::byte* block) {
  const ExpertLayout layout = layout_of(matrices.hidden, matrices.intermediate);
  pack_on_host(matrices.gate, matrices.intermediate, matrices.hidden, block);
  pack_on_host(matrices.up, matrices.intermediate, matrices.hidden, block + layout.up_offset);
  pack_on_host(matrices.down, matrices.hidden, matrices.intermediate, block + layout.down_offset);
}

// silu(gate x) * (up x), then down, in float64.
std::vector<double> run_on_host(const Matrices& matrices, const float* x) {
  std::vector<double> h(matrices.intermediate);
  for (int64_t i = 0; i < matrices.intermediate; ++i) {
    double gate = 0;
    double up = 0;
    for (int64_t j = 0; j < matrices.hidden; ++j) {
      gate += double{to_float(matrices.gate[i * matrices.hidden + j])} * x[j];
      up += double{to_float(matrices.up[i * matrices.hidden + j])} * x[j];
    }
    h[i] = gate / (1 + std::exp(-gate)) * up;
  }
  std::vector<double> out(matrices.hidden);
  for (int64_t i = 0; i < matrices.hidden; ++i) {
    for (int64_t j = 0; j < matrices.intermediate; ++j) {
      out[i] += double{to_float(matrices.down[i * matrices.intermediate + j])} * h[j];
    }
  }
  return out;
}

::testing::AssertionResult rows_are_near(const std::vector<float>& actual,
                                         const std::vector<double>& expected,
                                         int64_t num_cols) {
  for (size_t start = 0; start < expected.size(); start += num_cols) {
    const auto row = expected.begin() + static_cast<int64_t>(start);
    const double rms = std::sqrt(std::inner_product(row, row + num_cols, row, 0.0) /
                                 static_cast<double>(num_cols));
    for (int64_t col = 0; col < num_cols; ++col) {
      const double want = expected[start + col];
      const double scale = std::max(rms, std::abs(want));
      if (!(std::abs(actual[start + col] - want) <= kTolerance * scale)) {
        return ::testing::AssertionFailure()
               << "row " << start / num_cols << ", column " << col << ": " << actual[start + col]
               << ", expected " << want << ", row's rms " << rms;
      }
    }
  }
  return ::testing::AssertionSuccess();
}

class CudaMoeDecodeTest : public CudaTest, public ::testing::WithParamInterface<Problem> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    if (!device_traits().is_hopper()) GTEST_SKIP() << "not a Hopper GPU";
    state_ = upload(std::vector<std::byte>(moe_decode_state_bytes(128, 8, 512)));
  }

  // Weights, inputs and a routing drawn for the problem.
  void make(const Problem& problem, uint64_t routing_seed = 7) {
    problem_ = problem;
    experts_of_host_.clear();
    const ExpertLayout layout = layout_of(problem.hidden, problem.intermediate);
    const int num_slots = problem.num_experts + 1;
    std::vector<std::byte> pool(num_slots * layout.block_bytes, std::byte{0xFF});
    slots_.resize(problem.num_experts);
    for (int e = 0; e < problem.num_experts; ++e) {
      experts_of_host_.emplace_back(problem.hidden, problem.intermediate, 10 * e + 1);
      slots_[e] = (e + 2) % num_slots;
      pack_block(experts_of_host_.back(), pool.data() + slots_[e] * layout.block_bytes);
    }
    pool_ = upload(pool);
    x_ = Random(3).values(problem.num_tokens * problem.hidden);
    route(routing_seed);
    shared_ = to_floats(Random(5).values(problem.num_tokens * problem.hidden));
  }

  // Token 0 chooses the same whatever the seed.
  void route(uint64_t seed) {
    experts_.clear();
    weights_.clear();
    for (int64_t token = 0; token < problem_.num_tokens; ++token) {
      Random random(token == 0 ? 0 : seed * 1000 + token);
      std::vector<int32_t> order(problem_.num_experts);
      std::iota(order.begin(), order.end(), 0);
      for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
      // Half of the tokens crowd onto the first experts.
      if (token % 2 == 1) std::sort(order.begin(), order.begin() + problem_.top_k);
      for (int choice = 0; choice < problem_.top_k; ++choice) {
        const bool is_left_out = problem_.leaves_out && (token + choice) % 3 == 0;
        const int32_t expert = token % 4 == 1 ? choice : order[choice];
        experts_.push_back(is_left_out ? -1 : expert);
        weights_.push_back(static_cast<float>(random() % 1000) / 1000.0f);
      }
    }
  }

  MoePlan make_plan(int tile_rows) {
    std::vector<int32_t> sorted;
    std::vector<MoeTile> tiles;
    for (int32_t e = 0; e < problem_.num_experts; ++e) {
      const auto first = static_cast<int32_t>(sorted.size());
      for (size_t a = 0; a < experts_.size(); ++a) {
        if (experts_[a] == e) sorted.push_back(static_cast<int32_t>(a));
      }
      const auto end = static_cast<int32_t>(sorted.size());
      for (int32_t start = first; start < end; start += tile_rows) {
        tiles.push_back({e, start, std::min(end - start, tile_rows), slots_[e]});
      }
    }
    const auto num_tiles = static_cast<int32_t>(tiles.size());
    EXPECT_LE(num_tiles,
              max_tiles(static_cast<int64_t>(experts_.size()), problem_.num_experts, tile_rows));
    sorted.resize(experts_.size() + 1, -1);
    tiles.resize(tiles.size() + 1);
    return {upload(sorted), upload(tiles), upload(std::vector<int32_t>{num_tiles}), tile_rows};
  }

  MoeDecodeConfig default_config() const {
    return moe_decode_config(problem_.num_tokens, problem_.top_k, problem_.num_experts,
                             problem_.hidden, problem_.intermediate);
  }

  std::vector<float> run(const MoeDecodeConfig& config) {
    const Problem& p = problem_;
    MoeDecodeArgs args;
    args.moe.x = dense(upload(x_), DType::kBF16, p.num_tokens, p.hidden);
    args.moe.experts = upload(experts_);
    args.moe.weights = upload(weights_);
    args.moe.top_k = p.top_k;
    args.moe.table = {pool_, layout_of(p.hidden, p.intermediate), upload(slots_), p.num_experts};
    if (p.has_shared) {
      args.shared_out = dense(upload(shared_), DType::kF32, p.num_tokens, p.hidden);
    }
    const int64_t count = p.num_tokens * p.hidden;
    if (p.out_dtype == DType::kBF16) {
      args.moe.out = dense(device_array<Bf16>(count), DType::kBF16, p.num_tokens, p.hidden);
    } else {
      args.moe.out = dense(device_array<float>(count), DType::kF32, p.num_tokens, p.hidden);
    }
    args.config = config;
    if (config.needs_plan) args.plan = make_plan(config.tile_rows);
    args.workspace = device_array<std::byte>(
        moe_decode_workspace_bytes(p.num_tokens, p.top_k, p.hidden, p.intermediate));
    args.state = state_;
    sm90_moe_decode(args, stream());
    if (p.out_dtype == DType::kBF16) {
      return to_floats(download(static_cast<const Bf16*>(args.moe.out.data), count));
    }
    return download(static_cast<const float*>(args.moe.out.data), count);
  }

  std::vector<double> expected() const {
    const Problem& p = problem_;
    const std::vector<float> x = to_floats(x_);
    std::vector<double> out(p.num_tokens * p.hidden);
    for (int64_t token = 0; token < p.num_tokens; ++token) {
      double* const row = &out[token * p.hidden];
      for (int choice = 0; choice < p.top_k; ++choice) {
        const int32_t expert = experts_[token * p.top_k + choice];
        if (expert < 0) continue;
        const std::vector<double> part =
            run_on_host(experts_of_host_[expert], &x[token * p.hidden]);
        for (int64_t col = 0; col < p.hidden; ++col) {
          row[col] += double{weights_[token * p.top_k + choice]} * part[col];
        }
      }
      if (p.has_shared) {
        for (int64_t col = 0; col < p.hidden; ++col) row[col] += shared_[token * p.hidden + col];
      }
    }
    return out;
  }

  Problem problem_;
  std::vector<Matrices> experts_of_host_;
  std::vector<int32_t> slots_;
  std::byte* pool_ = nullptr;
  std::vector<Bf16> x_;
  std::vector<int32_t> experts_;
  std::vector<float> weights_;
  std::vector<float> shared_;
  std::byte* state_ = nullptr;
};

TEST_P(CudaMoeDecodeTest, IsNearTheSumInFloat64) {
  make(GetParam());
  EXPECT_TRUE(rows_are_near(run(default_config()), expected(), problem_.hidden));
}

TEST_P(CudaMoeDecodeTest, GivesTheSameBitsAgainAndWhateverTheOtherTokensChoose) {
  make(GetParam());
  const std::vector<float> first = run(default_config());
  EXPECT_EQ(run(default_config()), first);
  route(/*seed=*/8);
  const std::vector<float> other = run(default_config());
  for (int64_t col = 0; problem_.num_tokens > 0 && col < problem_.hidden; ++col) {
    ASSERT_EQ(other[col], first[col]) << "column " << col;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         CudaMoeDecodeTest,
                         ::testing::Values(Problem{0, 2, 4, 64, 64},
                                           Problem{1, 1, 1, 64, 64},
                                           Problem{1, 2, 4, 128, 96},
                                           Problem{1, 4, 6, 50, 23, DType::kBF16, true},
                                           Problem{1, 8, 16, 512, 192, DType::kF32, true, true},
                                           Problem{1, 1, 3, 64, 64, DType::kF32, false, true},
                                           Problem{2, 2, 2, 64, 200},
                                           Problem{3, 1, 1, 72, 40},
                                           Problem{7, 3, 9, 200, 130, DType::kBF16, true, true},
                                           Problem{8, 4, 16, 256, 128},
                                           Problem{13, 2, 5, 321, 65, DType::kF32, true},
                                           Problem{29, 4, 8, 192, 256, DType::kBF16, false, true},
                                           Problem{64, 2, 4, 128, 64},
                                           Problem{128, 4, 8, 128, 192, DType::kBF16, true}));

// Every cut of the work gives the same result but for the order of sums.
TEST_F(CudaMoeDecodeTest, IsRightForEveryConfig) {
  make({40, 3, 6, 320, 192, DType::kF32, true, true});
  const std::vector<double> want = expected();
  for (const int tile_rows : {8, 16, 32, 64}) {
    for (const int gate_up_rows : {16, 32, 64}) {
      for (const int down_rows : {16, 32, 64}) {
        if (std::min(gate_up_rows, down_rows) < (tile_rows == 64 ? 32 : 16)) continue;
        MoeDecodeConfig config = default_config();
        config.tile_rows = tile_rows;
        config.gate_up_rows = gate_up_rows;
        config.down_rows = down_rows;
        config.is_paired = down_rows == 32;
        EXPECT_TRUE(rows_are_near(run(config), want, problem_.hidden)) << config.to_string();
      }
    }
  }
}

// Steps follow one another in a stream, the next kernel's blocks beside the last one's, and use the
// same workspace and state.
TEST_F(CudaMoeDecodeTest, CallsInARowDoNotDisturbEachOther) {
  constexpr int kCalls = 50;
  for (const int64_t num_tokens : {1, 9}) {
    make({num_tokens, 4, 8, 256, 128});
    const Problem& p = problem_;
    const int64_t count = num_tokens * p.hidden;
    const std::vector<float> alone = run(default_config());
    MoeDecodeArgs args;
    args.moe.experts = upload(experts_);
    args.moe.weights = upload(weights_);
    args.moe.top_k = p.top_k;
    args.moe.table = {pool_, layout_of(p.hidden, p.intermediate), upload(slots_), p.num_experts};
    args.config = default_config();
    args.plan = make_plan(args.config.tile_rows);
    args.state = state_;
    args.workspace = device_array<std::byte>(
        moe_decode_workspace_bytes(num_tokens, p.top_k, p.hidden, p.intermediate));
    // Each call has another x; every second one the first.
    std::vector<Bf16*> xs;
    std::vector<float*> outs;
    for (int call = 0; call < kCalls; ++call) {
      xs.push_back(upload(call % 2 == 0 ? x_ : Random(100 + call).values(count)));
      outs.push_back(device_array<float>(count));
    }
    for (int call = 0; call < kCalls; ++call) {
      args.moe.x = dense(xs[call], DType::kBF16, num_tokens, p.hidden);
      args.moe.out = dense(outs[call], DType::kF32, num_tokens, p.hidden);
      sm90_moe_decode(args, stream());
    }
    for (int call = 0; call < kCalls; call += 2) {
      ASSERT_EQ(download(outs[call], count), alone) << num_tokens << " tokens, call " << call;
    }
  }
}

// The cut of one token's work too, whose down runs beside gate and up when they are paired.
TEST_F(CudaMoeDecodeTest, IsRightForEveryConfigOfOneToken) {
  make({1, 4, 9, 320, 448, DType::kBF16, true, true});
  const std::vector<double> want = expected();
  for (const int gate_up_rows : {16, 32, 64}) {
    for (const int down_rows : {16, 32, 64}) {
      for (const bool is_paired : {false, true}) {
        MoeDecodeConfig config = default_config();
        config.gate_up_rows = gate_up_rows;
        config.down_rows = down_rows;
        config.is_paired = is_paired;
        EXPECT_TRUE(rows_are_near(run(config), want, problem_.hidden)) << config.to_string();
      }
    }
  }
}

struct MlpShape {
  int64_t num_tokens;
  int64_t hidden;
  int64_t intermediate;
  DType out_dtype;
};

class CudaMlpDecodeTest : public CudaTest, public ::testing::WithParamInterface<MlpShape> {};

TEST_P(CudaMlpDecodeTest, IsNearTheSumInFloat64) {
  if (!device_traits().is_hopper()) GTEST_SKIP() << "not a Hopper GPU";
  const auto [num_tokens, hidden, intermediate, out_dtype] = GetParam();
  const Matrices matrices(hidden, intermediate, 17);
  const ExpertLayout layout = layout_of(hidden, intermediate);
  std::vector<std::byte> block(layout.block_bytes);
  pack_block(matrices, block.data());
  const std::vector<Bf16> x = Random(18).values(num_tokens * hidden);
  MlpDecodeArgs args;
  args.mlp.x = dense(upload(x), DType::kBF16, num_tokens, hidden);
  args.mlp.weights = layout.view(upload(block));
  const int64_t count = num_tokens * hidden;
  args.mlp.out = dense(device_array<float>(count), out_dtype, num_tokens, hidden);
  args.config = mlp_decode_config(num_tokens, hidden, intermediate);
  args.workspace =
      device_array<std::byte>(moe_decode_workspace_bytes(num_tokens, 1, hidden, intermediate));
  args.state = upload(std::vector<std::byte>(moe_decode_state_bytes(num_tokens, 1, intermediate)));
  sm90_mlp_decode(args, stream());
  const std::vector<float> actual =
      out_dtype == DType::kBF16
          ? to_floats(download(static_cast<const Bf16*>(args.mlp.out.data), count))
          : download(static_cast<const float*>(args.mlp.out.data), count);
  std::vector<double> want;
  const std::vector<float> floats = to_floats(x);
  for (int64_t token = 0; token < num_tokens; ++token) {
    const std::vector<double> row = run_on_host(matrices, &floats[token * hidden]);
    want.insert(want.end(), row.begin(), row.end());
  }
  EXPECT_TRUE(rows_are_near(actual, want, hidden));
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         CudaMlpDecodeTest,
                         ::testing::Values(MlpShape{0, 64, 64, DType::kF32},
                                           MlpShape{1, 64, 64, DType::kF32},
                                           MlpShape{1, 1000, 300, DType::kBF16},
                                           MlpShape{5, 130, 70, DType::kF32},
                                           MlpShape{17, 256, 192, DType::kBF16},
                                           MlpShape{33, 512, 128, DType::kF32},
                                           MlpShape{100, 128, 320, DType::kBF16}));

TEST(MoeDecodeConfigTest, CutsTheWorkFinerTheLessThereIs) {
  const MoeDecodeConfig one = moe_decode_config(1, 8, 128, 2048, 768);
  EXPECT_EQ(one.tile_rows, 8);
  EXPECT_EQ(one.gate_up_rows, 16);
  EXPECT_EQ(one.down_rows, 16);
  const MoeDecodeConfig many = moe_decode_config(128, 8, 128, 2048, 768);
  EXPECT_EQ(many.tile_rows, 64);
  EXPECT_EQ(many.gate_up_rows, 64);
  EXPECT_EQ(many.down_rows, 64);
}

TEST(MoeDecodeConfigTest, NeedsAPlanUnlessOneWarpHoldsAllChoices) {
  EXPECT_FALSE(moe_decode_config(1, 32, 64, 256, 64).needs_plan);
  EXPECT_TRUE(moe_decode_config(1, 33, 64, 256, 64).needs_plan);
  EXPECT_TRUE(moe_decode_config(2, 1, 1, 256, 64).needs_plan);
  EXPECT_FALSE(mlp_decode_config(64, 2048, 768).needs_plan);
}

TEST(MoeDecodeConfigTest, PairsBlocksWhereDownSumsAndThereIsMuchToRead) {
  EXPECT_TRUE(moe_decode_config(1, 8, 128, 2048, 768).is_paired);
  EXPECT_FALSE(moe_decode_config(8, 8, 128, 2048, 768).is_paired);
  EXPECT_TRUE(mlp_decode_config(8, 4096, 14336).is_paired);
  EXPECT_FALSE(mlp_decode_config(8, 4096, 1408).is_paired);
}

}  // namespace
}  // namespace augur::cuda
