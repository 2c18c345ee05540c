// Templates of the router's kernels; included by the units of one instruction set each.
#pragma once

#include "kernels/cpu/exp2.h"
#include "kernels/cpu/token_kernels.h"

namespace augur::cpu {

/// kTokens x (kRouterSums / kTokens) dot products at a time. Each runs over the hidden values in
/// rising order in 16 lanes, whatever the shape of the tile.
template <typename V, int kTokens>
void router_logits_of(const RouterTile& args) {
  using F = typename V::F;
  constexpr int kExperts = V::kRouterSums / kTokens;
  const int64_t whole = args.hidden_size / 16 * 16;
  const int64_t left = args.hidden_size - whole;
  for (int expert = 0; expert < args.num_experts; expert += kExperts) {
    const int count = args.num_experts - expert < kExperts ? args.num_experts - expert : kExperts;
    const float* weights[kExperts];
    for (int e = 0; e < kExperts; ++e) {  // missing ones repeat the last
      weights[e] = args.weight + (expert + (e < count ? e : count - 1)) * args.hidden_size;
    }
    F sums[V::kRouterSums];
    for (F& sum : sums) sum = V::zero();
    const auto add_products = [&](auto load, int64_t col) {
      F w[kExperts];
#pragma GCC unroll 16
      for (int e = 0; e < kExperts; ++e) w[e] = load(weights[e] + col);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const F x = load(args.x + t * args.x_stride + col);
#pragma GCC unroll 16
        for (int e = 0; e < kExperts; ++e) {
          sums[t * kExperts + e] = V::fma(x, w[e], sums[t * kExperts + e]);
        }
      }
    };
    for (int64_t col = 0; col < whole; col += 16) add_products(V::load, col);
    if (left > 0) {
      add_products([left](const float* from) { return V::load_first(from, left); }, whole);
    }
    alignas(64) float logits[V::kRouterSums];
    V::reduce_sums(sums, logits);
    for (int t = 0; t < kTokens; ++t) {
      for (int e = 0; e < count; ++e) {
        args.logits[t * args.logits_stride + expert + e] = logits[t * kExperts + e];
      }
    }
  }
}

template <typename V>
void router_logits(const RouterTile& args) {
  RouterTile left = args;
  while (left.num_tokens > 0) {
    const int num_tokens = left.num_tokens >= 4 ? 4 : left.num_tokens >= 2 ? 2 : 1;
    if (num_tokens == 4) {
      router_logits_of<V, 4>(left);
    } else if (num_tokens == 2) {
      router_logits_of<V, 2>(left);
    } else {
      router_logits_of<V, 1>(left);
    }
    left.x += num_tokens * left.x_stride;
    left.logits += num_tokens * left.logits_stride;
    left.num_tokens -= num_tokens;
  }
}

constexpr float kTaken = -__builtin_inff();
constexpr float kLowestChoice = -3.40282347e38f;

/// The index of the largest value, the lowest of equal ones; it becomes kTaken. num_padded is a
/// multiple of 16.
template <typename V>
inline int take_largest(float* values, int num_padded) {
  typename V::F most = V::load(values);
  for (int i = 16; i < num_padded; i += 16) most = V::max(most, V::load(values + i));
  const typename V::F wanted = V::set1(V::reduce_max(most));
  for (int i = 0; i < num_padded; i += 16) {
    const typename V::F these = V::load(values + i);
    const uint32_t bits = V::equal_bits(these, wanted);
    if (bits != 0) {
      // A whole vector is written, so that the next pass need not wait for memory.
      V::store(values + i, V::replace(these, bits & (~bits + 1), V::set1(kTaken)));
      return i + __builtin_ctz(bits);
    }
  }
  return 0;  // not reached: choices are never NaN
}

