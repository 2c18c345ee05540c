#include "engine/server/metric_families.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <sstream>

#include "kernels/require.h"

namespace augur::server {
namespace {

/// Help is one line; the serializer writes it as it is.
std::string one_line(std::string_view help) {
  std::string line;
  for (const char c : help) {
    if (c == '\\') line += '\\';
    line += c == '\n' || c == '\r' ? ' ' : c;
  }
  return line;
}

prometheus::ClientMetric counter(double value) {
  prometheus::ClientMetric metric;
  metric.counter.value = value;
  return metric;
}

prometheus::ClientMetric gauge(double value) {
  prometheus::ClientMetric metric;
  metric.gauge.value = value;
  return metric;
}

}  // namespace

void MetricFamilies::add_counter(std::string_view name,
                                 std::string_view help,
                                 double value,
                                 MetricLabels labels) {
  add(name, help, prometheus::MetricType::Counter, counter(value), std::move(labels));
}

void MetricFamilies::add_gauge(std::string_view name,
                               std::string_view help,
                               double value,
                               MetricLabels labels) {
  add(name, help, prometheus::MetricType::Gauge, gauge(value), std::move(labels));
}

void MetricFamilies::add_histogram(std::string_view name,
                                   std::string_view help,
                                   prometheus::ClientMetric value,
                                   MetricLabels labels) {
  add(name, help, prometheus::MetricType::Histogram, std::move(value), std::move(labels));
}

void MetricFamilies::add(std::string_view name,
                         std::string_view help,
                         prometheus::MetricType type,
                         prometheus::ClientMetric value,
                         MetricLabels labels) {
  const auto [found, is_new] = idx_by_name_.try_emplace(std::string(name), families_.size());
  if (is_new) families_.push_back({std::string(name), one_line(help), type, {}});
  prometheus::MetricFamily& family = families_[found->second];
  AUGUR_REQUIRE(family.type == type, std::string(name) + " has values of two types");
  for (auto& [label_name, label] : labels) {
    value.label.push_back({std::move(label_name), std::move(label)});
  }
  family.metric.push_back(std::move(value));
}

void MetricFamilies::add_renamed(
    std::span<const std::pair<std::string_view, std::string_view>> renames,
    const MetricLabels& labels) {
  for (const auto& [name, new_name] : renames) {
    const auto found = idx_by_name_.find(std::string(name));
    if (found == idx_by_name_.end()) continue;
    const prometheus::MetricFamily family = families_[found->second];
    for (prometheus::ClientMetric value : family.metric) {
      MetricLabels all = labels;
      for (const auto& label : value.label) all.emplace_back(label.name, label.value);
      value.label.clear();
      add(new_name, family.help, family.type, std::move(value), std::move(all));
    }
  }
}

std::string MetricFamilies::text() const {
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families_);
  return std::move(text).str();
}

BatchHistogram::BatchHistogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1), histogram_(bounds_) {}

void BatchHistogram::observe(std::span<const double> values) {
  if (values.empty()) return;
  const std::lock_guard lock(mutex_);
  std::fill(counts_.begin(), counts_.end(), 0);
  double sum = 0;
  for (const double value : values) {
    const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
    ++counts_[bucket];
    sum += value;
  }
  histogram_.ObserveMultiple(counts_, sum);
}

}  // namespace augur::server
