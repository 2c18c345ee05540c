#include "kernels/cuda/prefill_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ostream>
#include <random>
#include <string>

#include "kernels/cuda/kv_layout.h"
#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

struct Sequence {
  int num_rows;
  int context_len;
};

struct Problem {
  std::string name;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int block_size;
  std::vector<Sequence> sequences;
  int window = 0;
  bool has_sinks = false;
  float q_amplitude = 2;  // 16: weights so uneven that the maxima keep rising on the way
  int num_extra_rows = 0;
};
void PrintTo(const Problem& problem, std::ostream* out) {
  *out << problem.name;
}

enum class Kernel { kMma, kSm90 };

// A problem in host memory, and what it should give.
struct HostProblem {
  explicit HostProblem(const Problem& problem, unsigned seed = 1) : shape(problem) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> unit(-1, 1);
    query_start.push_back(0);
    int num_blocks = 1;  // block 0 is nobody's
    size_t table_width = 1;
    for (const auto [num_rows, length] : problem.sequences) {
      query_start.push_back(query_start.back() + num_rows);
      context_len.push_back(length);
      const int count = (length + problem.block_size - 1) / problem.block_size;
      num_blocks += count;
      table_width = std::max<size_t>(table_width, count);
    }
    num_tokens = query_start.back() + problem.num_extra_rows;
    block_table.assign(table_width * problem.sequences.size(), -1);
    block_table_stride = static_cast<int64_t>(table_width);
    // Every other sequence has its blocks in falling order.
    int next_block = 1;
    for (size_t s = 0; s < problem.sequences.size(); ++s) {
      const int count = (context_len[s] + problem.block_size - 1) / problem.block_size;
      for (int i = 0; i < count; ++i) {
        block_table[s * table_width + i] = next_block + (s % 2 == 0 ? i : count - 1 - i);
      }
      next_block += count;
    }
    q.resize(int64_t{num_tokens} * problem.num_heads * problem.head_dim);
    for (Bf16& value : q) value = to_bf16(unit(random) * problem.q_amplitude);
    for (int head = 0; head < problem.num_heads; ++head) sinks.push_back(unit(random) * 3);
    // What no sequence may read is NaN.
    block_bytes = kv_block_bytes(problem.block_size, problem.num_kv_heads, problem.head_dim);
    cache.assign(num_blocks * block_bytes, std::byte{0xFF});
    const int padded_dim = num_kv_groups(problem.head_dim) * kKvGroupCols;
    for (size_t s = 0; s < problem.sequences.size(); ++s) {
      for (int position = 0; position < context_len[s]; ++position) {
        for (int head = 0; head < problem.num_kv_heads; ++head) {
          for (int is_value = 0; is_value < 2; ++is_value) {
            for (int col = 0; col < padded_dim; ++col) {
              cache_value(s, position, head, is_value, col) =
                  col < problem.head_dim ? to_bf16(unit(random)) : Bf16{};
            }
          }
        }
      }
    }
  }

  Bf16& cache_value(size_t sequence, int position, int head, int is_value, int col) {
    const int64_t block = block_table[sequence * block_table_stride + position / shape.block_size];
    return *reinterpret_cast<Bf16*>(
        cache.data() + block * block_bytes + is_value * (block_bytes / 2) +
        kv_head_offset(shape.block_size, shape.head_dim, head) +
        kv_value_offset(shape.block_size, position % shape.block_size, col));
  }

  float scale() const { return 1 / std::sqrt(static_cast<float>(shape.head_dim)); }

  Problem shape;
  int num_tokens = 0;
  std::vector<int32_t> query_start;
  std::vector<int32_t> context_len;
  std::vector<int32_t> block_table;
  int64_t block_table_stride = 0;
  std::vector<Bf16> q;
  std::vector<float> sinks;
  std::vector<std::byte> cache;
  int64_t block_bytes = 0;
};

