#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <span>

#include "kernels/cpu/philox.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cuda/sampler.h"
#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

enum class Kind { kNormal, kFlat, kTies, kEqual, kOneHuge, kFalling, kForbidden, kNans, kInfinite };
constexpr int kNumKinds = 9;

std::vector<float> make_logits(Kind kind, int64_t vocab_size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, kind == Kind::kFlat ? 0.1f : 3.0f);
  std::vector<float> logits(vocab_size);
  for (int64_t i = 0; i < vocab_size; ++i) {
    logits[i] = normal(random);
    if (kind == Kind::kTies) logits[i] = static_cast<float>(random() % 5);
    if (kind == Kind::kEqual) logits[i] = -2.5f;
    if (kind == Kind::kFalling) logits[i] = 10.0f - static_cast<float>(i) / 500;
    if (kind == Kind::kForbidden && random() % 2 == 0) logits[i] = -kInfinity;
    if (kind == Kind::kNans && random() % 3 == 0) logits[i] = kNan;
    if (kind == Kind::kInfinite && random() % 50 == 0) logits[i] = kInfinity;
  }
  if (kind == Kind::kOneHuge) logits[vocab_size * 2 / 3] = 300;
  return logits;
}

// Settings of all sorts; what they point to is here as well.
class SettingsList {
 public:
  explicit SettingsList(int64_t vocab_size) {
    std::mt19937 random(17);
    const auto any_id = [&] { return static_cast<int32_t>(random() % vocab_size); };
    for (int i = 0; i < 40; ++i) biases_.push_back({any_id(), static_cast<float>(i % 7) - 3});
    biases_.push_back({any_id(), -kInfinity});
    for (int i = 0; i < 700; ++i) prompt_.push_back(any_id());
    for (int i = 0; i < 300; ++i) output_.push_back(i % 3 == 0 ? prompt_[i] : any_id());
    const SamplingRow plain = {.seed = 5};
    const auto add = [&](auto change) {
      SamplingRow row = plain;
      change(row);
      row.draw_idx = rows_.size();
      rows_.push_back(row);
    };
    add([](SamplingRow& row) { row.temperature = 0; });
    for (const float temperature : {1.0f, 0.3f, 4.0f, 1e-20f, 1e30f}) {
      add([=](SamplingRow& row) { row.temperature = temperature; });
    }
    for (const int top_k : {1, 2, 50, 300, 513, 3000, 1 << 20}) {
      add([=](SamplingRow& row) { row.top_k = top_k; });
    }
    for (const float top_p : {1e-7f, 0.1f, 0.5f, 0.9f, 0.999f}) {
      add([=](SamplingRow& row) { row.top_p = top_p; });
    }
    for (const float min_p : {1e-6f, 0.05f, 0.7f, 1.0f}) {
      add([=](SamplingRow& row) { row.min_p = min_p; });
    }
    const auto bias = [this](SamplingRow& row) { row.logit_bias = biases_; };
    const auto penalise = [this](SamplingRow& row) {
      row.prompt_ids = prompt_;
      row.output_ids = output_;
      row.repetition_penalty = 1.3f;
    };
    const auto count = [this](SamplingRow& row) {
      row.output_ids = output_;
      row.presence_penalty = 0.7f;
      row.frequency_penalty = 0.4f;
    };
    add(bias);
    add(penalise);
    add(count);
    add([&](SamplingRow& row) { count(row), row.frequency_penalty = 0, row.temperature = 0; });
    add([&](SamplingRow& row) { count(row), row.presence_penalty = 0, row.temperature = 0; });
    add([&](SamplingRow& row) { bias(row), row.temperature = 0; });
    add([](SamplingRow& row) { row.top_k = 50, row.top_p = 0.9f; });
    add([](SamplingRow& row) { row.top_k = 2000, row.top_p = 0.7f, row.min_p = 0.001f; });
    add([](SamplingRow& row) { row.top_p = 0.6f, row.min_p = 0.02f, row.temperature = 0.7f; });
    const auto all = [&](SamplingRow& row) {
      bias(row), penalise(row), count(row);
      row.temperature = 0.8f, row.top_k = 400, row.top_p = 0.95f, row.min_p = 0.001f;
    };
    add(all);
    add([&](SamplingRow& row) { all(row), row.temperature = 0; });
    add([&](SamplingRow& row) { all(row), row.top_k = 0, row.temperature = 2; });
  }
  const std::vector<SamplingRow>& rows() const { return rows_; }

 private:
  std::vector<LogitBias> biases_;
  std::vector<int32_t> prompt_, output_;
  std::vector<SamplingRow> rows_;
};

