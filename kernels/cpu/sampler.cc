#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernels/cpu/philox.h"
#include "kernels/cpu/row_math.h"
#include "kernels/cpu/row_select.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct WeightedCandidate {
  Candidate candidate;
  float weight;
};

// One worker's scratch, each for `vocab_size` entries.
struct RowScratch {
  float* adjusted;  // logits after bias and penalties
  int32_t* counts;  // of tokens in the history
  int32_t* ids;     // tokens still in the draw, rising
  float* weights;   // of those: exp((logit - largest) / temperature)
  // One after the other: candidates of top_k, then of top_p.
  Candidate* candidates;
  WeightedCandidate* weighted;
};

constexpr int64_t kBytesPerToken = 16 + sizeof(WeightedCandidate);

int64_t worker_bytes(int64_t vocab_size) {
  return (vocab_size * kBytesPerToken + 63) / 64 * 64;
}

RowScratch row_scratch(std::span<std::byte> scratch, int64_t vocab_size, int worker_idx) {
  std::byte* const base = scratch.data() + worker_idx * worker_bytes(vocab_size);
  const auto part = [&](int64_t idx) { return base + idx * vocab_size * 4; };
  return {reinterpret_cast<float*>(part(0)),     reinterpret_cast<int32_t*>(part(1)),
          reinterpret_cast<int32_t*>(part(2)),   reinterpret_cast<float*>(part(3)),
          reinterpret_cast<Candidate*>(part(4)), reinterpret_cast<WeightedCandidate*>(part(4))};
}

// A token is kept if it is `worst` or better. Every filter is such a cut, so the filters together
// are the tightest of them.
struct Cut {
  Candidate worst = {-kInfinity, -1};  // everything above -infinity

  bool keeps(float logit, int32_t id) const {
    return logit > worst.logit || (logit == worst.logit && id <= worst.id);
  }
  void tighten(const Candidate& other) {
    if (is_better(other, worst)) worst = other;
  }
};

void penalise_repetition(const SamplingRow& row, float* logits, int32_t* counts) {
  const auto histories = {row.prompt_ids, row.output_ids};
  for (const auto& ids : histories) {
    for (const int32_t id : ids) counts[id] = 0;
  }
  for (const auto& ids : histories) {
    for (const int32_t id : ids) {
      if (counts[id]++ > 0) continue;
      float& logit = logits[id];
      logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    }
  }
}

void penalise_output(const SamplingRow& row, float* logits, int32_t* counts) {
  for (const int32_t id : row.output_ids) counts[id] = 0;
  for (const int32_t id : row.output_ids) ++counts[id];
  for (const int32_t id : row.output_ids) {
    if (counts[id] == 0) continue;
    logits[id] -= row.presence_penalty + row.frequency_penalty * static_cast<float>(counts[id]);
    counts[id] = 0;  // once per token
  }
}

// The logits after bias and penalties; `logits` themselves where there are none.
const float* adjust(const SamplingRow& row,
                    const float* logits,
                    int64_t vocab_size,
                    const RowScratch& scratch) {
  if (row.logit_bias.empty() && !row.penalises_repetition() && !row.counts_output()) return logits;
  std::copy(logits, logits + vocab_size, scratch.adjusted);
  for (const LogitBias& bias : row.logit_bias) scratch.adjusted[bias.token_id] += bias.bias;
  if (row.penalises_repetition()) penalise_repetition(row, scratch.adjusted, scratch.counts);
  if (row.counts_output()) penalise_output(row, scratch.adjusted, scratch.counts);
  return scratch.adjusted;
}

int32_t lowest_allowed(const SamplingRow& row, int64_t vocab_size) {
  for (int32_t id = 0; id < vocab_size; ++id) {
    const bool is_forbidden = std::any_of(
        row.logit_bias.begin(), row.logit_bias.end(),
        [&](const LogitBias& bias) { return bias.token_id == id && bias.bias == -kInfinity; });
    if (!is_forbidden) return id;
  }
  return 0;
}

// Tokens within the cut, ids rising, their logits in `weights`. Without branches: which tokens
// are kept is not predictable.
int64_t gather_kept(const float* logits, int64_t vocab_size, const Cut& cut, const RowScratch& to) {
  int64_t count = 0;
  for (int64_t i = 0; i < vocab_size; ++i) {
    to.ids[count] = static_cast<int32_t>(i);
    to.weights[count] = logits[i];
    count += cut.keeps(logits[i], static_cast<int32_t>(i)) ? 1 : 0;
  }
  return count;
}

double sum(const float* weights, int64_t count) {
  constexpr int kStrands = 8;
  double strands[kStrands] = {};
  int64_t i = 0;
  for (; i + kStrands <= count; i += kStrands) {
    for (int s = 0; s < kStrands; ++s) strands[s] += weights[i + s];
  }
  for (; i < count; ++i) strands[0] += weights[i];
  double total = 0;
  for (const double strand : strands) total += strand;
  return total;
}

// The last token of the smallest set, best first, whose weight is at least `needed`. Each round
// moves the better half to the front and goes on in the half that the end lies in.
Candidate end_of_nucleus(WeightedCandidate* tokens, int64_t count, double needed) {
  const auto better = [](const WeightedCandidate& a, const WeightedCandidate& b) {
    return is_better(a.candidate, b.candidate);
  };
  int64_t first = 0;
  int64_t end = count;
  while (end - first > 1) {
    const int64_t middle = first + (end - first) / 2;
    std::nth_element(tokens + first, tokens + middle, tokens + end, better);
    double weight = 0;
    for (int64_t i = first; i < middle; ++i) weight += tokens[i].weight;
    if (weight >= needed) {
      end = middle;
    } else {
      needed -= weight;
      first = middle;
    }
  }
  return tokens[first].candidate;
}

