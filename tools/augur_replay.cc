// augur-replay: what a pool of expert slots would have made of recorded routing, without a model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "tools/replay/replay.h"

namespace augur {
namespace {

struct Options {
  std::string trace;
  std::vector<double> pool_percent = {5, 10, 15, 20, 25, 30, 40, 50, 100};
  std::vector<std::string> policies = {"lru", "lfu", "least_stale", "belady"};
  double lfu_half_life_tokens = 12;
  int64_t expert_bytes = 0;
  int64_t max_rows = 1024;
};

std::unique_ptr<EvictionPolicy> make_policy(const std::string& name,
                                            const RoutingTrace& trace,
                                            const std::vector<ExpertKey>& uses,
                                            int num_slots,
                                            const Options& options) {
  if (name == "lru") return make_lru_policy(num_slots);
  if (name == "least_stale") return make_least_stale_policy(num_slots);
  if (name == "belady") return make_belady_policy(num_slots, uses);
  const double uses_per_token = static_cast<double>(trace.num_layers) * trace.top_k();
  return make_lfu_policy(num_slots, options.lfu_half_life_tokens * uses_per_token);
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Replays recorded routing through pools of expert slots and prints how often the experts "
      "were there.",
      "augur-replay");
  app.add_option("--trace", options.trace, "recorded routing (docs/augur-replay.md)")
      ->required()
      ->type_name("FILE");
  app.add_option("--pool", options.pool_percent, "shares of all experts that the pool holds")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 100.0))
      ->type_name("PERCENT,...")
      ->capture_default_str();
  app.add_option("--policy", options.policies, "lru, lfu, least_stale, belady")
      ->delimiter(',')
      ->check(CLI::IsMember({"lru", "lfu", "least_stale", "belady"}))
      ->type_name("NAME,...")
      ->capture_default_str();
  app.add_option("--lfu-half-life", options.lfu_half_life_tokens,
                 "tokens after which a use counts half")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--expert-bytes", options.expert_bytes,
                 "bytes of one expert: also prints what a generated token would read")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  app.add_option(
         "--max-rows", options.max_rows,
         "rows that a layer runs at once: 1024 as the CPU kernels, 256 in reference precision")
      ->check(CLI::PositiveNumber)
      ->type_name("N")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const RoutingTrace trace = read_routing_trace(options.trace);
  ReplayOptions replayed = {.num_slots = 0, .max_rows = options.max_rows};
  const std::vector<ExpertKey> uses = uses_of(trace, replayed);
  const auto num_generated = std::count_if(trace.tokens.begin(), trace.tokens.end(),
                                           [](const auto& token) { return token.is_generated(); });
  fmt::print("{} tokens, {} of them generated; {} layers of up to {} experts, {} uses\n",
             trace.tokens.size(), num_generated, trace.num_layers, trace.num_experts, uses.size());
  fmt::print("hit rates of {} tokens; the pool starts empty{}\n",
             num_generated > 0 ? "generated" : "prompt",
             num_generated > 0 ? " and is filled by the prompts" : "");
  fmt::print("{:>7} {:>7}", "pool", "slots");
  for (const std::string& name : options.policies) {
    fmt::print(" {:>11}", name);
    if (options.expert_bytes > 0) fmt::print(" {:>12}", "MB a token");
  }
  fmt::print("\n");
  for (const double percent : options.pool_percent) {
    const int num_slots = std::max(
        trace.top_k(),
        static_cast<int>(std::llround(percent / 100 * static_cast<double>(trace.num_keys()))));
    fmt::print("{:>6.1f}% {:>7}", percent, num_slots);
    for (const std::string& name : options.policies) {
      replayed.num_slots = num_slots;
      const ReplayResult result =
          replay(trace, replayed, make_policy(name, trace, uses, num_slots, options));
      const ReplayCount& count = num_generated > 0 ? result.generated : result.prompt;
      fmt::print(" {:>11.3f}", count.hit_rate());
      if (options.expert_bytes > 0) {
        fmt::print(" {:>12.1f}", 1e-6 * static_cast<double>(options.expert_bytes) *
                                     static_cast<double>(count.num_misses()) /
                                     static_cast<double>(count.num_tokens));
      }
    }
    fmt::print("\n");
  }
  return 0;
}

}  // namespace
}  // namespace augur

int main(int argc, char** argv) {
  try {
    return augur::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "augur-replay: {}\n", error.what());
    return 1;
  }
}
