#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernels/cpu/reference_checks.h"
#include "kernels/cpu/reference_dense.h"
#include "kernels/cpu/reference_kernels.h"

namespace augur::cpu {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// The scores of one token, on the stack: reference precision is not for more experts than this.
constexpr int kMaxExperts = 1024;

struct TokenScores {
  float score[kMaxExperts];   // what weights are made of
  float choice[kMaxExperts];  // what experts compete by: -infinity for NaN and once chosen or out
};

void score_experts(const RouterArgs& args, const float* logits, TokenScores& scores) {
  const int n = args.num_experts;
  if (args.scoring == RouterScoring::kSigmoid) {
    for (int e = 0; e < n; ++e) scores.score[e] = 1.0f / (1.0f + std::exp(-logits[e]));
  } else {
    float largest = kNegativeInfinity;
    for (int e = 0; e < n; ++e) largest = std::max(largest, logits[e]);
    double total = 0;
    for (int e = 0; e < n; ++e) {
      scores.score[e] = std::exp(logits[e] - largest);
      total += scores.score[e];
    }
    for (int e = 0; e < n; ++e) scores.score[e] = static_cast<float>(scores.score[e] / total);
  }
  for (int e = 0; e < n; ++e) {
    const float choice = scores.score[e] + (args.correction == nullptr ? 0 : args.correction[e]);
    scores.choice[e] = std::isnan(choice) ? kNegativeInfinity : choice;
  }
}

// The sum of the two best choice scores of experts [first, first + size).
float group_score(const float* choice, int first, int size) {
  float best = kNegativeInfinity, second = kNegativeInfinity;
  for (int e = first; e < first + size; ++e) {
    if (choice[e] > best) {
      second = best;
      best = choice[e];
    } else if (choice[e] > second) {
      second = choice[e];
    }
  }
  return size == 1 ? best : best + second;
}

// Index of the largest value that is_open admits, the lowest of equals.
template <typename IsOpen>
int best_open(const float* values, int count, IsOpen&& is_open) {
  int best = -1;
  for (int i = 0; i < count; ++i) {
    if (is_open(i) && (best < 0 || values[i] > values[best])) best = i;
  }
  return best;
}

void route_token(const RouterArgs& args, const float* logits, int64_t token) {
  TokenScores scores;
  score_experts(args, logits, scores);

  bool is_out[kMaxExperts] = {};
  if (args.num_groups > 1) {
    const int group_size = args.num_experts / args.num_groups;
    float group_scores[kMaxExperts];
    bool group_is_in[kMaxExperts] = {};
    for (int g = 0; g < args.num_groups; ++g) {
      group_scores[g] = group_score(scores.choice, g * group_size, group_size);
    }
    for (int i = 0; i < args.top_groups; ++i) {
      group_is_in[best_open(group_scores, args.num_groups,
                            [&](int g) { return !group_is_in[g]; })] = true;
    }
    for (int e = 0; e < args.num_experts; ++e) is_out[e] = !group_is_in[e / group_size];
  }

  int32_t* const experts = args.experts + token * args.top_k;
  float* const weights = args.weights + token * args.top_k;
  float sum = 0;
  for (int k = 0; k < args.top_k; ++k) {
    const int e =
        args.forced != nullptr
            ? args.forced[token * args.top_k + k]
            : best_open(scores.choice, args.num_experts, [&](int i) { return !is_out[i]; });
    is_out[e] = true;
    experts[k] = e;
    weights[k] = scores.score[e];
    sum += scores.score[e];
  }
  if (args.normalise_top_k) {
    if (args.scoring == RouterScoring::kSigmoid) sum += 1e-20f;
    for (int k = 0; k < args.top_k; ++k) weights[k] /= sum;
  }
  for (int k = 0; k < args.top_k; ++k) weights[k] *= args.scaling_factor;
}

}  // namespace

void reference_router(const RouterArgs& args, WorkerPool& pool) {
  AUGUR_REQUIRE(args.num_valid == nullptr, "steps are not padded here");
  const int64_t num_tokens = args.x.num_rows;
  require_f32(args.x, num_tokens, args.x.num_cols, "x");
  if (args.logits.data != nullptr) {
    require_f32(args.logits, num_tokens, args.num_experts, "logits");
  }
  AUGUR_REQUIRE(args.num_experts >= 1 && args.num_experts <= kMaxExperts,
                std::to_string(args.num_experts));
  AUGUR_REQUIRE(args.num_groups >= 1 && args.num_experts % args.num_groups == 0 &&
                    args.top_groups >= 1 && args.top_groups <= args.num_groups,
                std::to_string(args.top_groups) + " of " + std::to_string(args.num_groups) +
                    " groups of " + std::to_string(args.num_experts) + " experts");
  const int num_competing = args.num_groups == 1
                                ? args.num_experts
                                : args.num_experts / args.num_groups * args.top_groups;
  AUGUR_REQUIRE(args.top_k >= 1 && args.top_k <= num_competing,
                std::to_string(args.top_k) + " of " + std::to_string(num_competing) + " experts");
  const ReferenceKernels& kernels = reference_kernels();
  pool.parallel_for(num_tokens, [&](int64_t token, int) {
    float logits[kMaxExperts];
    for (int e = 0; e < args.num_experts; ++e) {
      logits[e] =
          kernels.dot(args.x.row<float>(token), args.weight + e * args.x.num_cols, args.x.num_cols);
    }
    route_token(args, logits, token);
    if (args.logits.data != nullptr) {
      std::copy(logits, logits + args.num_experts, args.logits.row<float>(token));
    }
  });
}

}  // namespace augur::cpu
