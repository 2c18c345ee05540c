// What the pool's own bookkeeping costs while a model decodes: 48 layers of 128 experts, top-8, in
// slots for a quarter of them. One iteration is one layer; fetches take no time.
//
// `layer`: begin, next until nothing is left, end. `all_hits` repeats tokens whose experts are
// there, `all_misses` asks for those used longest ago, `skewed` is routing with popular experts and
// neighbours that are alike; `guessed` prefetches 8 experts for each layer before, of which half
// are right, and gives up the others. `prefetch/refused` is one prefetch for which there is no
// room. A decode step of this shape takes tens of milliseconds on a CPU and 3 ms on a large GPU, 60
// us a layer: the pool is meant to stay below 5 us of that.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cache/expert_pool.h"
#include "tools/replay/instant_fetcher.h"

namespace augur {
namespace {

constexpr int kLayers = 48;
constexpr int kExperts = 128;
constexpr int kTopK = 8;
constexpr int kSlots = kLayers * kExperts / 4;
constexpr int kSteps = 64;  // of routing, then it begins again

enum class Routing { kAllHits, kAllMisses, kSkewed };

/// What a layer of a step asks the pool for.
struct LayerUse {
  std::vector<int32_t> experts;  // rising
  std::vector<int32_t> num_rows = std::vector<int32_t>(kExperts);
};

using Steps = std::vector<std::vector<LayerUse>>;  // [kSteps][kLayers]

void add_row(LayerUse& use, const std::vector<int32_t>& experts) {
  for (const int32_t expert : experts) {
    if (use.num_rows[expert]++ == 0) use.experts.push_back(expert);
  }
  std::sort(use.experts.begin(), use.experts.end());
}

/// Rows are sequences. A score is a layer's own liking, a drift of the sequence, and noise; the
/// top_k scores are chosen. With these weights a token shares about half of its experts with the
/// token before, as recorded routing of Qwen3-30B-A3B does.
Steps skewed_steps(int num_rows) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> liking(kLayers * kExperts);
  for (float& value : liking) value = normal(random);
  std::vector<float> drift(static_cast<size_t>(num_rows) * kLayers * kExperts);
  for (float& value : drift) value = normal(random);
  Steps steps(kSteps, std::vector<LayerUse>(kLayers));
  std::vector<float> scores(kExperts);
  std::vector<int32_t> order(kExperts);
  for (std::vector<LayerUse>& step : steps) {
    for (int row = 0; row < num_rows; ++row) {
      for (int layer = 0; layer < kLayers; ++layer) {
        for (int expert = 0; expert < kExperts; ++expert) {
          float& own = drift[(static_cast<size_t>(row) * kLayers + layer) * kExperts + expert];
          own = 0.98f * own + 0.2f * normal(random);
          scores[expert] = liking[layer * kExperts + expert] + own + 0.6f * normal(random);
        }
        std::iota(order.begin(), order.end(), 0);
        std::partial_sort(order.begin(), order.begin() + kTopK, order.end(),
                          [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
        add_row(step[layer], {order.begin(), order.begin() + kTopK});
      }
    }
  }
  return steps;
}

/// Rows walk through the experts of a layer, `num_distinct` of them in turn.
Steps walking_steps(int num_rows, int num_distinct) {
  Steps steps(kSteps, std::vector<LayerUse>(kLayers));
  for (int step = 0; step < kSteps; ++step) {
    for (int row = 0; row < num_rows; ++row) {
      std::vector<int32_t> experts(kTopK);
      const int first = (step * num_rows + row) * kTopK;
      for (int i = 0; i < kTopK; ++i) experts[i] = (first + i) % num_distinct;
      for (LayerUse& use : steps[step]) add_row(use, experts);
    }
  }
  return steps;
}

/// Made once for each kind and number of rows.
const Steps& steps_of(Routing routing, int num_rows) {
  static std::vector<std::pair<std::pair<Routing, int>, std::unique_ptr<Steps>>> made;
  for (const auto& [key, steps] : made) {
    if (key == std::pair(routing, num_rows)) return *steps;
  }
  Steps steps;
  switch (routing) {
    case Routing::kAllHits:
      steps = walking_steps(num_rows, kExperts / 8);
      break;
    case Routing::kAllMisses:
      steps = walking_steps(num_rows, kExperts);
      break;
    case Routing::kSkewed:
      steps = skewed_steps(num_rows);
      break;
  }
  made.emplace_back(std::pair(routing, num_rows), std::make_unique<Steps>(std::move(steps)));
  return *made.back().second;
}

struct Policy {
  const char* name;
  std::function<std::unique_ptr<EvictionPolicy>()> make;
};
const std::vector<Policy>& policies() {
  static const std::vector<Policy> all = {
      {"lru", [] { return make_lru_policy(kSlots); }},
      {"lfu", [] { return make_lfu_policy(kSlots, 12.0 * kLayers * kTopK); }},
      {"least_stale", [] { return make_least_stale_policy(kSlots); }},
  };
  return all;
}

/// A pool and what runs through it, layer by layer.
class Run {
 public:
  Run(const Policy& policy, Routing routing, int num_rows)
      : steps_(steps_of(routing, num_rows)),
        pool_({.num_layers = kLayers,
               .num_moe_layers = kLayers,
               .num_experts = kExperts,
               .num_slots = kSlots,
               .top_k = kTopK},
              policy.make(),
              fetcher_,
              counters_) {}

  void warm_up() {
    for (int layer = 0; layer < kSteps * kLayers; ++layer) next_layer();
  }
  /// Its routing.
  const LayerUse& use() const { return steps_[step_][layer_]; }
  void next_layer() {
    const LayerUse& wanted = use();
    pool_.begin(layer_, wanted.experts, wanted.num_rows, wanted.num_rows);
    while (!pool_.next().empty()) continue;
    pool_.end();
    if (++layer_ < kLayers) return;
    layer_ = 0;
    step_ = (step_ + 1) % kSteps;
    pool_.end_step(/*has_decode_rows=*/true);
  }
  /// Guesses 8 experts of the layer to come: half of them are among what it will want, the others
  /// random. Those that are there already need nothing.
  void guess() {
    guesses_.clear();
    const std::vector<int32_t>& wanted = use().experts;
    for (int i = 0; i < kTopK; ++i) {
      const auto expert = static_cast<int32_t>(i % 2 == 0 ? wanted[random_() % wanted.size()]
                                                          : random_() % kExperts);
      const ExpertKey key = {layer_, expert};
      if (pool_.is_resident(key) || pool_.is_fetching(key)) continue;
      if (pool_.prefetch(key, FetchPriority::kNextLayer) == PrefetchResult::kNoRoom) {
        return;  // as the planner does
      }
      guesses_.push_back(key);
    }
  }
  void give_up_guesses() {
    for (const ExpertKey key : guesses_) pool_.give_up_prefetch(key);
  }

  ExpertPool& pool() { return pool_; }
  const ExpertCounters& counters() const { return counters_; }

 private:
  const Steps& steps_;
  InstantFetcher fetcher_;
  ExpertCounters counters_{kLayers, kExperts};
  ExpertPool pool_;
  int step_ = 0;
  int layer_ = 0;
  std::minstd_rand random_;
  std::vector<ExpertKey> guesses_;
};

void count(benchmark::State& state, const ExpertUseCounts& before, const ExpertUseCounts& after) {
  ExpertUseCounts counts = after;
  counts -= before;
  using benchmark::Counter;
  state.counters["per_expert"] =
      Counter(static_cast<double>(counts.num_uses), Counter::kIsRate | Counter::kInvert);
  state.counters["experts"] =
      Counter(static_cast<double>(counts.num_uses), Counter::kAvgIterations);
  state.counters["hit_rate"] = counts.hit_rate();
}

void layer_bench(benchmark::State& state, const Policy& policy, Routing routing) {
  Run run(policy, routing, static_cast<int>(state.range(0)));
  run.warm_up();
  const ExpertUseCounts before = run.counters().total();
  for (auto _ : state) run.next_layer();
  count(state, before, run.counters().total());
}

void guessed_bench(benchmark::State& state, const Policy& policy) {
  Run run(policy, Routing::kSkewed, static_cast<int>(state.range(0)));
  run.warm_up();
  const ExpertUseCounts before = run.counters().total();
  for (auto _ : state) {
    run.guess();
    run.pool().poll();
    run.next_layer();
    run.give_up_guesses();
  }
  count(state, before, run.counters().total());
  const ExpertUseCounts after = run.counters().total();
  state.counters["prefetches"] =
      benchmark::Counter(static_cast<double>(after.num_prefetches - before.num_prefetches),
                         benchmark::Counter::kAvgIterations);
}

// Eight rows use more of the pool within two steps than a guess may take: nothing can be had.
void refused_prefetch_bench(benchmark::State& state, const Policy& policy) {
  Run run(policy, Routing::kSkewed, /*num_rows=*/8);
  run.warm_up();
  std::vector<ExpertKey> absent;
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int32_t expert = 0; expert < kExperts; ++expert) {
      if (!run.pool().is_resident({layer, expert})) absent.push_back({layer, expert});
    }
  }
  size_t next = 0;
  int64_t num_refused = 0;
  for (auto _ : state) {
    num_refused +=
        run.pool().prefetch(absent[next], FetchPriority::kNextLayer) == PrefetchResult::kNoRoom;
    next = (next + 1) % absent.size();
  }
  state.counters["refused"] =
      static_cast<double>(num_refused) / static_cast<double>(state.iterations());
}

void add_benches() {
  for (const Policy& policy : policies()) {
    const std::string of = std::string("/") + policy.name;
    const std::pair<const char*, Routing> kinds[] = {{"all_hits", Routing::kAllHits},
                                                     {"all_misses", Routing::kAllMisses},
                                                     {"skewed", Routing::kSkewed}};
    for (const auto& [kind, routing] : kinds) {
      benchmark::RegisterBenchmark(("layer/" + std::string(kind) + of).c_str(), layer_bench, policy,
                                   routing)
          ->ArgName("rows")
          ->Arg(1)
          ->Arg(8);
    }
    benchmark::RegisterBenchmark(("layer/guessed" + of).c_str(), guessed_bench, policy)
        ->ArgName("rows")
        ->Arg(1)
        ->Arg(8);
    benchmark::RegisterBenchmark(("prefetch/refused" + of).c_str(), refused_prefetch_bench, policy);
  }
}

}  // namespace
}  // namespace augur

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  augur::add_benches();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