class CudaPrefillAttentionTest : public CudaTest {
 protected:
  PrefillAttentionArgs upload_problem(const HostProblem& host) {
    const int64_t width = int64_t{host.shape.num_heads} * host.shape.head_dim;
    return {.attention = {.q = dense(upload(host.q), DType::kBF16, host.num_tokens, width),
                          .num_heads = host.shape.num_heads,
                          .scale = host.scale(),
                          .cache = {.data = upload(host.cache),
                                    .num_blocks =
                                        static_cast<int64_t>(host.cache.size()) / host.block_bytes,
                                    .block_size = host.shape.block_size,
                                    .num_kv_heads = host.shape.num_kv_heads,
                                    .head_dim = host.shape.head_dim},
                          .batch = {.num_seqs = static_cast<int>(host.context_len.size()),
                                    .num_tokens = host.num_tokens,
                                    .query_start = upload(host.query_start),
                                    .context_len = upload(host.context_len),
                                    .block_table = upload(host.block_table),
                                    .block_table_stride = host.block_table_stride},
                          .out = dense(device_array<Bf16>(host.num_tokens * width), DType::kBF16,
                                       host.num_tokens, width)},
            .window = host.shape.window,
            .sinks = host.shape.has_sinks ? upload(host.sinks) : nullptr};
  }

  std::vector<Bf16> run(Kernel kernel, const PrefillAttentionArgs& args) {
    if (kernel == Kernel::kMma) {
      mma_prefill_attention(args, stream());
    } else {
      sm90_prefill_attention(args, stream());
    }
    const Tensor& out = args.attention.out;
    return download(out.row<const Bf16>(0), out.num_rows * out.num_cols);
  }

  static bool can_run(Kernel kernel) {
    return kernel == Kernel::kMma || device_traits().is_hopper();
  }
};

// Compares with a softmax in float64. An output is a mean of values whose weights were rounded to
// bf16 (a relative error of up to 2^-8 each), and is itself rounded to bf16: together at most 2^-7
// of the mean of the absolute values. An eighth more is for float32 scores and exp2.
void expect_attention(HostProblem& host, const std::vector<Bf16>& actual) {
  constexpr double kTolerance = 1.125 / 128;
  const Problem& shape = host.shape;
  const int64_t width = int64_t{shape.num_heads} * shape.head_dim;
  int num_wrong = 0;
  std::vector<double> weights;
  std::vector<double> mean(shape.head_dim);
  std::vector<double> mean_abs(shape.head_dim);
  std::vector<float> keys;
  std::vector<float> values;
  for (size_t s = 0; s < shape.sequences.size(); ++s) {
    const auto [num_rows, length] = shape.sequences[s];
    for (int kv_head = 0; kv_head < shape.num_kv_heads; ++kv_head) {
      keys.clear();
      values.clear();
      for (int position = 0; position < length; ++position) {
        for (int col = 0; col < shape.head_dim; ++col) {
          keys.push_back(to_float(host.cache_value(s, position, kv_head, 0, col)));
          values.push_back(to_float(host.cache_value(s, position, kv_head, 1, col)));
        }
      }
      const int group_size = shape.num_heads / shape.num_kv_heads;
      for (int i = 0; i < num_rows * group_size; ++i) {
        const int token = i / group_size;
        const int head = kv_head * group_size + i % group_size;
        const int64_t offset =
            (host.query_start[s] + token) * width + int64_t{head} * shape.head_dim;
        const int last = length - num_rows + token;
        const int begin = shape.window == 0 ? 0 : std::max(0, last - shape.window + 1);
        double largest = shape.has_sinks ? host.sinks[head] : -INFINITY;
        weights.assign(std::max(0, last + 1), 0);
        for (int position = begin; length > 0 && position <= last; ++position) {
          double score = 0;
          for (int col = 0; col < shape.head_dim; ++col) {
            score += double{to_float(host.q[offset + col])} *
                     keys[int64_t{position} * shape.head_dim + col];
          }
          weights[position] = score * host.scale();
          largest = std::max(largest, weights[position]);
        }
        double sum = shape.has_sinks ? std::exp(host.sinks[head] - largest) : 0;
        mean.assign(shape.head_dim, 0);
        mean_abs.assign(shape.head_dim, 0);
        for (int position = begin; length > 0 && position <= last; ++position) {
          const double weight = std::exp(weights[position] - largest);
          sum += weight;
          for (int col = 0; col < shape.head_dim; ++col) {
            const double value = values[int64_t{position} * shape.head_dim + col];
            mean[col] += weight * value;
            mean_abs[col] += weight * std::abs(value);
          }
        }
        for (int col = 0; col < shape.head_dim; ++col) {
          const double expected = length > 0 ? mean[col] / sum : 0;
          const double bound = length > 0 ? kTolerance * mean_abs[col] / sum + 1e-6 : 0;
          const double value = to_float(actual[offset + col]);
          if (!(std::abs(value - expected) <= bound) && ++num_wrong <= 5) {
            ADD_FAILURE() << "sequence " << s << " token " << token << " head " << head
                          << " column " << col << ": " << value << ", expected " << expected
                          << " within " << bound;
          }
        }
      }
    }
  }
  EXPECT_EQ(num_wrong, 0);
  for (int64_t i = host.query_start.back() * width; i < std::ssize(actual); ++i) {
    ASSERT_EQ(actual[i].bits, 0xFFFF) << "row " << i / width << " is nobody's and was written";
  }
}

