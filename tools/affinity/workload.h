// Requests with the experts that each of their tokens goes to: recorded ones, or made up.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "cache/expert_signature.h"

namespace augur {

struct RoutedRequest {
  int domain = -1;  // -1: not known
  int64_t num_prompt = 0;
  // [num_tokens][num_layers], of prompt and output.
  std::vector<std::vector<std::vector<int32_t>>> experts;

  int64_t num_tokens() const { return static_cast<int64_t>(experts.size()); }
};

struct RoutedWorkload {
  int num_layers = 0;  // that have experts
  int num_experts = 0;
  std::vector<RoutedRequest> requests;
};

/// A request for each turn of a trace (cache/routing_trace.h). Of a turn that has no
/// generated token, or nothing else, the first half counts as the prompt. Turns of fewer than two
/// tokens are left out. Throws ConfigError.
RoutedWorkload read_workload(const std::string& path);

/// What to make up: requests of domains. An expert's weight in a layer is exp(g), g normal with a
/// standard deviation of `strength` for the domain and half of that again for the request; a
/// token's experts are drawn by weight without replacement, and those of the token before weigh e
/// times more.
struct MadeUp {
  int num_requests = 0;
  int num_domains = 0;
  double strength = 0;
  int num_layers = 8;
  int num_experts = 64;
  int top_k = 6;
  int num_prompt = 48;
  int min_output = 32;
  int max_output = 96;
};
RoutedWorkload make_workload(const MadeUp& made_up, std::mt19937_64& random);

/// The experts of a request's tokens [first, end).
ExpertSignature signature_of_tokens(const RoutedWorkload& workload,
                                    const RoutedRequest& request,
                                    int64_t first,
                                    int64_t end);

}  // namespace augur
