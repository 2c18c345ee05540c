#include "kernels/cuda/decode_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>

#include "kernels/cuda/decode_attention_plan.h"
#include "kernels/cuda/kv_layout.h"
#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

struct Problem {
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int block_size;
  std::vector<int32_t> contexts;
  int window = 0;
  bool has_sinks = false;
};

std::ostream& operator<<(std::ostream& out, const Problem& p) {
  return out << p.num_heads << " heads of " << p.num_kv_heads << ", dim " << p.head_dim
             << ", blocks of " << p.block_size << ", " << p.contexts.size() << " sequences, window "
             << p.window << (p.has_sinks ? ", sinks" : "");
}

// A problem's data on the host, where its answer is computed, and on the device. Whatever the
// sequences do not own holds NaN: positions past a context, blocks of nobody, the rest of a table.
class DecodeAttentionTest : public CudaTest {
 protected:
  // `draw_key` and so on give the value of (seq, position, head, column).
  using Draw = std::function<float()>;

  void make(const Problem& problem, const Draw& draw_q, const Draw& draw_k, const Draw& draw_v) {
    problem_ = problem;
    const auto num_seqs = static_cast<int>(problem.contexts.size());
    max_context_ = num_seqs == 0 ? 0 : *std::ranges::max_element(problem.contexts);
    const int blocks_per_seq = max_context_ / problem.block_size + 2;
    const int num_blocks = num_seqs * blocks_per_seq;
    std::vector<int32_t> blocks(num_blocks);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random_);
    std::vector<int32_t> table(num_blocks, 1 << 30);
    const int64_t block_bytes =
        kv_block_bytes(problem.block_size, problem.num_kv_heads, problem.head_dim);
    std::vector<std::byte> cache(num_blocks * block_bytes, std::byte{0xFF});
    keys_.assign(num_seqs, {});
    values_.assign(num_seqs, {});
    int next_block = 0;
    for (int seq = 0; seq < num_seqs; ++seq) {
      for (int pos = 0; pos < problem.contexts[seq]; ++pos) {
        int32_t& block = table[seq * blocks_per_seq + pos / problem.block_size];
        if (pos % problem.block_size == 0) block = blocks[next_block++];
        for (int head = 0; head < problem.num_kv_heads; ++head) {
          std::byte* const key = cache.data() + block * block_bytes +
                                 kv_head_offset(problem.block_size, problem.head_dim, head);
          for (int col = 0; col < num_kv_groups(problem.head_dim) * kKvGroupCols; ++col) {
            Bf16 k = {};
            Bf16 v = {};
            if (col < problem.head_dim) {
              k = to_bf16(draw_k());
              v = to_bf16(draw_v());
              keys_[seq].push_back(to_float(k));
              values_[seq].push_back(to_float(v));
            }
            std::byte* const to =
                key + kv_value_offset(problem.block_size, pos % problem.block_size, col);
            std::memcpy(to, &k, 2);
            std::memcpy(to + block_bytes / 2, &v, 2);
          }
        }
      }
    }
    const int64_t cols = int64_t{problem.num_heads} * problem.head_dim;
    queries_.resize(num_seqs * (cols + kPadding));
    for (Bf16& q : queries_) q = to_bf16(draw_q());
    if (problem.has_sinks) {
      for (int i = 0; i < problem.num_heads; ++i) sinks_.push_back(draw_q() * 4);
    }