class CudaPrefillAttentionShapes
    : public CudaPrefillAttentionTest,
      public ::testing::WithParamInterface<std::tuple<Kernel, Problem>> {};

TEST_P(CudaPrefillAttentionShapes, IsTheSoftmaxOfFloat64) {
  const auto& [kernel, problem] = GetParam();
  if (!can_run(kernel)) GTEST_SKIP() << "not a Hopper GPU";
  HostProblem host(problem);
  expect_attention(host, run(kernel, upload_problem(host)));
}

const std::vector<Problem>& problems() {
  static const std::vector<Problem> kProblems = {
      {"one_row", 1, 1, 64, 64, {{1, 1}}},
      {"one_tile", 1, 1, 128, 64, {{128, 128}}},
      {"one_tile_of_64", 1, 1, 64, 64, {{128, 128}}},
      {"no_groups", 2, 2, 128, 64, {{300, 300}}},
      {"groups_of_8", 16, 2, 128, 64, {{130, 130}}},
      {"groups_of_12", 24, 2, 128, 64, {{77, 77}}},
      {"groups_of_7", 7, 1, 64, 64, {{91, 391}}},
      {"chunk", 8, 2, 128, 64, {{65, 1000}}},
      {"long_chunk", 4, 4, 128, 64, {{257, 1025}}},
      {"ragged",
       8,
       2,
       128,
       64,
       {{1, 1}, {1, 700}, {0, 0}, {33, 33}, {3, 0}, {200, 455}, {64, 64}, {1, 64}, {127, 128}}},
      {"ragged_of_64",
       8,
       1,
       64,
       64,
       {{0, 0}, {5, 900}, {1, 65}, {2, 0}, {300, 300}, {1, 1}, {129, 641}}},
      {"forty_sequences", 4, 2, 64, 32, std::vector<Sequence>(40, {17, 50})},
      // More tiles than multiprocessors, of one step and of several, so that blocks take many.
      {"many_tiles_of_one_step", 4, 4, 64, 32, std::vector<Sequence>(300, {20, 45})},
      {"many_tiles", 4, 4, 128, 64, std::vector<Sequence>(120, {8, 300})},
      {"many_wide_tiles", 4, 4, 256, 64, std::vector<Sequence>(100, {8, 150})},
      {"many_tiles_of_all_lengths", 4, 4, 128, 64,
       [] {
         std::vector<Sequence> sequences;
         for (int i = 0; i < 150; ++i)
           sequences.push_back({i % 7, i % 5 == 0 ? 0 : i * 7 % 500 + 7});
         return sequences;
       }()},
      // So many rows that narrow heads get larger tiles.
      {"larger_tiles", 16, 4, 16, 64, {{1280, 1280}}},
      {"larger_tiles_ragged", 16, 4, 64, 64, {{1000, 1100}, {60, 460}}, 100, true},
      {"larger_tiles_in_rounds", 32, 8, 64, 64, {{0, 0}, {1400, 1700}, {697, 697}, {3, 0}}, 100},
      {"blocks_of_16", 8, 2, 128, 16, {{100, 333}, {40, 40}, {1, 17}}},
      {"blocks_of_48", 8, 2, 128, 48, {{100, 333}, {48, 96}, {1, 49}}},
      {"blocks_of_128", 8, 2, 128, 128, {{100, 333}, {128, 256}, {1, 129}}},
      {"blocks_of_256", 4, 4, 64, 256, {{100, 600}, {128, 256}}},
      {"window", 8, 2, 128, 64, {{200, 700}, {300, 300}, {1, 500}}, 100},
      {"window_of_1", 4, 2, 128, 64, {{140, 140}}, 1},
      {"window_of_128", 4, 1, 64, 64, {{150, 600}, {129, 129}}, 128},
      {"window_longer_than_all", 4, 1, 64, 64, {{150, 600}}, 5000},
      {"sinks", 8, 2, 64, 64, {{130, 200}, {1, 1}, {2, 0}}, 0, true},
      {"sinks_and_window", 16, 2, 64, 64, {{130, 400}}, 128, true},
      {"uneven_weights", 8, 2, 128, 64, {{300, 1200}}, 0, false, 16},
      {"uneven_weights_and_sinks", 8, 2, 64, 64, {{300, 900}}, 200, true, 16},
      {"columns_16", 4, 2, 16, 16, {{50, 50}, {7, 100}}},
      {"columns_32", 4, 1, 32, 64, {{150, 190}}},
      {"columns_72", 2, 1, 72, 64, {{150, 190}}},
      {"columns_96", 4, 2, 96, 64, {{150, 190}, {1, 30}}},
      {"columns_192", 4, 2, 192, 64, {{150, 190}, {1, 30}}},
      {"columns_256", 4, 1, 256, 64, {{150, 290}, {1, 30}}},
      {"rows_of_nobody", 4, 2, 128, 64, {{20, 30}}, 0, false, 2, 200},
  };
  return kProblems;
}

