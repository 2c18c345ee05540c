#include "engine/model/route_metrics.h"

#include <string>
#include <string_view>

namespace augur {
namespace {

constexpr double kSecondsOfUs = 1e-6;

class Emitter {
 public:
  Emitter(const RouteReport& report, std::vector<Metric>& metrics)
      : report_(report), metrics_(metrics) {}

  void counter(std::string_view name, std::string_view help, double value) {
    metrics_.push_back({name, help, MetricKind::kCounter, {}, {}, value});
  }
  void gauge(std::string_view name, std::string_view help, double value) {
    metrics_.push_back({name, help, MetricKind::kGauge, {}, {}, value});
  }
  template <typename ValueOf>
  void counter_by_layer(std::string_view name, std::string_view help, const ValueOf& value_of) {
    by_layer(name, help, MetricKind::kCounter, value_of);
  }
  template <typename ValueOf>
  void gauge_by_layer(std::string_view name, std::string_view help, const ValueOf& value_of) {
    by_layer(name, help, MetricKind::kGauge, value_of);
  }

 private:
  template <typename ValueOf>
  void by_layer(std::string_view name,
                std::string_view help,
                MetricKind kind,
                const ValueOf& value_of) {
    for (const RouteReport::Layer& layer : report_.layers) {
      metrics_.push_back({name, help, kind, "layer", std::to_string(layer.layer_idx),
                          static_cast<double>(value_of(layer))});
    }
  }

  const RouteReport& report_;
  std::vector<Metric>& metrics_;
};

using Layer = RouteReport::Layer;

void emit_gates(const RouteReport& report, Emitter& emitter) {
  emitter.counter_by_layer("route_cache_rows", "Rows that came to a layer's gate",
                           [](const Layer& layer) { return layer.gate.num_rows; });
  emitter.counter_by_layer("route_cache_answered_rows",
                           "Rows that the route cache routed in the gate's place",
                           [](const Layer& layer) { return layer.gate.num_answered_rows; });
  emitter.counter("route_cache_gate_seconds", "Running gates, beside the route cache",
                  report.total_gate().gate_us * kSecondsOfUs);
  emitter.counter("route_cache_look_up_seconds", "Looking up in the route cache",
                  (report.total_gate().look_up_us + report.find_texts_us) * kSecondsOfUs);
}

void emit_by_state(const RouteReport& report, Emitter& emitter) {
  const RouteCounts total = report.total_by_state();
  emitter.gauge("route_cache_hit_rate", "Share of look-ups that found a state alike",
                total.hit_rate());
  emitter.gauge("route_cache_agreement", "Share of experts that checked hits and gates chose both",
                total.agreement());
  emitter.counter_by_layer("route_cache_look_ups", "Rows looked up",
                           [](const Layer& layer) { return layer.by_state.counts.num_look_ups; });
  emitter.counter_by_layer("route_cache_hits", "Look-ups that found a state alike",
                           [](const Layer& layer) { return layer.by_state.counts.num_hits; });
  emitter.counter_by_layer("route_cache_checks", "Hits that were compared with the gate's choice",
                           [](const Layer& layer) { return layer.by_state.counts.num_checks; });
  emitter.counter_by_layer(
      "route_cache_checked_experts", "Experts of compared hits",
      [](const Layer& layer) { return layer.by_state.counts.num_checked_experts; });
  emitter.counter_by_layer(
      "route_cache_agreed_experts", "Of them, those that the gate chose too",
      [](const Layer& layer) { return layer.by_state.counts.num_agreed_experts; });
  emitter.gauge_by_layer("route_cache_threshold", "Cosine from which a state is alike",
                         [](const Layer& layer) { return layer.by_state.threshold; });
  emitter.gauge_by_layer("route_cache_switched_off", "1 for a layer that is served no more",
                         [](const Layer& layer) { return layer.by_state.is_switched_off; });
}

void emit_by_tokens(const RouteReport& report, Emitter& emitter) {
  const ExactRoutes::Counts& counts = report.by_tokens;
  const auto num_rows = static_cast<double>(counts.num_rows);
  const auto num_known = static_cast<double>(counts.num_known_rows);
  emitter.gauge("route_cache_hit_rate", "Share of rows whose text was known in all layers",
                num_rows > 0 ? num_known / num_rows : 0);
  emitter.counter("route_cache_known_rows", "Rows whose text was known in all layers", num_known);
  emitter.counter("route_cache_lost_rows", "Rows whose text could not be followed",
                  static_cast<double>(counts.num_lost_rows));
  emitter.counter("route_cache_evictions", "Tokens forgotten for new ones",
                  static_cast<double>(counts.num_evictions));
}

}  // namespace

void append_route_metrics(const RouteReport& report, std::vector<Metric>& metrics) {
  Emitter emitter(report, metrics);
  emitter.gauge("route_cache_lossy", "1 where the route cache may change results",
                report.serves && !report.is_exact ? 1 : 0);
  emit_gates(report, emitter);
  if (report.is_exact) {
    emit_by_tokens(report, emitter);
  } else {
    emit_by_state(report, emitter);
  }
}

}  // namespace augur
