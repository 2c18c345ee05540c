#include "engine/model/routing_driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "configs/config_error.h"
#include "kernels/require.h"

namespace augur {
namespace {

constexpr int kBytesPerChoice = 4;

std::vector<int32_t> layers_of(const RoutingTrace& trace) {
  std::set<int32_t> layers;
  for (const TracedToken& token : trace.tokens) {
    for (const auto& [layer, experts] : token.experts_of) layers.insert(layer);
  }
  return {layers.begin(), layers.end()};
}

void check_shape(const RoutingTrace& trace,
                 const std::string& path,
                 const ModelConfig& model,
                 size_t num_moe_layers) {
  if (num_moe_layers == 0) {
    throw ConfigError("execution.routing_trace",
                      "the model has no experts to route to; accepted: an empty text");
  }
  if (trace.num_layers < static_cast<int32_t>(num_moe_layers)) {
    throw ConfigError(path, fmt::format("routing of layers: {}; accepted: at least the model's {} "
                                        "with experts",
                                        trace.num_layers, num_moe_layers));
  }
  if (trace.num_experts > model.moe.num_experts) {
    throw ConfigError(path, fmt::format("expert {}; accepted: 0 to {}, the model's",
                                        trace.num_experts - 1, model.moe.num_experts - 1));
  }
}

void check_choices(const TracedToken& token,
                   int32_t layer,
                   const std::vector<int32_t>& experts,
                   const std::string& path,
                   int top_k) {
  const auto where = [&] {
    return fmt::format("turn {}, step {}, position {}, layer {}", token.turn, token.step,
                       token.position, layer);
  };
  if (static_cast<int>(experts.size()) != top_k) {
    throw ConfigError(
        path, fmt::format("{}: {} experts; accepted: {}, as the model's tokens choose", where(),
                          experts.size(), top_k));
  }
  for (auto it = experts.begin(); it != experts.end(); ++it) {
    if (std::find(experts.begin(), it, *it) != it) {
      throw ConfigError(
          path, fmt::format("{}: expert {} twice; accepted: different experts", where(), *it));
    }
  }
}

// The token itself, or the first after it, going round, that has choices of the layer. Some token
// has.
const TracedToken& with_layer(const std::vector<const TracedToken*>& tokens,
                              size_t token_idx,
                              int32_t layer) {
  while (!tokens[token_idx]->experts_of.contains(layer)) {
    token_idx = (token_idx + 1) % tokens.size();
  }
  return *tokens[token_idx];
}

}  // namespace

RecordedRoutes fit_routes(const RoutingTrace& trace,
                          const std::string& path,
                          const ModelConfig& model) {
  RecordedRoutes routes;
  routes.path = path;
  routes.num_tokens = static_cast<int64_t>(trace.tokens.size());
  routes.top_k = model.moe.top_k;
  routes.layers = model.moe_layers();
  check_shape(trace, path, model, routes.layers.size());

  // Texts that ran together are interleaved in the trace.
  std::vector<const TracedToken*> tokens;
  for (const TracedToken& token : trace.tokens) tokens.push_back(&token);
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const TracedToken* a, const TracedToken* b) { return a->turn < b->turn; });
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i == 0 || tokens[i]->turn != tokens[i - 1]->turn) {
      routes.turn_starts.push_back(static_cast<int64_t>(i));
    }
  }

  const std::vector<int32_t> traced_layers = layers_of(trace);
  routes.experts.reserve(routes.layers.size() * tokens.size() * routes.top_k);
  for (size_t i = 0; i < routes.layers.size(); ++i) {
    for (size_t j = 0; j < tokens.size(); ++j) {
      const TracedToken& token = with_layer(tokens, j, traced_layers[i]);
      const std::vector<int32_t>& experts = token.experts_of.at(traced_layers[i]);
      check_choices(token, traced_layers[i], experts, path, routes.top_k);
      routes.experts.insert(routes.experts.end(), experts.begin(), experts.end());
    }
  }
  return routes;
}

int64_t RoutingDriver::num_bytes(const ModelConfig& model, int64_t max_tokens) {
  return model.num_layers() * max_tokens * model.moe.top_k * kBytesPerChoice;
}

RoutingDriver::RoutingDriver(RecordedRoutes routes,
                             const ModelConfig& model,
                             int64_t max_tokens,
                             Ops& ops)
    : routes_(std::move(routes)),
      max_tokens_(max_tokens),
      ops_(ops),
      forced_(ops.allocate(num_bytes(model, max_tokens))),
      token_of_row_(max_tokens),
      layer_choices_(max_tokens * routes_.top_k) {
  AUGUR_REQUIRE(routes_.num_tokens > 0, "no tokens");
  AUGUR_REQUIRE(routes_.top_k == model.moe.top_k, std::to_string(routes_.top_k) + " choices");
}

int64_t RoutingDriver::first_token(int64_t sequence_id) const {
  if (sequence_id >= 0 && sequence_id < std::ssize(routes_.turn_starts)) {
    return routes_.turn_starts[sequence_id];
  }
  // Multiples of the golden ratio, modulo one: consecutive ones lie far apart, and as evenly as
  // can be however many there are. Source: Knuth, The Art of Computer Programming, volume 3,
  // section 6.4, Fibonacci hashing.
  const uint64_t place = static_cast<uint64_t>(sequence_id) * 0x9E3779B97F4A7C15u;
  return static_cast<int64_t>(static_cast<double>(place >> 11) * 0x1p-53 *
                              static_cast<double>(routes_.num_tokens));
}

void RoutingDriver::on_step(const StepRows& rows) {
  AUGUR_REQUIRE(rows.num_tokens <= max_tokens_, std::to_string(rows.num_tokens) + " rows");
  AUGUR_REQUIRE(!rows.sequence_ids.empty(), "the sequences have no numbers");
  for (int64_t row = 0; row < rows.num_tokens; ++row) {
    const int64_t first = first_token(rows.sequence_ids[rows.sequence_of_row[row]]);
    token_of_row_[row] = (first + rows.positions[row]) % routes_.num_tokens;
  }
  const int64_t top_k = routes_.top_k;
  for (size_t i = 0; i < routes_.layers.size(); ++i) {
    for (int64_t row = 0; row < rows.num_tokens; ++row) {
      std::copy_n(routes_.choices(i, token_of_row_[row]), top_k,
                  layer_choices_.begin() + row * top_k);
    }
    ops_.upload(forced_.as<int32_t>() + routes_.layers[i] * max_tokens_ * top_k,
                layer_choices_.data(), rows.num_tokens * top_k * kBytesPerChoice);
  }
}

std::string RoutingDriver::warning() const {
  return fmt::format(
      "experts are chosen by the routing recorded in {}, not by the model's gates "
      "(execution.routing_trace): the output is meaningless, only its speed can be measured",
      routes_.path);
}

}  // namespace augur
