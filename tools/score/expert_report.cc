#include "tools/score/expert_report.h"

#include <fmt/format.h>
#include <boost/json/serialize.hpp>

#include <cmath>
#include <iterator>

#include "engine/progress.h"

namespace augur::score {
namespace {

double percent(double part, double whole) {
  return whole > 0 ? 100 * part / whole : 0;
}

/// Whole numbers without a fraction, so that counts read as counts.
std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  const bool is_whole = std::nearbyint(value) == value && std::abs(value) < 9e15;
  return is_whole ? fmt::format("{}", static_cast<int64_t>(value)) : fmt::format("{:.9g}", value);
}

std::string json_string(std::string_view text) {
  return boost::json::serialize(boost::json::string_view(text.data(), text.size()));
}

std::string misses_text(const ExpertUseCounts& total) {
  std::string text;
  for (int i = 0; i < kNumMissCauses; ++i) {
    if (total.misses[i] == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", format_count(total.misses[i]),
                        name_of(static_cast<MissCause>(i)));
  }
  return text;
}

std::string misses_json(const ExpertUseCounts& counts) {
  std::string text;
  for (int i = 0; i < kNumMissCauses; ++i) {
    text += fmt::format("{}{}:{}", i > 0 ? "," : "",
                        json_string(name_of(static_cast<MissCause>(i))), counts.misses[i]);
  }
  return "{" + text + "}";
}

std::string expert_json(const ExpertView& view, ExpertKey key) {
  const ExpertHistory& history = view.counters.history(key);
  const auto num_steps = static_cast<double>(view.counters.num_steps);
  const auto resident_steps = static_cast<double>(view.pool.resident_steps(key));
  return fmt::format(
      "{{\"expert\":{},\"uses\":{},\"hits\":{},\"prefetches\":{},\"resident_share\":{:.6g}}}",
      key.expert, history.num_uses, history.num_hits, history.num_prefetches,
      num_steps > 0 ? resident_steps / num_steps : 0);
}

std::string layer_json(const ExpertView& view, int layer) {
  const ExpertUseCounts& counts = view.counters.layer(layer);
  std::string text = fmt::format(
      "{{\"layer\":{},\"uses\":{},\"hits\":{},\"hit_rate\":{:.6g},\"misses\":{},"
      "\"prefetches\":{},\"useful_prefetches\":{},\"wasted_prefetches\":{},\"resident\":{},"
      "\"experts\":[",
      layer, counts.num_uses, counts.num_hits, counts.hit_rate(), misses_json(counts),
      counts.num_prefetches, counts.num_useful_prefetches, counts.num_wasted_prefetches,
      view.pool.num_resident(layer));
  for (int expert = 0; expert < view.pool.shape().num_experts; ++expert) {
    text += expert > 0 ? ",\n   " : "\n   ";
    text += expert_json(view, {layer, expert});
  }
  return text + "]}";
}

}  // namespace

std::vector<std::string> expert_summary_lines(const ExpertView& view, double seconds) {
  const ExpertCounters& counters = view.counters;
  const ExpertUseCounts total = counters.total();
  std::vector<std::string> lines;
  lines.push_back(fmt::format("experts: {:.1f} % of {} uses found theirs in the pool of {} of {}",
                              100 * total.hit_rate(), format_count(total.num_uses),
                              format_count(view.pool.shape().num_slots),
                              format_count(view.num_experts())));
  if (const std::string misses = misses_text(total); !misses.empty())
    lines.push_back("experts missed: " + misses);
  const auto wasted = static_cast<double>(counters.wasted_prefetch_bytes);
  const double ahead = static_cast<double>(counters.useful_prefetch_bytes) + wasted;
  std::string read =
      fmt::format("experts read: {} on demand",
                  format_decimal_bytes(static_cast<double>(counters.demand_bytes())));
  if (total.num_prefetches > 0) {
    read += fmt::format(", {} ahead ({:.1f} % of it wasted)", format_decimal_bytes(ahead),
                        percent(wasted, ahead));
  }
  lines.push_back(read);
  const double stall_seconds = static_cast<double>(counters.stall_us) * 1e-6;
  lines.push_back(fmt::format("waited for experts: {:.2f} s, {:.1f} % of the run", stall_seconds,
                              percent(stall_seconds, seconds)));
  if (counters.num_failed_fetches > 0) {
    lines.push_back(fmt::format("experts could not be read {} times",
                                format_count(counters.num_failed_fetches)));
  }
  return lines;
}

std::string route_summary_line(const RouteReport& report) {
  const RouteReport::Gate gate = report.total_gate();
  std::string line = fmt::format(
      "route cache: {:.1f} % of {} rows answered",
      percent(static_cast<double>(gate.num_answered_rows), static_cast<double>(gate.num_rows)),
      format_count(gate.num_rows));
  if (!report.is_exact) {
    const RouteCounts total = report.total_by_state();
    line += fmt::format(", {:.1f} % found alike, {:.1f} % agreement where checked",
                        100 * total.hit_rate(), 100 * total.agreement());
  }
  return line + (report.serves && !report.is_exact ? " (lossy)" : "");
}

std::string low_bit_summary_line(const LowBitCounts& counts) {
  return fmt::format("int8 copies: served {:.2f} % of the gate mass (lossy) and saved reading {}",
                     100 * counts.low_bit_share(),
                     format_decimal_bytes(static_cast<double>(counts.avoided_bytes)));
}

std::string metrics_json(std::span<const Metric> metrics) {
  std::string text;
  for (size_t i = 0; i < metrics.size(); ++i) {
    const Metric& metric = metrics[i];
    const bool goes_on = i > 0 && metrics[i - 1].name == metric.name;
    const bool has_label = !metric.label_name.empty();
    if (i > 0) text += ',';
    if (!goes_on) text += json_string(metric.name) + (has_label ? ":{" : ":");
    if (has_label) text += json_string(metric.label) + ":";
    text += number(metric.value);
    const bool is_last = i + 1 == metrics.size() || metrics[i + 1].name != metric.name;
    if (has_label && is_last) text += '}';
  }
  return "{" + text + "}";
}

std::vector<Metric> without_layers(std::span<const Metric> metrics) {
  std::vector<Metric> kept;
  std::copy_if(metrics.begin(), metrics.end(), std::back_inserter(kept),
               [](const Metric& metric) { return metric.label_name != "layer"; });
  return kept;
}

std::string expert_report_json(const ExpertView& view,
                               std::span<const Metric> metrics,
                               const std::string& model) {
  std::string text = fmt::format("{{\"model\":{},\n\"metrics\":{},\n\"layers\":[",
                                 json_string(model), metrics_json(metrics));
  for (size_t i = 0; i < view.moe_layers.size(); ++i) {
    text += i > 0 ? ",\n  " : "\n  ";
    text += layer_json(view, view.moe_layers[i]);
  }
  return text + "]}\n";
}

}  // namespace augur::score