INSTANTIATE_TEST_SUITE_P(Mma,
                         CudaPrefillAttentionShapes,
                         ::testing::Combine(::testing::Values(Kernel::kMma),
                                            ::testing::ValuesIn(problems())),
                         [](const auto& info) { return std::get<1>(info.param).name; });
INSTANTIATE_TEST_SUITE_P(Sm90,
                         CudaPrefillAttentionShapes,
                         ::testing::Combine(::testing::Values(Kernel::kSm90),
                                            ::testing::ValuesIn(problems())),
                         [](const auto& info) { return std::get<1>(info.param).name; });

class CudaPrefillAttentionKernels : public CudaPrefillAttentionTest,
                                    public ::testing::WithParamInterface<Kernel> {};

TEST_P(CudaPrefillAttentionKernels, GivesTheSameBitsAgainAndWhateverOtherSequencesHold) {
  const Problem problem{
      "", 8, 2, 128, 64, {{150, 500}, {70, 70}, {1, 200}}, 0, false, /*q_amplitude=*/16};
  if (!can_run(GetParam())) GTEST_SKIP() << "not a Hopper GPU";
  HostProblem host(problem);
  const std::vector<Bf16> first = run(GetParam(), upload_problem(host));
  for (int i = 0; i < 3; ++i) {
    const std::vector<Bf16> again = run(GetParam(), upload_problem(host));
    ASSERT_EQ(std::memcmp(first.data(), again.data(), first.size() * sizeof(Bf16)), 0);
  }
  // The other sequences, and the later rows of the first one, become something else.
  const HostProblem other(problem, /*seed=*/2);
  const int64_t width = int64_t{problem.num_heads} * problem.head_dim;
  constexpr int kKeptRows = 101;
  constexpr int kKeptPositions = 500 - 150 + kKeptRows;
  std::copy(other.q.begin() + kKeptRows * width, other.q.end(), host.q.begin() + kKeptRows * width);
  HostProblem mixed(problem, /*seed=*/2);
  std::copy(host.q.begin(), host.q.end(), mixed.q.begin());
  const int padded_dim = num_kv_groups(problem.head_dim) * kKvGroupCols;
  for (int position = 0; position < kKeptPositions; ++position) {
    for (int head = 0; head < problem.num_kv_heads; ++head) {
      for (int is_value = 0; is_value < 2; ++is_value) {
        for (int col = 0; col < padded_dim; ++col) {
          mixed.cache_value(0, position, head, is_value, col) =
              host.cache_value(0, position, head, is_value, col);
        }
      }
    }
  }
  const std::vector<Bf16> changed = run(GetParam(), upload_problem(mixed));
  EXPECT_EQ(std::memcmp(first.data(), changed.data(), kKeptRows * width * sizeof(Bf16)), 0);
  EXPECT_NE(std::memcmp(first.data(), changed.data(), first.size() * sizeof(Bf16)), 0);
}