class CudaSamplingTest : public CudaTest, public ::testing::WithParamInterface<RowBlocks> {
 protected:
  static constexpr int64_t kMaxListWords = 4096;

  DeviceSampler make_sampler(int64_t max_rows, int64_t vocab_size) {
    return DeviceSampler({max_rows, vocab_size, kMaxListWords, GetParam()});
  }
  std::vector<int32_t> draw(const std::vector<float>& logits,
                            const std::vector<SamplingRow>& rows) {
    const auto num_rows = static_cast<int64_t>(rows.size());
    const int64_t vocab_size = static_cast<int64_t>(logits.size()) / num_rows;
    DeviceSampler sampler = make_sampler(num_rows, vocab_size);
    float* const device_logits = upload(logits);
    int32_t* const ids = device_array<int32_t>(num_rows);
    sampler.sample({dense(device_logits, DType::kF32, num_rows, vocab_size), rows, ids}, stream());
    const auto drawn = download(ids, num_rows);
    const auto after = download(device_logits, num_rows * vocab_size);
    EXPECT_EQ(std::memcmp(after.data(), logits.data(), logits.size() * 4), 0);
    return drawn;
  }
  static std::vector<int32_t> draw_on_cpu(std::vector<float> logits,
                                          const std::vector<SamplingRow>& rows) {
    cpu::WorkerPool pool(4);
    const auto num_rows = static_cast<int64_t>(rows.size());
    const int64_t vocab_size = static_cast<int64_t>(logits.size()) / num_rows;
    std::vector<double> scratch(cpu::sample_scratch_bytes(vocab_size, 4) / 8 + 8);
    auto* const aligned =
        reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
    std::vector<int32_t> ids(num_rows);
    cpu::sample({dense(logits.data(), DType::kF32, num_rows, vocab_size), rows, ids.data()}, pool,
                {aligned, static_cast<size_t>(cpu::sample_scratch_bytes(vocab_size, 4))});
    return ids;
  }
  int32_t draw_one(const std::vector<float>& logits, const SamplingRow& row) {
    return draw(logits, {row})[0];
  }
};

// Where the walk of the CPU's draw would lie on its way through two tokens, of all weight: only
// rounding may choose between tokens next to each other.
double weight_between(const std::vector<float>& logits, float temperature, int32_t a, int32_t b) {
  float largest = -kInfinity;
  for (const float logit : logits) largest = std::fmax(largest, logit);
  double total = 0;
  double between = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > -kInfinity)) continue;
    const double weight = std::exp((double{logits[i]} - largest) / temperature);
    total += weight;
    if (static_cast<int32_t>(i) > std::min(a, b) && static_cast<int32_t>(i) < std::max(a, b)) {
      between += weight;
    }
  }
  return between / total;
}

struct Shape {
  int64_t num_rows;
  int64_t vocab_size;
};

TEST_P(CudaSamplingTest, DrawsTheTokensOfTheCpu) {
  for (const auto& [num_rows, vocab_size] :
       {Shape{64, 1}, Shape{7, 37}, Shape{64, 37}, Shape{1, 4096}, Shape{7, 4099}, Shape{64, 4096},
        Shape{1, 151936}, Shape{7, 151936}, Shape{64, 151936}}) {
    const SettingsList settings(vocab_size);
    const auto num_settings = static_cast<int64_t>(settings.rows().size());
    // Every setting meets every kind of logits; one row of many tokens at a time only some.
    const int64_t num_cases = num_rows == 1 ? num_settings : num_settings * kNumKinds;
    int64_t num_different = 0;
    for (int64_t first = 0; first < num_cases; first += num_rows) {
      std::vector<SamplingRow> rows;
      std::vector<float> logits;
      for (int64_t i = first; i < first + num_rows; ++i) {
        rows.push_back(settings.rows()[i % num_settings]);
        const auto kind = static_cast<Kind>((i + i / num_settings) % kNumKinds);
        const auto row = make_logits(kind, vocab_size, static_cast<uint32_t>(i));
        logits.insert(logits.end(), row.begin(), row.end());
      }
      const auto expected = draw_on_cpu(logits, rows);
      const auto actual = draw(logits, rows);
      for (int64_t i = 0; i < num_rows; ++i) {
        if (actual[i] == expected[i]) continue;
        ++num_different;
        const SamplingRow& row = rows[i];
        const auto start = logits.begin() + i * vocab_size;
        const std::vector<float> row_logits(start, start + vocab_size);
        const bool is_plain = row.temperature > 0 && row.top_k != 1 && row.logit_bias.empty() &&
                              row.output_ids.empty();
        ASSERT_TRUE(is_plain) << "row " << first + i << ": " << actual[i] << ", not "
                              << expected[i];
        ASSERT_LT(weight_between(row_logits, row.temperature, actual[i], expected[i]), 1e-6)
            << "row " << first + i << " of " << vocab_size << ": " << actual[i] << ", not "
            << expected[i];
      }
    }
    EXPECT_LE(num_different, 1 + num_cases / 100) << num_rows << " rows of " << vocab_size;
  }
}

