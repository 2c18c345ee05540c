#include "kernels/cpu/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernels/cpu/row_math.h"
#include "kernels/cpu/row_select.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What turns a logit of one row into its log-probability.
struct RowNorm {
  float largest;
  double log_sum;  // of exp(x - largest), or of how many are +infinity

  float logprob(float logit) const {
    // Also for NaN and where `largest` is infinite, and the difference would be NaN.
    if (!(logit > -kInfinity)) return -kInfinity;
    if (logit == largest) return static_cast<float>(-log_sum);
    return static_cast<float>((double{logit} - largest) - log_sum);
  }
};

RowNorm normalise(const float* logits, int64_t vocab_size) {
  const float largest = row_math().max_value(logits, vocab_size);
  const double sum = largest == kInfinity
                         ? static_cast<double>(std::count(logits, logits + vocab_size, kInfinity))
                         : row_math().sum_exp(logits, vocab_size, largest);
  return {largest, std::log(sum)};
}

}  // namespace

int64_t logprobs_scratch_bytes(int64_t vocab_size, int num_threads) {
  return vocab_size * static_cast<int64_t>(sizeof(Candidate)) * num_threads;
}

void logprobs(const LogprobsArgs& args, WorkerPool& pool, std::span<std::byte> scratch) {
  const Tensor& logits = args.logits;
  const int64_t vocab_size = logits.num_cols;
  const int64_t num_rows = logits.num_rows;
  if (num_rows == 0) return;
  AUGUR_REQUIRE(logits.dtype == DType::kF32 && logits.data != nullptr, "logits must be float32");
  AUGUR_REQUIRE(vocab_size >= 1 && vocab_size <= INT32_MAX, std::to_string(vocab_size));
  AUGUR_REQUIRE(args.top_n >= 0 && args.top_n <= vocab_size, std::to_string(args.top_n));
  AUGUR_REQUIRE((args.targets == nullptr) == (args.target_logprob == nullptr),
                "targets and target_logprob go together");
  AUGUR_REQUIRE(static_cast<int64_t>(scratch.size()) >=
                    logprobs_scratch_bytes(vocab_size, pool.num_threads()),
                std::to_string(scratch.size()) + " bytes of scratch");
  if (args.targets != nullptr) {
    for (int64_t row = 0; row < num_rows; ++row) {
      AUGUR_REQUIRE(args.target_of(row) >= -1 && args.target_of(row) < vocab_size,
                    "target " + std::to_string(args.target_of(row)) + " of row " +
                        std::to_string(row) + ", vocabulary of " + std::to_string(vocab_size));
    }
  }

  auto* const all_candidates = reinterpret_cast<Candidate*>(scratch.data());
  pool.parallel_for(num_rows, [&](int64_t row, int worker_idx) {
    const float* const x = logits.row<float>(row);
    const RowNorm norm = normalise(x, vocab_size);
    if (args.targets != nullptr) {
      const int32_t target = args.target_of(row);
      args.target_logprob[row] = target < 0 ? 0 : norm.logprob(x[target]);
    }
    if (args.top_n == 0) return;
    Candidate* const best = all_candidates + worker_idx * vocab_size;
    select_top(row_math(), x, vocab_size, args.top_n, best);
    std::sort(best, best + args.top_n, is_better);
    for (int i = 0; i < args.top_n; ++i) {
      args.top_ids[row * args.top_n + i] = best[i].id;
      args.top_logprobs[row * args.top_n + i] = norm.logprob(best[i].logit);
    }
  });
}

}  // namespace augur::cpu
