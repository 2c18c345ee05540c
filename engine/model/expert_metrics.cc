#include "engine/model/expert_metrics.h"

#include <array>
#include <utility>

namespace augur {
namespace {

class MetricList {
 public:
  explicit MetricList(std::vector<Metric>& metrics) : metrics_(metrics) {}

  template <typename Value>
  void counter(std::string_view name, std::string_view help, Value value) {
    add({name, help, MetricKind::kCounter, {}, {}, static_cast<double>(value)});
  }
  template <typename Value>
  void gauge(std::string_view name, std::string_view help, Value value) {
    add({name, help, MetricKind::kGauge, {}, {}, static_cast<double>(value)});
  }
  void add(Metric metric) { metrics_.push_back(std::move(metric)); }

 private:
  std::vector<Metric>& metrics_;
};

/// `counts` by cause of a miss.
void add_by_cause(std::string_view name,
                  std::string_view help,
                  const std::array<int64_t, kNumMissCauses>& counts,
                  MetricList& list) {
  for (int i = 0; i < kNumMissCauses; ++i) {
    list.add({name, help, MetricKind::kCounter, "cause",
              std::string(name_of(static_cast<MissCause>(i))), static_cast<double>(counts[i])});
  }
}

/// `value_of(layer)` of each layer that has experts.
template <typename ValueOf>
void add_by_layer(std::string_view name,
                  std::string_view help,
                  MetricKind kind,
                  const ExpertView& view,
                  const ValueOf& value_of,
                  MetricList& list) {
  for (const int layer : view.moe_layers) {
    list.add(
        {name, help, kind, "layer", std::to_string(layer), static_cast<double>(value_of(layer))});
  }
}

void add_uses(const ExpertView& view, MetricList& list) {
  const ExpertUseCounts total = view.counters.total();
  list.counter("expert_uses", "Experts wanted, each once a step and layer", total.num_uses);
  list.counter("expert_hits", "Uses that found their expert in the pool", total.num_hits);
  list.gauge("expert_hit_rate", "Share of uses that found their expert in the pool",
             total.hit_rate());
  add_by_cause("expert_misses", "Uses that did not, by why", total.misses, list);
}

void add_reads(const ExpertView& view, MetricList& list) {
  const ExpertCounters& counters = view.counters;
  const ExpertUseCounts total = counters.total();
  add_by_cause("expert_demand_bytes", "Read because an expert was not there when it was wanted",
               counters.demand_bytes_by_cause, list);
  list.counter("expert_prefetches", "Predicted experts that were begun to be fetched",
               total.num_prefetches);
  constexpr std::string_view kEnded =
      "Predicted experts that were wanted, in time or late, and not";
  list.add({"expert_prefetches_ended", kEnded, MetricKind::kCounter, "outcome", "useful",
            static_cast<double>(total.num_useful_prefetches)});
  list.add({"expert_prefetches_ended", kEnded, MetricKind::kCounter, "outcome", "wasted",
            static_cast<double>(total.num_wasted_prefetches)});
  constexpr std::string_view kBytes =
      "Read for predicted experts that were wanted in time, and not";
  list.add({"expert_prefetch_bytes", kBytes, MetricKind::kCounter, "outcome", "useful",
            static_cast<double>(counters.useful_prefetch_bytes)});
  list.add({"expert_prefetch_bytes", kBytes, MetricKind::kCounter, "outcome", "wasted",
            static_cast<double>(counters.wasted_prefetch_bytes)});
  list.counter("expert_failed_fetches", "Experts that could not be read",
               counters.num_failed_fetches);
}

void add_time(const ExpertView& view, MetricList& list) {
  list.counter("expert_stall_seconds", "Time that layers waited for experts",
               static_cast<double>(view.counters.stall_us) * 1e-6);
  list.counter("expert_steps", "Steps run with the pool", view.counters.num_steps);
  list.counter("expert_passes", "Groups of experts that layers were run in",
               view.counters.num_passes);
}

void add_pool(const ExpertView& view, MetricList& list) {
  const int num_slots = view.pool.shape().num_slots;
  list.gauge("expert_pool_slots", "Experts that the pool holds at most", num_slots);
  list.gauge("expert_pool_bytes", "Memory of the pool", num_slots * view.slot_bytes);
  list.gauge("experts", "Experts of the model, of all layers", view.num_experts());
  list.gauge("expert_fetching", "Experts being fetched now", view.pool.num_fetching());
}

void add_layers(const ExpertView& view, MetricList& list) {
  const ExpertCounters& counters = view.counters;
  add_by_layer(
      "expert_layer_uses", "Experts wanted, by layer", MetricKind::kCounter, view,
      [&](int layer) { return counters.layer(layer).num_uses; }, list);
  add_by_layer(
      "expert_layer_hits", "Uses that found their expert in the pool, by layer",
      MetricKind::kCounter, view, [&](int layer) { return counters.layer(layer).num_hits; }, list);
  add_by_layer(
      "expert_layer_hit_rate", "Share of uses that found their expert in the pool, by layer",
      MetricKind::kGauge, view, [&](int layer) { return counters.layer(layer).hit_rate(); }, list);
  add_by_layer(
      "expert_layer_resident", "Experts in the pool now, by layer", MetricKind::kGauge, view,
      [&](int layer) { return view.pool.num_resident(layer); }, list);
}

}  // namespace

ExpertView view_of(const ExpertMemory& memory, const ModelConfig& config) {
  return {memory.counters(), memory.pool(), memory.slot_bytes(), config.moe_layers()};
}

void append_expert_metrics(const ExpertView& view, std::vector<Metric>& metrics) {
  MetricList list(metrics);
  add_uses(view, list);
  add_reads(view, list);
  add_time(view, list);
  add_pool(view, list);
  add_layers(view, list);
}

void append_low_bit_metrics(const LowBitCounts& counts, std::vector<Metric>& metrics) {
  MetricList list(metrics);
  list.gauge("expert_low_bit_mass", "Share of the gate mass that int8 copies served",
             counts.low_bit_share());
  list.counter("expert_choices", "Experts that rows chose", counts.num_choices);
  list.counter("expert_low_bit_choices", "Of them, those that int8 copies served",
               counts.num_low_bit_choices);
  list.counter("expert_avoided_bytes", "Reads that int8 copies made needless",
               counts.avoided_bytes);
}

}  // namespace augur