TEST_P(CudaSamplingTest, TakesTheLargestOfPlainRows) {
  for (const auto& [num_rows, vocab_size] :
       {Shape{1, 1}, Shape{3, 37}, Shape{9, 4096}, Shape{2, 262144}, Shape{18, 151936}}) {
    std::vector<float> logits;
    for (int64_t i = 0; i < num_rows; ++i) {
      const auto row = make_logits(static_cast<Kind>(i % kNumKinds), vocab_size, 3);
      logits.insert(logits.end(), row.begin(), row.end());
    }
    if (num_rows > 1) {  // a row without a number above -infinity
      std::fill(logits.begin() + vocab_size, logits.begin() + 2 * vocab_size, kNan);
    }
    std::vector<SamplingRow> rows(num_rows, SamplingRow{.temperature = 0});
    rows[0] = {.top_k = 1};
    EXPECT_EQ(draw(logits, rows), draw_on_cpu(logits, rows));
  }
}

TEST_P(CudaSamplingTest, DrawsFollowTheProbabilities) {
  const std::vector<double> p = {0.4, 0.05, 0.25, 0.0, 0.2, 0.1};
  constexpr int64_t kDraws = 20000;
  struct Case {
    SamplingRow row;
    std::vector<double> kept;
    double limit;  // of chi-square, exceeded once in a thousand
  };
  const std::vector<Case> cases = {
      {{.seed = 7}, p, 18.5},
      {{.top_k = 3, .seed = 8}, {8 / 17.0, 0, 5 / 17.0, 0, 4 / 17.0, 0}, 13.8},
      {{.top_p = 0.8f, .seed = 9}, {8 / 17.0, 0, 5 / 17.0, 0, 4 / 17.0, 0}, 13.8},
      {{.min_p = 0.4f, .seed = 10}, {8 / 17.0, 0, 5 / 17.0, 0, 4 / 17.0, 0}, 13.8}};
  for (const Case& test : cases) {
    std::vector<SamplingRow> rows(kDraws, test.row);
    std::vector<float> logits;
    for (int64_t i = 0; i < kDraws; ++i) {
      rows[i].draw_idx = i;
      for (const double value : p) logits.push_back(static_cast<float>(std::log(value)));
    }
    std::vector<double> counts(p.size());
    for (const int32_t id : draw(logits, rows)) ++counts.at(id);
    double statistic = 0;
    for (size_t id = 0; id < p.size(); ++id) {
      const double expected = test.kept[id] * kDraws;
      if (expected == 0) {
        EXPECT_EQ(counts[id], 0) << id;
      } else {
        statistic += (counts[id] - expected) * (counts[id] - expected) / expected;
      }
    }
    EXPECT_LT(statistic, test.limit);
  }
}

TEST_P(CudaSamplingTest, ManyTokensAreDrawnEvenly) {
  // Through all slices and warps of them.
  constexpr int64_t kVocab = 20000, kDraws = 2000;
  std::vector<SamplingRow> rows(kDraws, SamplingRow{.seed = 11});
  for (int64_t i = 0; i < kDraws; ++i) rows[i].draw_idx = i;
  std::vector<double> buckets(20);
  for (const int32_t id : draw(std::vector<float>(kVocab * kDraws, 3.0f), rows)) {
    ++buckets.at(id / 1000);
  }
  double statistic = 0;
  for (const double count : buckets) statistic += (count - 100) * (count - 100) / 100;
  EXPECT_LT(statistic, 43.8);  // 19 degrees of freedom, once in a thousand
}

TEST_P(CudaSamplingTest, DefinesRowsThatAreNotNumbers) {
  EXPECT_EQ(draw_one({kNan, 1, kNan, 2}, {.temperature = 0}), 3);
  EXPECT_EQ(draw_one({kNan, kNan, -kInfinity}, {}), 0);
  const std::vector<LogitBias> forbid = {{1, -kInfinity}, {0, -kInfinity}};
  EXPECT_EQ(draw_one({kNan, kNan, -kInfinity}, {.logit_bias = forbid}), 2);
  EXPECT_EQ(draw_one({3, 2, -kInfinity}, {.logit_bias = forbid}), 2);
  const std::vector<LogitBias> all = {{0, -kInfinity}, {1, -kInfinity}, {2, -kInfinity}};
  EXPECT_EQ(draw_one({1, 2, 3}, {.logit_bias = all}), 0);
  EXPECT_EQ(draw_one({3, kInfinity}, {.temperature = 0}), 1);
  EXPECT_EQ(draw_one({3, kInfinity, 5}, {.top_k = 2}), 1);
}

