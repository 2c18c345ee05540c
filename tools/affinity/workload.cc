#include "tools/affinity/workload.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>

#include "cache/routing_trace.h"
#include "configs/config_error.h"

namespace augur {
namespace {

using Weights = std::vector<double>;  // logarithms, [num_layers, num_experts]

Weights draw_weights(const MadeUp& made_up, double deviation, std::mt19937_64& random) {
  Weights weights(static_cast<size_t>(made_up.num_layers) * made_up.num_experts);
  if (deviation == 0) return weights;
  std::normal_distribution<double> normal(0, deviation);
  for (double& weight : weights) weight = normal(random);
  return weights;
}

/// The top_k largest of weight + Gumbel noise, which is drawing by weight without replacement.
/// Source: Kool, van Hoof and Welling 2019, arXiv:1903.06059, section 2.
std::vector<int32_t> draw_experts(std::span<const double> weights,
                                  std::span<const int32_t> previous,
                                  int top_k,
                                  std::mt19937_64& random) {
  std::extreme_value_distribution<double> gumbel;
  std::vector<std::pair<double, int32_t>> keys;
  for (size_t e = 0; e < weights.size(); ++e) {
    keys.emplace_back(weights[e] + gumbel(random), static_cast<int32_t>(e));
  }
  for (const int32_t expert : previous) keys[expert].first += 1;
  std::partial_sort(keys.begin(), keys.begin() + top_k, keys.end(), std::greater<>());
  std::vector<int32_t> experts;
  for (int i = 0; i < top_k; ++i) experts.push_back(keys[i].second);
  return experts;
}

}  // namespace

RoutedWorkload read_workload(const std::string& path) {
  const RoutingTrace trace = read_routing_trace(path);
  RoutedWorkload workload{.num_layers = trace.num_layers, .num_experts = trace.num_experts};
  std::map<int32_t, size_t> layer_idx;  // of the layers that have experts
  for (const TracedToken& token : trace.tokens) {
    for (const auto& [layer, experts] : token.experts_of) layer_idx.emplace(layer, 0);
  }
  size_t next_idx = 0;
  for (auto& [layer, idx] : layer_idx) idx = next_idx++;
  int64_t turn = -1;
  for (const TracedToken& token : trace.tokens) {
    if (token.turn != turn) workload.requests.emplace_back();
    turn = token.turn;
    RoutedRequest& request = workload.requests.back();
    if (token.phase == 0) ++request.num_prompt;
    auto& of_token = request.experts.emplace_back(workload.num_layers);
    for (const auto& [layer, experts] : token.experts_of) of_token[layer_idx.at(layer)] = experts;
  }
  std::erase_if(workload.requests, [](const auto& request) { return request.num_tokens() < 2; });
  for (RoutedRequest& request : workload.requests) {
    if (request.num_prompt == 0 || request.num_prompt == request.num_tokens()) {
      request.num_prompt = request.num_tokens() / 2;
    }
  }
  if (workload.requests.size() < 2) {
    throw ConfigError(path, "accepted: a trace of at least two turns of two tokens or more");
  }
  return workload;
}

RoutedWorkload make_workload(const MadeUp& made_up, std::mt19937_64& random) {
  RoutedWorkload workload{.num_layers = made_up.num_layers, .num_experts = made_up.num_experts};
  std::vector<Weights> of_domain;
  for (int i = 0; i < made_up.num_domains; ++i) {
    of_domain.push_back(draw_weights(made_up, made_up.strength, random));
  }
  std::uniform_int_distribution<int> output(made_up.min_output, made_up.max_output);
  for (int i = 0; i < made_up.num_requests; ++i) {
    RoutedRequest& request = workload.requests.emplace_back();
    request.domain = static_cast<int>(random() % made_up.num_domains);
    request.num_prompt = made_up.num_prompt;
    Weights weights = draw_weights(made_up, made_up.strength / 2, random);
    for (size_t k = 0; k < weights.size(); ++k) weights[k] += of_domain[request.domain][k];
    request.experts.resize(made_up.num_prompt + output(random));
    for (size_t t = 0; t < request.experts.size(); ++t) {
      for (int layer = 0; layer < made_up.num_layers; ++layer) {
        const std::span of_layer(weights.data() + layer * made_up.num_experts, made_up.num_experts);
        const std::vector<int32_t> previous =
            t > 0 ? request.experts[t - 1][layer] : std::vector<int32_t>();
        request.experts[t].push_back(draw_experts(of_layer, previous, made_up.top_k, random));
      }
    }
  }
  return workload;
}

ExpertSignature signature_of_tokens(const RoutedWorkload& workload,
                                    const RoutedRequest& request,
                                    int64_t first,
                                    int64_t end) {
  ExpertSignature signature(workload.num_layers, workload.num_experts);
  for (int64_t t = first; t < end; ++t) {
    for (int layer = 0; layer < workload.num_layers; ++layer) {
      signature.add(layer, request.experts[t][layer]);
    }
  }
  return signature;
}

}  // namespace augur
