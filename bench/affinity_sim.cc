// Whether expert affinity wins: what a pool fetches when requests of several domains are served in
// order of arrival, and when those that share experts run together.
//
//   augur_affinity_sim                       made-up domains, from none to very different ones
//   augur_affinity_sim --trace routing.csv   recorded requests, one for each turn, shuffled
//
// Scheduler and eviction are the engine's own. The bounds: "grouped", requests sorted by domain
// beforehand (where it is known), and affinity that may reorder without limit.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "configs/config_error.h"
#include "tools/affinity/run.h"
#include "tools/affinity/workload.h"

namespace augur {
namespace {

struct Options {
  std::string trace;
  double expert_bytes = 9437184;  // Qwen3-30B-A3B in bf16
  int64_t batch = 8;
  double pool_percent = 25;
  std::string signature = "prompt";
  double known_percent = 100;
  int num_requests = 160;
  int num_domains = 8;
  int num_experts = 64;
  int top_k = 6;
  std::vector<double> strengths = {0, 0.5, 1, 2};
  int num_orders = 3;
};

struct Policy {
  std::string name;
  bool is_grouped = false;
  bool asks = false;
  int64_t window = 16;
  int64_t max_overtakes = 8;
};

std::vector<Policy> policies(const RoutedWorkload& workload) {
  const auto num_requests = static_cast<int64_t>(workload.requests.size());
  std::vector<Policy> result = {
      {.name = "fcfs"},
      {.name = "affinity 16, 8", .asks = true},
      {.name = "affinity 64, 64", .asks = true, .window = 64, .max_overtakes = 64},
      {.name = "affinity, no limit",
       .asks = true,
       .window = num_requests,
       .max_overtakes = num_requests}};
  if (workload.requests[0].domain >= 0) result.push_back({.name = "grouped", .is_grouped = true});
  return result;
}

/// What the oracle knows, by request; some are left out at random.
class Knowledge {
 public:
  Knowledge(const RoutedWorkload& workload, const Options& options, std::mt19937_64& random) {
    signatures_.reserve(workload.requests.size());
    std::uniform_real_distribution<double> percent(0, 100);
    for (const RoutedRequest& request : workload.requests) {
      const int64_t end = options.signature == "prompt" ? request.num_prompt : request.num_tokens();
      signatures_.push_back(signature_of_tokens(workload, request, 0, end));
      const bool is_known = percent(random) < options.known_percent;
      known_.push_back(is_known ? &signatures_.back() : nullptr);
    }
  }
  const std::vector<const ExpertSignature*>& known() const { return known_; }
  const std::vector<ExpertSignature>& all() const { return signatures_; }

