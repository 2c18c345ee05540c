// augur-replay: what a pool of expert slots would have made of recorded routing, without a model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "tools/replay/predictor_replay.h"
#include "tools/replay/replay.h"
#include "tools/replay/replay_prefetcher.h"

namespace augur {
namespace {

struct Options {
  std::string trace;
  std::vector<double> pool_percent = {5, 10, 15, 20, 25, 30, 40, 50, 100};
  std::vector<std::string> policies = {"lru", "lfu", "least_stale", "belady"};
  double lfu_half_life_tokens = 12;
  int64_t expert_bytes = 0;
  int64_t max_rows = 1024;
  ReplayPrefetchOptions prefetch;
};

void add_prefetch_options(CLI::App& app, ReplayPrefetchOptions& prefetch) {
  app.add_option("--predictor", prefetch.predictors,
                 "transition, recency, prompt_signature: also with what each of them, and all that "
                 "are named together, would have read ahead. Reading takes no time here, so this "
                 "is an upper bound of what they gain")
      ->delimiter(',')
      ->type_name("NAME,...");
  app.add_option("--prefetch-per-layer", prefetch.max_per_layer,
                 "experts read ahead while a layer runs; 0: as many as are likely")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--distance", prefetch.max_distance, "layers with experts to look ahead")
      ->check(CLI::Range(1, 8))
      ->capture_default_str();
}

void add_options(CLI::App& app, Options& options) {
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
                 "bytes of one expert: what a token reads is told in MB, not in experts")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  app.add_option(
         "--max-rows", options.max_rows,
         "rows that a layer runs at once: 1024 as the CPU kernels, 256 in reference precision")
      ->check(CLI::PositiveNumber)
      ->type_name("N")
      ->capture_default_str();
  add_prefetch_options(app, options.prefetch);
}

class Report {
 public:
  Report(const Options& options, const RoutingTrace& trace)
      : options_(options),
        trace_(trace),
        uses_(uses_of(trace, {.max_rows = options.max_rows})),
        num_generated_(
            std::count_if(trace.tokens.begin(), trace.tokens.end(), [](const TracedToken& token) {
              return token.is_generated();
            })) {}

  void print_head() const {
    fmt::print("{} tokens, {} of them generated; {} layers of up to {} experts, {} uses\n",
               trace_.tokens.size(), num_generated_, trace_.num_layers, trace_.num_experts,
               uses_.size());
    fmt::print("hit rates of {} tokens; the pool starts empty{}\n",
               num_generated_ > 0 ? "generated" : "prompt",
               num_generated_ > 0 ? " and is filled by the prompts" : "");
  }

  /// A line for each pool, a column for each policy.
  void print_policies() const {
    fmt::print("{:>7} {:>7}", "pool", "slots");
    for (const std::string& name : options_.policies) {
      fmt::print(" {:>11}", name);
      if (options_.expert_bytes > 0) fmt::print(" {:>12}", "MB a token");
    }
    fmt::print("\n");
    for (const double percent : options_.pool_percent) {
      fmt::print("{:>6.1f}% {:>7}", percent, num_slots(percent));
      for (const std::string& name : options_.policies) {
        const ReplayCount count = run(percent, name, {});
        fmt::print(" {:>11.3f}", count.hit_rate());
        if (options_.expert_bytes > 0) {
          fmt::print(" {:>12.1f}", per_token(count, count.num_misses()));
        }
      }
      fmt::print("\n");
    }
  }

  /// A line for each pool, policy and choice of predictors.
  void print_predictors() const {
    const char* const unit = options_.expert_bytes > 0 ? "MB" : "experts";
    fmt::print(
        "read on demand and ahead: {} a token; reading takes no time, so what predictors "
        "gain is an upper bound\n",
        unit);
    fmt::print("{:>7} {:>11}  {:<17} {:>6} {:>7} {:>10} {:>10} {:>7}\n", "pool", "policy",
               "predictor", "hits", "gain", "on demand", "ahead", "wasted");
    for (const double percent : options_.pool_percent) {
      for (const std::string& policy : options_.policies) {
        const ReplayCount without = run(percent, policy, {});
        print_line(percent, policy, "none", without, without);
        // The optimum knows what comes: it needs no guesses.
        if (policy == "belady") continue;
        for (const std::string& name : options_.prefetch.predictors) {
          print_line(percent, policy, name, run(percent, policy, {name}), without);
        }
        if (options_.prefetch.predictors.size() > 1) {
          print_line(percent, policy, "all of these",
                     run(percent, policy, options_.prefetch.predictors), without);
        }
      }
    }
  }

 private:
  int num_slots(double percent) const {
    const double num_keys = static_cast<double>(trace_.num_keys());
    return std::max(trace_.top_k(), static_cast<int>(std::llround(percent / 100 * num_keys)));
  }

  std::unique_ptr<EvictionPolicy> make_policy(const std::string& name, int num_slots) const {
    if (name == "lru") return make_lru_policy(num_slots);
    if (name == "least_stale") return make_least_stale_policy(num_slots);
    if (name == "belady") return make_belady_policy(num_slots, uses_);
    const double uses_per_token = static_cast<double>(trace_.num_layers) * trace_.top_k();
    return make_lfu_policy(num_slots, options_.lfu_half_life_tokens * uses_per_token);
  }

  ReplayCount run(double percent,
                  const std::string& policy,
                  const std::vector<std::string>& predictors) const {
    ReplayOptions options = {.num_slots = num_slots(percent), .max_rows = options_.max_rows};
    if (!predictors.empty()) {
      options.make_prefetcher = [&](ExpertPool& pool) {
        ReplayPrefetchOptions prefetch = options_.prefetch;
        prefetch.predictors = predictors;
        return std::make_unique<ReplayPrefetcher>(trace_, prefetch, pool);
      };
    }
    const ReplayResult result = replay(trace_, options, make_policy(policy, options.num_slots));
    return num_generated_ > 0 ? result.generated : result.prompt;
  }

  /// MB where the size of an expert is known, else experts.
  double per_token(const ReplayCount& count, int64_t num_experts) const {
    const double size =
        options_.expert_bytes > 0 ? 1e-6 * static_cast<double>(options_.expert_bytes) : 1.0;
    return size * static_cast<double>(num_experts) / static_cast<double>(count.num_tokens);
  }

  void print_line(double percent,
                  const std::string& policy,
                  const std::string& predictor,
                  const ReplayCount& count,
                  const ReplayCount& without) const {
    fmt::print("{:>6.1f}% {:>11}  {:<17} {:>6.3f} {:>+7.3f} {:>10.1f} {:>10.1f} {:>7.2f}\n",
               percent, policy, predictor, count.hit_rate(), count.hit_rate() - without.hit_rate(),
               per_token(count, count.num_misses()), per_token(count, count.num_prefetches),
               count.wasted_share());
  }

  const Options& options_;
  const RoutingTrace& trace_;
  const std::vector<ExpertKey> uses_;
  const int64_t num_generated_;
};

int run(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Replays recorded routing through pools of expert slots and prints how often the experts "
      "were there.",
      "augur-replay");
  add_options(app, options);
  CLI11_PARSE(app, argc, argv);

  const RoutingTrace trace = read_routing_trace(options.trace);
  // What is wrong with a name is told before anything is printed.
  for (const std::string& name : options.prefetch.predictors) {
    (void)make_replay_predictor(name, moe_layers_of(trace), options.prefetch.max_distance);
  }
  const Report report(options, trace);
  report.print_head();
  options.prefetch.predictors.empty() ? report.print_policies() : report.print_predictors();
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