// Keeps of the gathered tokens those that top_p does. Returns how many.
int64_t keep_nucleus(const float* logits, float top_p, int64_t count, const RowScratch& scratch) {
  const double total = sum(scratch.weights, count);
  // Tokens lighter than this hold less than 1 - top_p together, with room for rounding: the
  // nucleus is among the others, which are few unless the row is flat.
  const double floor = (1.0 - top_p) * total / (2.0 * static_cast<double>(count));
  int64_t num_heavy = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (scratch.weights[i] < floor) continue;
    const int32_t id = scratch.ids[i];
    scratch.weighted[num_heavy++] = {{logits[id], id}, scratch.weights[i]};
  }
  const Cut cut = {end_of_nucleus(scratch.weighted, num_heavy, top_p * total)};
  int64_t num_kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t id = scratch.ids[i];
    if (!cut.keeps(logits[id], id)) continue;
    scratch.ids[num_kept] = id;
    scratch.weights[num_kept++] = scratch.weights[i];
  }
  return num_kept;
}

int32_t draw(const RowScratch& scratch, int64_t count, double uniform) {
  constexpr int64_t kBlock = 512;
  const auto block_sum = [&](int64_t start) {
    return sum(scratch.weights + start, std::min(kBlock, count - start));
  };
  double total = 0;
  for (int64_t start = 0; start < count; start += kBlock) total += block_sum(start);
  // Below the total even after rounding, so that some block passes it.
  const double target = std::min(uniform * total, std::nextafter(total, 0.0));
  // Block by block, then token by token. Within a block the sum runs in another order: where
  // rounding keeps it from passing the target, the block's last token that has weight is drawn.
  double passed = 0;
  int64_t last = 0;
  for (int64_t start = 0; start < count; start += kBlock) {
    const double passed_after = passed + block_sum(start);
    if (passed_after > target) {
      for (int64_t i = start; i < std::min(start + kBlock, count); ++i) {
        if (scratch.weights[i] == 0) continue;
        last = i;
        passed += scratch.weights[i];
        if (passed > target) break;
      }
      break;
    }
    passed = passed_after;
  }
  return scratch.ids[last];
}

int32_t sample_row(const SamplingRow& row,
                   const float* row_logits,
                   int64_t vocab_size,
                   const RowScratch& scratch) {
  const RowMath& math = row_math();
  const float* logits = adjust(row, row_logits, vocab_size, scratch);
  float largest = math.max_value(logits, vocab_size);
  if (largest == -kInfinity) return lowest_allowed(row, vocab_size);
  if (row.temperature == 0 || row.top_k == 1) {
    return static_cast<int32_t>(std::find(logits, logits + vocab_size, largest) - logits);
  }
  if (largest == kInfinity) {  // such tokens share the draw, and differences must stay numbers
    std::transform(logits, logits + vocab_size, scratch.adjusted,
                   [](float logit) { return logit == kInfinity ? 0.0f : -kInfinity; });
    logits = scratch.adjusted;
    largest = 0;
  }

  Cut cut;
  if (row.min_p > 0) {
    // p >= min_p * p_max, said of logits.
    const auto lowest =
        static_cast<float>(std::max<double>(largest + std::log(double{row.min_p}) * row.temperature,
                                            std::numeric_limits<float>::lowest()));
    cut.tighten({lowest, std::numeric_limits<int32_t>::max()});
  }
  if (row.top_k > 0 && row.top_k < vocab_size) {
    select_top(math, logits, vocab_size, row.top_k, scratch.candidates);
    cut.tighten(*std::max_element(scratch.candidates, scratch.candidates + row.top_k, is_better));
  }
  int64_t count = gather_kept(logits, vocab_size, cut, scratch);
  // The reciprocal of a tiny temperature must stay finite: 0 times it is the best token's 0.
  const auto scale = static_cast<float>(
      std::min<double>(1.0 / row.temperature, std::numeric_limits<float>::max()));
  math.exp_scaled(scratch.weights, count, largest, scale, scratch.weights);
  if (row.top_p < 1) count = keep_nucleus(logits, row.top_p, count, scratch);
  return draw(scratch, count, uniform_draw(row.seed, row.draw_idx));
}

}  // namespace

int64_t sample_scratch_bytes(int64_t vocab_size, int num_threads) {
  return worker_bytes(vocab_size) * num_threads;
}

void sample(const SampleArgs& args, WorkerPool& pool, std::span<std::byte> scratch) {
  const Tensor& logits = args.logits;
  const int64_t vocab_size = logits.num_cols;
  AUGUR_REQUIRE(static_cast<int64_t>(args.rows.size()) == logits.num_rows,
                std::to_string(args.rows.size()) + " settings for " +
                    std::to_string(logits.num_rows) + " rows of logits");
  if (args.rows.empty()) return;
  AUGUR_REQUIRE(logits.dtype == DType::kF32 && logits.data != nullptr, "logits must be float32");
  AUGUR_REQUIRE(vocab_size >= 1 && vocab_size <= INT32_MAX, std::to_string(vocab_size));
  AUGUR_REQUIRE(
      static_cast<int64_t>(scratch.size()) >= sample_scratch_bytes(vocab_size, pool.num_threads()),
      std::to_string(scratch.size()) + " bytes of scratch");
  for (size_t i = 0; i < args.rows.size(); ++i) require_valid(args.rows[i], vocab_size, i);
  pool.parallel_for(logits.num_rows, [&](int64_t row_idx, int worker_idx) {
    args.token_ids[row_idx] = sample_row(args.rows[row_idx], logits.row<float>(row_idx), vocab_size,
                                         row_scratch(scratch, vocab_size, worker_idx));
  });
}

}  // namespace augur::cpu