    AttentionArgs& attention = args_.attention;
    attention.q = {upload(queries_), DType::kBF16, num_seqs, cols, cols + kPadding};
    attention.out = {device_array<Bf16>(num_seqs * (cols + kPadding)), DType::kBF16, num_seqs, cols,
                     cols + kPadding};
    attention.num_heads = problem.num_heads;
    attention.scale = 1 / std::sqrt(static_cast<float>(problem.head_dim));
    attention.cache = {upload(cache), num_blocks, problem.block_size, problem.num_kv_heads,
                       problem.head_dim};
    contexts_ = upload(problem.contexts);
    attention.batch = {num_seqs, num_seqs, nullptr, contexts_, upload(table), blocks_per_seq};
    args_.max_context = max_context_;
    args_.window = problem.window;
    args_.sinks = problem.has_sinks ? upload(sinks_) : nullptr;
    args_.workspace_bytes = decode_attention_workspace_bytes(
        num_seqs, problem.num_heads, problem.num_kv_heads, problem.head_dim, max_context_);
    args_.workspace = device_array<std::byte>(args_.workspace_bytes);
    AUGUR_CUDA(cudaMemsetAsync(args_.workspace, 0, kDecodeAttentionCounterBytes, stream()));
  }

  void make_random(const Problem& problem) {
    std::uniform_real_distribution<float> small(-1, 1);
    // Scores of a few units: the softmax leans on some positions, so that each of those counts.
    make(
        problem, [&] { return 4 * small(random_); }, [&] { return 2 * small(random_); },
        [&] { return small(random_); });
  }

  std::vector<Bf16> run() {
    decode_attention(args_, stream());
    return result();
  }
  std::vector<Bf16> result() {
    const Tensor& out = args_.attention.out;
    return download(static_cast<const Bf16*>(out.data), out.num_rows * out.row_stride);
  }

  // In float64, with the bound of the rounding: of each weight and of the result to bf16.
  void expect_right(const std::vector<Bf16>& actual, const std::vector<int32_t>& contexts) {
    const int group = problem_.num_heads / problem_.num_kv_heads;
    const int dim = problem_.head_dim;
    const int64_t stride = args_.attention.out.row_stride;
    for (size_t seq = 0; seq < contexts.size(); ++seq) {
      const int context = contexts[seq];
      const int first = problem_.window > 0 ? std::max(0, context - problem_.window) : 0;
      for (int head = 0; head < problem_.num_heads; ++head) {
        const auto at = [&](int pos) {
          return (static_cast<int64_t>(pos) * problem_.num_kv_heads + head / group) * dim;
        };
        std::vector<double> weights(context);
        double largest = problem_.has_sinks ? sinks_[head] : -INFINITY;
        for (int pos = first; pos < context; ++pos) {
          double score = 0;
          for (int col = 0; col < dim; ++col) {
            score += to_float(queries_[seq * stride + head * dim + col]) *
                     static_cast<double>(keys_[seq][at(pos) + col]);
          }
          weights[pos] = score * args_.attention.scale;
          largest = std::max(largest, weights[pos]);
        }
        double sum = problem_.has_sinks ? std::exp(sinks_[head] - largest) : 0;
        for (int pos = first; pos < context; ++pos) {
          sum += weights[pos] = std::exp(weights[pos] - largest);
        }
        for (int col = 0; col < dim; ++col) {
          double expected = 0;
          double size = 0;
          for (int pos = first; pos < context; ++pos) {
            const double part = weights[pos] / sum * values_[seq][at(pos) + col];
            expected += part;
            size += std::abs(part);
          }
          const double value = to_float(actual[seq * stride + head * dim + col]);
          const double bound = (std::abs(expected) + size) / 256 + 1e-4;
          ASSERT_NEAR(value, expected, bound)
              << "sequence " << seq << " of " << context << ", head " << head << ", col " << col;
        }
      }
    }
  }

  static constexpr int kPadding = 8;  // between rows

  Problem problem_;
  std::mt19937 random_{7};
  int32_t max_context_ = 0;
  std::vector<std::vector<float>> keys_;  // [seq][position, kv head, column]
  std::vector<std::vector<float>> values_;
  std::vector<Bf16> queries_;
  std::vector<float> sinks_;
  int32_t* contexts_ = nullptr;
  DecodeAttentionArgs args_;
};

class DecodeAttentionShapeTest
    : public DecodeAttentionTest,
      public ::testing::WithParamInterface<std::tuple<DecodeAttentionPath, Problem>> {};

