#include "tools/replay/replay.h"

#include <algorithm>
#include <functional>
#include <span>

#include "tools/replay/instant_fetcher.h"
#include "tools/replay/traced_rows.h"

namespace augur {
namespace {

// Some tokens' choices of one layer.
struct LayerPart {
  int32_t layer = 0;
  std::vector<int32_t> experts;  // rising
  // By expert, of all of the step's rows: what the engine knows when a part begins.
  std::vector<int32_t> num_rows;
  std::vector<int32_t> num_decode_rows;
};

struct Step {
  std::span<const TracedToken> tokens;
  bool is_generated = false;  // some of it
};

void visit_steps(const RoutingTrace& trace, const std::function<void(const Step&)>& visit) {
  const std::span<const TracedToken> tokens(trace.tokens);
  for (size_t first = 0; first < tokens.size();) {
    size_t end = first;
    bool is_generated = false;
    for (; end < tokens.size() && tokens[end].step == tokens[first].step; ++end) {
      is_generated |= tokens[end].is_generated();
    }
    visit({tokens.subspan(first, end - first), is_generated});
    first = end;
  }
}

void visit_choices(std::span<const TracedToken> tokens,
                   int32_t layer,
                   const std::function<void(const TracedToken&, int32_t expert)>& visit) {
  for (const TracedToken& token : tokens) {
    const auto found = token.experts_of.find(layer);
    if (found == token.experts_of.end()) continue;
    for (const int32_t expert : found->second) visit(token, expert);
  }
}

void visit_parts(const RoutingTrace& trace,
                 const Step& step,
                 int64_t max_rows,
                 const std::function<void(const LayerPart&)>& visit) {
  int32_t num_layers = 0;
  for (const TracedToken& token : step.tokens) {
    if (!token.experts_of.empty()) {
      num_layers = std::max(num_layers, token.experts_of.rbegin()->first + 1);
    }
  }
  const bool is_alone = step.tokens.size() == 1;
  LayerPart part;
  for (part.layer = 0; part.layer < num_layers; ++part.layer) {
    part.num_rows.assign(trace.num_experts, 0);
    part.num_decode_rows.assign(trace.num_experts, 0);
    visit_choices(step.tokens, part.layer, [&](const TracedToken& token, int32_t expert) {
      ++part.num_rows[expert];
      part.num_decode_rows[expert] += is_alone || token.is_generated();
    });
    for (size_t first = 0; first < step.tokens.size(); first += static_cast<size_t>(max_rows)) {
      const size_t count = std::min(static_cast<size_t>(max_rows), step.tokens.size() - first);
      part.experts.clear();
      visit_choices(step.tokens.subspan(first, count), part.layer,
                    [&](const TracedToken&, int32_t expert) { part.experts.push_back(expert); });
      std::sort(part.experts.begin(), part.experts.end());
      part.experts.erase(std::unique(part.experts.begin(), part.experts.end()), part.experts.end());
      if (!part.experts.empty()) visit(part);
    }
  }
}

int num_layers_of(const RoutingTrace& trace) {
  int32_t last = 0;
  for (const TracedToken& token : trace.tokens) {
    if (!token.experts_of.empty()) last = std::max(last, token.experts_of.rbegin()->first);
  }
  return last + 1;
}

}  // namespace

std::vector<ExpertKey> uses_of(const RoutingTrace& trace, const ReplayOptions& options) {
  std::vector<ExpertKey> uses;
  visit_steps(trace, [&](const Step& step) {
    visit_parts(trace, step, options.max_rows, [&](const LayerPart& part) {
      for (const int32_t expert : part.experts) uses.push_back({part.layer, expert});
    });
  });
  return uses;
}

ReplayResult replay(const RoutingTrace& trace,
                    const ReplayOptions& options,
                    std::unique_ptr<EvictionPolicy> policy) {
  InstantFetcher fetcher;
  ExpertCounters counters(num_layers_of(trace), trace.num_experts);
  ExpertPool pool({.num_layers = counters.num_layers(),
                   .num_moe_layers = trace.num_layers,
                   .num_experts = trace.num_experts,
                   .num_slots = options.num_slots,
                   .top_k = trace.top_k()},
                  std::move(policy), fetcher, counters);
  const std::unique_ptr<RoutingObserver> prefetcher =
      options.make_prefetcher ? options.make_prefetcher(pool) : nullptr;
  TracedRows rows(trace.top_k());
  ReplayResult result;
  visit_steps(trace, [&](const Step& step) {
    const ExpertUseCounts before = counters.total();
    if (prefetcher != nullptr) prefetcher->on_step(rows.begin_step(step.tokens));
    int32_t told_layer = -1;
    visit_parts(trace, step, options.max_rows, [&](const LayerPart& part) {
      pool.begin(part.layer, part.experts, part.num_rows, part.num_decode_rows);
      if (prefetcher != nullptr && part.layer != told_layer) {
        prefetcher->on_routing(rows.routing_of(part.layer));
        told_layer = part.layer;
      }
      while (!pool.next().empty()) continue;
      pool.end();
    });
    pool.end_step(step.is_generated || step.tokens.size() == 1);
    if (prefetcher != nullptr) prefetcher->on_step_end();
    ExpertUseCounts counts = counters.total();
    counts -= before;
    ReplayCount& count = step.is_generated ? result.generated : result.prompt;
    count.num_tokens += static_cast<int64_t>(step.tokens.size());
    count.num_uses += counts.num_uses;
    count.num_hits += counts.num_hits;
    count.num_prefetches += counts.num_prefetches;
    count.num_useful_prefetches += counts.num_useful_prefetches;
  });
  return result;
}

}  // namespace augur
