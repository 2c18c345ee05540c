// A page of metrics under construction, and histograms that are told many values at once.
#pragma once

#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>

#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace augur::server {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

/// Families in the order in which their first value came.
/// Threading: one thread.
class MetricFamilies {
 public:
  /// Adds a value to the family `name`. `help` is that of the first value. Requires that all values
  /// of a family are of one type.
  void add_counter(std::string_view name,
                   std::string_view help,
                   double value,
                   MetricLabels labels = {});
  void add_gauge(std::string_view name,
                 std::string_view help,
                 double value,
                 MetricLabels labels = {});
  void add_histogram(std::string_view name,
                     std::string_view help,
                     prometheus::ClientMetric value,
                     MetricLabels labels = {});

  /// The families whose name `renames` maps, once more under the new name and with `labels` before
  /// their own.
  void add_renamed(std::span<const std::pair<std::string_view, std::string_view>> renames,
                   const MetricLabels& labels);

  /// In the text format of Prometheus.
  std::string text() const;

 private:
  void add(std::string_view name,
           std::string_view help,
           prometheus::MetricType type,
           prometheus::ClientMetric value,
           MetricLabels labels);

  std::vector<prometheus::MetricFamily> families_;
  std::unordered_map<std::string, size_t> idx_by_name_;
};

/// A histogram that takes the values of a step with one lock and without memory.
/// Threading: any thread.
class BatchHistogram {
 public:
  /// `bounds` rise; a value counts in the first bucket whose bound it does not exceed.
  explicit BatchHistogram(std::vector<double> bounds);

  void observe(std::span<const double> values);
  void observe(double value) { observe(std::span(&value, 1)); }
  prometheus::ClientMetric collect() const { return histogram_.Collect(); }

 private:
  const std::vector<double> bounds_;
  std::mutex mutex_;
  std::vector<double> counts_;  // of the batch at hand, by bucket
  prometheus::Histogram histogram_;
};

}  // namespace augur::server