TEST_P(DecodeAttentionShapeTest, IsTheSoftmaxOfScoresTimesValuesEveryTime) {
  const auto& [path, problem] = GetParam();
  if (path == DecodeAttentionPath::kBulk && !device_traits().is_hopper()) GTEST_SKIP();
  make_random(problem);
  args_.path = path;
  const std::vector<Bf16> first = run();
  expect_right(first, problem.contexts);
  for (int i = 0; i < 5; ++i) {
    const std::vector<Bf16> again = run();
    ASSERT_EQ(std::memcmp(first.data(), again.data(), first.size() * sizeof(Bf16)), 0);
  }
}

const std::vector<Problem> kProblems = {
    {32, 4, 128, 64, {}},
    {32, 4, 128, 64, {1}},
    {32, 4, 128, 64, {1000}},
    {32, 4, 128, 64, {5000}},
    {32, 4, 128, 64, {0, 1, 17, 64, 65, 500, 0, 1024, 1025, 2500, 0}},
    {32, 8, 128, 128, {300, 0, 1, 4000}},
    {96, 8, 128, 64, {700, 129, 1, 2000}},
    {64, 8, 64, 64, {31, 33, 1000, 4097}},
    {64, 8, 64, 64, {1, 100, 127, 128, 129, 144, 145, 1000, 0, 3333}, 128, true},
    {64, 8, 64, 16, {900, 15, 16, 2049}, 0, true},
    {16, 16, 128, 48, {1, 700, 95}},
    {6, 2, 16, 16, {1, 40, 300}},
    {8, 2, 32, 32, {3, 31, 33, 1500}, 50},
    {40, 2, 64, 64, {77, 2000}},     // a group of 20: two tiles of rows
    {12, 1, 192, 64, {100, 900}},    // three groups of columns
    {8, 2, 256, 80, {1, 81, 2100}},  // four
    {12, 1, 256, 64, {640}, 0, true},
    {4, 2, 72, 64, {5, 260}},  // a group of columns that is nearly empty
    {4, 4, 128, 64, std::vector<int32_t>(300, 70)},
    {2, 1, 64, 16, std::vector<int32_t>(4096, 3)},  // as many as there may be
    {2, 1, 64, 64, {70'000}},                       // more chunks than are merged in one batch
    {1, 1, 128, 64, {36'000}},
};

INSTANTIATE_TEST_SUITE_P(Shapes,
                         DecodeAttentionShapeTest,
                         ::testing::Combine(::testing::Values(DecodeAttentionPath::kPortable,
                                                              DecodeAttentionPath::kBulk),
                                            ::testing::ValuesIn(kProblems)));

// With a query of zeros every position weighs the same, and exactly: column c of the result counts
// the positions whose value has its one there, so that one missed or seen twice shows.
TEST_F(DecodeAttentionTest, SeesEveryPositionOnce) {
  int draws = 0;
  const Problem problem = {4, 1, 128, 64, {6001, 129, 8191}};
  make(
      problem, [] { return 0.0f; }, [] { return 1.0f; },
      [&] {
        const int pos = draws / 128;
        const int col = draws % 128;
        ++draws;
        return pos % 128 == col ? 1.0f : 0.0f;
      });
  const std::vector<Bf16> actual = run();
  int first_pos = 0;  // of the sequence among all draws
  for (size_t seq = 0; seq < problem.contexts.size(); ++seq) {
    const int context = problem.contexts[seq];
    for (int col = 0; col < 128; ++col) {
      int count = 0;
      for (int pos = first_pos; pos < first_pos + context; ++pos) count += pos % 128 == col;
      const float value = to_float(actual[seq * args_.attention.out.row_stride + col]);
      // Half a unit of bf16's eight bits; one position more or less changes the value by 1.5 %.
      EXPECT_NEAR(value * static_cast<float>(context), count, count / 250.0) << seq << " " << col;
    }
    first_pos += context;
  }
}

TEST_F(DecodeAttentionTest, GivesASequenceTheSameBitsWhateverTheOthersHold) {
  const std::vector<int32_t> contexts = {3000, 700, 64, 1500};
  make_random({32, 4, 128, 64, contexts});
  const std::vector<Bf16> together = run();
  const int64_t stride = args_.attention.out.row_stride;
  const int64_t cols = args_.attention.out.num_cols;
  for (size_t kept = 0; kept < contexts.size(); ++kept) {
    std::vector<int32_t> others = {1, 0, 2999, 65};
    for (size_t seq = 0; seq < contexts.size(); ++seq) {
      others[seq] = seq == kept ? contexts[seq] : std::min(others[seq], contexts[seq]);
    }
    args_.attention.batch.context_len = upload(others);
    const std::vector<Bf16> alone = run();
    EXPECT_EQ(std::memcmp(&alone[kept * stride], &together[kept * stride], cols * sizeof(Bf16)), 0)
        << kept;
  }
}

TEST_F(DecodeAttentionTest, ServesOtherContextsFromOneRecordedLaunch) {
  const std::vector<int32_t> longest = {2000, 1000, 4000};
  make_random({32, 8, 128, 64, longest});
  AUGUR_CUDA(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal));
  decode_attention(args_, stream());
  cudaGraph_t raw_graph = nullptr;
  AUGUR_CUDA(cudaStreamEndCapture(stream(), &raw_graph));
  const Graph graph(raw_graph);
  cudaGraphExec_t raw_exec = nullptr;
  AUGUR_CUDA(cudaGraphInstantiate(&raw_exec, graph.get(), 0));
  const GraphExec exec(raw_exec);
  for (const std::vector<int32_t>& contexts : std::vector<std::vector<int32_t>>{
           longest, {1, 0, 33}, {1999, 1000, 1}, {0, 0, 0}, {640, 1, 4000}, longest}) {
    AUGUR_CUDA(cudaMemcpyAsync(contexts_, contexts.data(), contexts.size() * 4,
                               cudaMemcpyHostToDevice, stream()));
    AUGUR_CUDA(cudaGraphLaunch(exec.get(), stream()));
    expect_right(result(), contexts);
  }
}

TEST_F(DecodeAttentionTest, RefusesAWorkspaceThatIsTooSmall) {
  make_random({32, 4, 128, 64, {5000}});
  args_.workspace_bytes -= 1;
  EXPECT_THROW(decode_attention(args_, stream()), std::logic_error);
}

TEST(SplitRuleTest, CutsLongContextsAndSpreadsFewOverTheDevice) {
  constexpr SplitRule kMany = {.spread = 1, .balance = 2, .fair_tiles = 16, .max_chunks = 33};
  EXPECT_EQ(num_chunks(0, kMany), 0);
  EXPECT_EQ(num_chunks(1, kMany), 1);
  EXPECT_EQ(num_chunks(16, kMany), 1);
  EXPECT_EQ(num_chunks(17, kMany), 2);
  EXPECT_EQ(num_chunks(64, kMany), 2);  // balanced: chunks may be longer
  EXPECT_EQ(num_chunks(65, kMany), 3);  // up to twice as long
  EXPECT_EQ(num_chunks(5000, kMany), 33);
  constexpr SplitRule kAlone = {.spread = 33, .balance = 132, .fair_tiles = 16, .max_chunks = 33};
  EXPECT_EQ(num_chunks(kMinSplitTiles - 1, kAlone), 1);
  EXPECT_EQ(num_chunks(10 * kMinSpreadTiles, kAlone), 10);
  EXPECT_EQ(num_chunks(20 * kMinSpreadTiles, kAlone), kMostSpreadChunks);
  EXPECT_EQ(num_chunks(1000, kAlone), 33);
}

TEST(SplitRuleTest, MakesNoFewerChunksOfMoreTiles) {
  // The workspace is sized by the longest context.
  for (const int spread : {1, 3, 33}) {
    const SplitRule rule = {
        .spread = spread, .balance = 4 * spread, .fair_tiles = 16, .max_chunks = 33};
    for (int tiles = 1; tiles < 3000; ++tiles) {
      EXPECT_GE(num_chunks(tiles, rule), num_chunks(tiles - 1, rule));
      EXPECT_LE(num_chunks(tiles, rule), tiles);
    }
  }
}

}  // namespace
}  // namespace augur::cuda