 private:
  std::vector<ExpertSignature> signatures_;  // never reallocated
  std::vector<const ExpertSignature*> known_;
};

/// How much requests differ: the mean overlap of pairs, of one domain and of different ones.
void print_overlaps(const RoutedWorkload& workload, const Knowledge& knowledge) {
  constexpr size_t kMost = 60;  // requests: some 1,800 pairs tell enough
  const size_t num_requests = std::min(kMost, workload.requests.size());
  double total[2] = {0, 0};
  int count[2] = {0, 0};
  for (size_t a = 0; a < num_requests; ++a) {
    for (size_t b = 0; b < a; ++b) {
      const int domain = workload.requests[a].domain;
      const bool is_same = domain >= 0 && domain == workload.requests[b].domain;
      total[is_same] += overlap(knowledge.all()[a], knowledge.all()[b]);
      ++count[is_same];
    }
  }
  fmt::print("overlap of signatures: {:.2f}", total[0] / std::max(1, count[0]));
  if (count[1] > 0) fmt::print(" across domains, {:.2f} within one", total[1] / count[1]);
  fmt::print("\n");
}

void add(AffinityRunResult& sum, const AffinityRunResult& result) {
  sum.num_steps += result.num_steps;
  sum.num_decode_rows += result.num_decode_rows;
  sum.num_decode_steps += result.num_decode_steps;
  sum.num_decode_uses += result.num_decode_uses;
  sum.num_decode_misses += result.num_decode_misses;
  sum.num_fetches += result.num_fetches;
  sum.num_reordered += result.num_reordered;
  sum.most_overtaken = std::max(sum.most_overtaken, result.most_overtaken);
}

void print_row(const std::string& name,
               const RoutedWorkload& workload,
               const Options& options,
               const AffinityRunResult& result,
               const AffinityRunResult& baseline) {
  const auto per_token = [](int64_t count, const AffinityRunResult& of) {
    return static_cast<double>(count) / static_cast<double>(of.num_decode_rows);
  };
  const double decode = per_token(result.num_decode_misses, result);
  const double all = per_token(result.num_fetches, result);
  const double at_once = static_cast<double>(result.num_decode_uses) /
                         static_cast<double>(result.num_decode_steps * workload.num_layers);
  const double hit_rate = 1 - static_cast<double>(result.num_decode_misses) /
                                  static_cast<double>(result.num_decode_uses);
  const auto change = [&](double value, int64_t was) {
    return 100 * (value / per_token(was, baseline) - 1);
  };
  fmt::print("{:<20} {:>8.1f} {:>6.3f} {:>11.1f} {:>+6.1f}% {:>11.1f} {:>+6.1f}% {:>9} {:>9}\n",
             name, at_once, hit_rate, 1e-6 * options.expert_bytes * decode,
             change(decode, baseline.num_decode_misses), 1e-6 * options.expert_bytes * all,
             change(all, baseline.num_fetches), result.num_reordered / options.num_orders,
             result.most_overtaken);
}

/// Every policy on the same orders of the requests.
void compare(const RoutedWorkload& workload, const Options& options, std::mt19937_64& random) {
  const Knowledge knowledge(workload, options, random);
  print_overlaps(workload, knowledge);
  std::vector<std::vector<int>> orders(options.num_orders);
  for (std::vector<int>& order : orders) {
    order.resize(workload.requests.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
  }
  fmt::print("{:<20} {:>8} {:>6} {:>11} {:>7} {:>11} {:>7} {:>9} {:>9}\n", "window, overtakes",
             "experts", "hits", "decode MB", "", "all MB", "", "reordered", "overtaken");
  AffinityRunResult baseline;
  for (const Policy& policy : policies(workload)) {
    AffinityRunOptions run_options{.batch = options.batch,
                                   .pool_share = options.pool_percent / 100,
                                   .window = policy.window,
                                   .max_overtakes = policy.max_overtakes};
    if (policy.asks) run_options.known = knowledge.known();
    AffinityRunResult sum;
    for (std::vector<int> order : orders) {
      if (policy.is_grouped) {
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
          return workload.requests[a].domain < workload.requests[b].domain;
        });
      }
      add(sum, run_workload(workload, order, run_options));
    }
    if (baseline.num_steps == 0) baseline = sum;
    print_row(policy.name, workload, options, sum, baseline);
  }
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("What a pool of experts fetches with and without expert affinity.",
               "augur_affinity_sim");
  app.add_option("--trace", options.trace, "recorded routing (docs/augur-replay.md)");
  app.add_option("--expert-bytes", options.expert_bytes, "bytes of one expert")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--batch", options.batch, "requests that run at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--pool", options.pool_percent,
                 "share of all experts that the pool holds, percent")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--signature", options.signature,
                 "what is known of a request: the experts of its prompt, or of its whole text")
      ->check(CLI::IsMember({"prompt", "whole"}))
      ->capture_default_str();
  app.add_option("--known", options.known_percent, "requests of which that is known, percent")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--requests", options.num_requests, "made-up requests")
      ->check(CLI::Range(2, 100'000))
      ->capture_default_str();
  app.add_option("--domains", options.num_domains, "made-up domains")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--experts", options.num_experts, "of a made-up layer")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--top-k", options.top_k, "made-up experts of a token")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--strength", options.strengths,
                 "how different made-up domains are: standard deviation of log weights")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 20.0))
      ->capture_default_str();
  app.add_option("--orders", options.num_orders, "random orders of arrival, which are averaged")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (options.top_k > options.num_experts) {
    throw ConfigError("--top-k", fmt::format("found {}, accepted: at most the {} of --experts",
                                             options.top_k, options.num_experts));
  }

  fmt::print(
      "batches of {}, LRU pool of {:g} % of all experts, starts empty; signatures of the {} of "
      "{:g} % of requests; {} orders\nper generated token; decode: what decode rows wait for; all: "
      "with what only prompts want; experts: different ones in a layer of a decode step\n",
      options.batch, options.pool_percent, options.signature, options.known_percent,
      options.num_orders);
  std::mt19937_64 random(1);
  if (!options.trace.empty()) {
    const RoutedWorkload workload = read_workload(options.trace);
    fmt::print("\n{}: {} requests, {} layers of up to {} experts\n", options.trace,
               workload.requests.size(), workload.num_layers, workload.num_experts);
    compare(workload, options, random);
    return 0;
  }
  for (const double strength : options.strengths) {
    const MadeUp made_up{.num_requests = options.num_requests,
                         .num_domains = options.num_domains,
                         .strength = strength,
                         .num_experts = options.num_experts,
                         .top_k = options.top_k};
    fmt::print("\n{} requests of {} made-up domains of strength {:g}; {} layers of {}, top-{}\n",
               made_up.num_requests, made_up.num_domains, strength, made_up.num_layers,
               made_up.num_experts, made_up.top_k);
    compare(make_workload(made_up, random), options, random);
  }
  return 0;
}

}  // namespace
}  // namespace augur

int main(int argc, char** argv) {
  try {
    return augur::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "augur_affinity_sim: {}\n", error.what());
    return 1;
  }
}