TEST_P(CudaSamplingTest, ListsThatDoNotFitAtOnceAreCopiedInTurn) {
  // Every row has nearly as many words as there is room for, so that stages are used again.
  constexpr int64_t kRows = 11, kVocab = 5000;
  std::mt19937 random(18);
  std::vector<std::vector<int32_t>> outputs(kRows);
  std::vector<SamplingRow> rows(kRows);
  std::vector<float> logits;
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kMaxListWords - i; ++j) {
      outputs[i].push_back(static_cast<int32_t>(random() % kVocab));
    }
    rows[i] = {
        .frequency_penalty = 0.5f, .seed = static_cast<uint64_t>(i), .output_ids = outputs[i]};
    const auto row = make_logits(Kind::kNormal, kVocab, static_cast<uint32_t>(i));
    logits.insert(logits.end(), row.begin(), row.end());
  }
  EXPECT_EQ(draw(logits, rows), draw_on_cpu(logits, rows));
}

TEST_P(CudaSamplingTest, CallsQueuedAheadKeepTheirSettings) {
  constexpr int64_t kRows = 6, kVocab = 3000;
  constexpr int kCalls = 20;
  DeviceSampler sampler = make_sampler(kRows, kVocab);
  const auto row_logits = make_logits(Kind::kNormal, kVocab, 19);
  std::vector<float> logits;
  for (int i = 0; i < kRows; ++i) {
    logits.insert(logits.end(), row_logits.begin(), row_logits.end());
  }
  const Tensor on_device = dense(upload(logits), DType::kF32, kRows, kVocab);
  int32_t* const ids = device_array<int32_t>(kRows * kCalls);
  std::vector<int32_t> expected;
  for (int call = 0; call < kCalls; ++call) {
    const std::vector<LogitBias> bias = {{call, 12.0f}};
    std::vector<SamplingRow> rows(kRows);
    for (int i = 0; i < kRows; ++i) {
      rows[i] = {.top_k = i * 20, .seed = 3, .draw_idx = static_cast<uint64_t>(call * kRows + i)};
      if (call % 3 == 0) rows[i].logit_bias = bias;
    }
    sampler.sample({on_device, rows, ids + call * kRows}, stream());
    const auto drawn = draw_on_cpu(logits, rows);
    expected.insert(expected.end(), drawn.begin(), drawn.end());
  }
  EXPECT_EQ(download(ids, kRows * kCalls), expected);
}

TEST_P(CudaSamplingTest, RefusesSettingsOutsideTheirRangesAndTakesNoRows) {
  const std::vector<float> logits = {0, 1};
  const std::vector<int32_t> unknown = {2};
  const std::vector<int32_t> many(kMaxListWords + 1, 1);
  const std::vector<LogitBias> bias = {{-1, 0}};
  for (const SamplingRow& row :
       {SamplingRow{.temperature = -1}, SamplingRow{.temperature = kNan},
        SamplingRow{.temperature = kInfinity}, SamplingRow{.top_k = -1}, SamplingRow{.top_p = 0},
        SamplingRow{.top_p = 1.1f}, SamplingRow{.min_p = -0.1f},
        SamplingRow{.repetition_penalty = 0}, SamplingRow{.presence_penalty = kNan},
        SamplingRow{.logit_bias = bias},
        SamplingRow{.repetition_penalty = 2, .prompt_ids = unknown},
        SamplingRow{.frequency_penalty = 1, .output_ids = unknown},
        SamplingRow{.frequency_penalty = 1, .output_ids = many}}) {
    EXPECT_THROW(draw_one(logits, row), std::logic_error);
  }
  // Histories that no setting reads are not looked at.
  EXPECT_NO_THROW(draw_one(logits, {.prompt_ids = unknown, .output_ids = many}));
  DeviceSampler sampler = make_sampler(4, 2);
  EXPECT_NO_THROW(sampler.sample({dense(nullptr, DType::kF32, 0, 2), {}, nullptr}, stream()));
}

INSTANTIATE_TEST_SUITE_P(Blocks,
                         CudaSamplingTest,
                         ::testing::Values(RowBlocks::kFastest, RowBlocks::kOne));

}  // namespace
}  // namespace augur::cuda