/// Scores into args.scores, what is compared into args.choice; the padding is never chosen.
template <typename V>
inline void score_experts(const RouterChoice& args) {
  using F = typename V::F;
  const int num_experts = args.num_experts;
  const auto lanes_from = [num_experts](int first) {
    return num_experts - first < 16 ? num_experts - first : 16;
  };
  F most = V::set1(kLowestChoice);
  F sum = V::zero();
  if (!args.is_sigmoid) {
    for (int i = 0; i < num_experts; i += 16) {
      const F logits = V::load_first(args.logits + i, lanes_from(i));
      most = V::max(most, V::select(V::first_lanes(lanes_from(i)), logits, most));
    }
    most = V::set1(V::reduce_max(most));
  }
  for (int i = 0; i < num_experts; i += 16) {
    const F logits = V::load_first(args.logits + i, lanes_from(i));
    F scores;
    if (args.is_sigmoid) {
      const F one = V::set1(1.0f);
      scores = V::div(one, V::add(one, exp_fine<V>(V::sub(V::zero(), logits))));
    } else {
      scores =
          V::select(V::first_lanes(lanes_from(i)), exp_fine<V>(V::sub(logits, most)), V::zero());
      sum = V::add(sum, scores);
    }
    V::store(args.scores + i, scores);
  }
  const F total = V::set1(args.is_sigmoid ? 1.0f : V::reduce_add(sum));
  for (int i = 0; i < num_experts; i += 16) {
    F scores = V::load(args.scores + i);
    if (!args.is_sigmoid) {
      scores = V::div(scores, total);
      V::store(args.scores + i, scores);
    }
    if (args.correction != nullptr) {
      scores = V::add(scores, V::load_first(args.correction + i, lanes_from(i)));
    }
    // The maximum also turns NaN into the lowest choice: the weights still show it.
    const F choice = V::max(scores, V::set1(kLowestChoice));
    V::store(args.choice + i, V::select(V::first_lanes(lanes_from(i)), choice, V::set1(kTaken)));
  }
}

/// Takes the experts of all but the best groups out of the choice.
template <typename V>
inline void keep_top_groups(const RouterChoice& args) {
  const int group_size = args.num_experts / args.num_groups;
  const auto group_score = [&](int group) {
    float first = kTaken;
    float second = kTaken;
    for (int i = group * group_size; i < (group + 1) * group_size; ++i) {
      const float choice = args.choice[i];
      if (choice > first) {
        second = first;
        first = choice;
      } else if (choice > second) {
        second = choice;
      }
    }
    return group_size > 1 ? first + second : first;
  };
  // A group stays when fewer than top_groups are better; equal ones rank by index. The ranks use
  // scores computed before any group is taken out.
  float group_scores[kMaxRouterGroups];
  for (int group = 0; group < args.num_groups; ++group) group_scores[group] = group_score(group);
  for (int group = 0; group < args.num_groups; ++group) {
    int num_better = 0;
    for (int other = 0; other < args.num_groups; ++other) {
      num_better += group_scores[other] > group_scores[group] ||
                    (group_scores[other] == group_scores[group] && other < group);
    }
    if (num_better < args.top_groups) continue;
    for (int i = group * group_size; i < (group + 1) * group_size; ++i) args.choice[i] = kTaken;
  }
}

template <typename V>
void router_choose(const RouterChoice& args) {
  score_experts<V>(args);
  if (args.num_groups > 1) keep_top_groups<V>(args);
  const int num_padded = (args.num_experts + 15) / 16 * 16;
  float sum = 0;
  for (int k = 0; k < args.top_k; ++k) {
    const int expert =
        args.forced != nullptr ? args.forced[k] : take_largest<V>(args.choice, num_padded);
    args.experts[k] = expert;
    args.weights[k] = args.scores[expert];
    sum += args.weights[k];
  }
  const float divisor = !args.normalise_top_k ? 1.0f : args.is_sigmoid ? sum + 1e-20f : sum;
  for (int k = 0; k < args.top_k; ++k) {
    args.weights[k] = args.weights[k] / divisor * args.scaling_factor;
  }
}

}  // namespace augur::cpu