INSTANTIATE_TEST_SUITE_P(All,
                         CudaPrefillAttentionKernels,
                         ::testing::Values(Kernel::kMma, Kernel::kSm90),
                         [](const auto& info) {
                           return info.param == Kernel::kMma ? "Mma" : "Sm90";
                         });

TEST_F(CudaPrefillAttentionTest, TakesTheKernelOfTheDeviceAndNothingForNoRows) {
  HostProblem host({"", 8, 2, 128, 64, {{40, 90}, {1, 20}}});
  PrefillAttentionArgs args = upload_problem(host);
  prefill_attention(args, stream());
  expect_attention(host,
                   download(args.attention.out.row<const Bf16>(0), host.num_tokens * 8 * 128));
  args.attention.batch.num_tokens = 0;
  prefill_attention(args, stream());
  AUGUR_CUDA(cudaStreamSynchronize(stream()));
}

TEST_F(CudaPrefillAttentionTest, RefusesWhatItCannotRead) {
  HostProblem host({"", 8, 2, 128, 64, {{40, 90}}});
  const PrefillAttentionArgs args = upload_problem(host);
  const auto expect_refused = [&](auto change) {
    PrefillAttentionArgs changed = args;
    change(changed);
    EXPECT_THROW(prefill_attention(changed, stream()), std::logic_error);
  };
  expect_refused([](auto& a) { a.attention.cache.head_dim = 264; });
  expect_refused([](auto& a) { a.attention.cache.head_dim = 68; });
  expect_refused([](auto& a) { a.attention.cache.block_size = 24; });
  expect_refused([](auto& a) { a.attention.num_heads = 7; });
  expect_refused([](auto& a) { a.attention.q.row_stride = 1025; });
  expect_refused([](auto& a) { a.attention.q.dtype = DType::kF32; });
  expect_refused([](auto& a) { a.attention.out.data = a.attention.out.template row<Bf16>(0) + 1; });
  expect_refused([](auto& a) { a.attention.scale = 0; });
  expect_refused([](auto& a) { a.window = -1; });
}

TEST(PrefillAttentionFlopsTest, CountsPairsOfARowAndAPositionItSees) {
  EXPECT_EQ(prefill_attention_flops(2, 8, 3, 3), 4.0 * 2 * 8 * (1 + 2 + 3));
  EXPECT_EQ(prefill_attention_flops(2, 8, 2, 10), 4.0 * 2 * 8 * (9 + 10));
  EXPECT_EQ(prefill_attention_flops(2, 8, 3, 10, 4), 4.0 * 2 * 8 * (4 + 4 + 4));
}

}  // namespace
}  // namespace augur::cuda
