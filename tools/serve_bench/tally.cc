#include "tools/serve_bench/tally.h"

#include <algorithm>
#include <cmath>

namespace augur::serve_bench {
namespace {

double percentile_of(const std::vector<float>& sorted, double percent) {
  const double place = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const double share = place - static_cast<double>(below);
  const double value = sorted[below];
  return share == 0 ? value : value + share * (sorted[below + 1] - value);
}

Distribution distribution_of(const Histogram& histogram, const std::vector<double>& percentiles) {
  Distribution result;
  result.count = histogram.count();
  result.mean = histogram.mean_us() / 1000;
  result.median = histogram.percentile_us(50) / 1000;
  result.std = histogram.std_us() / 1000;
  result.max = static_cast<double>(histogram.max_us()) / 1000;
  for (const double percent : percentiles)
    result.percentiles.push_back(histogram.percentile_us(percent) / 1000);
  return result;
}

double per_second(int64_t count, double duration_s) {
  return duration_s > 0 ? static_cast<double>(count) / duration_s : 0;
}

}  // namespace

Distribution distribution_of(std::vector<float> samples, const std::vector<double>& percentiles) {
  Distribution result;
  result.percentiles.assign(percentiles.size(), 0);
  if (samples.empty()) return result;
  std::sort(samples.begin(), samples.end());
  result.count = static_cast<int64_t>(samples.size());
  const auto count = static_cast<double>(samples.size());
  double sum = 0;
  for (const float sample : samples) sum += sample;
  result.mean = sum / count;
  double squares = 0;
  for (const float sample : samples) squares += (sample - result.mean) * (sample - result.mean);
  result.std = std::sqrt(squares / count);
  result.median = percentile_of(samples, 50);
  result.max = samples.back();
  for (size_t i = 0; i < percentiles.size(); ++i)
    result.percentiles[i] = percentile_of(samples, percentiles[i]);
  return result;
}

RequestFigures Tally::add(const RequestEvents& events) {
  const RequestFigures figures = figures_of(events, goodput_);
  ++num_ended_;
  in_flight_ms_ += figures.e2e_ms;
  switch (events.outcome) {
    case Outcome::kOk:
      add_ok(events, figures);
      break;
    case Outcome::kFailed:
      add_failure(events);
      break;
    case Outcome::kRefused: {
      ++counts_.num_refused;
      refusal_ms_ += figures.e2e_ms;
      counts_.num_with_retry_after += events.retry_after_s.has_value();
      Failure& refusal = counts_.refusals[events.status];
      if (refusal.count++ == 0) refusal.example = events.detail;
      break;
    }
    case Outcome::kAborted:
      ++counts_.num_aborted;
      counts_.num_aborted_chunks += static_cast<int64_t>(events.content_us.size());
      break;
    case Outcome::kCutOff:
      ++counts_.num_cut_off;
      break;
  }
  return figures;
}

void Tally::add_ok(const RequestEvents& events, const RequestFigures& figures) {
  ++counts_.num_ok;
  counts_.num_good += figures.is_good;
  counts_.input_tokens += figures.prompt_tokens;
  counts_.output_tokens += figures.output_tokens;
  counts_.num_counted_by_chunks += !figures.is_counted_by_usage;
  counts_.num_unknown_prompts += !figures.is_prompt_known;
  counts_.num_without_content += events.content_us.empty();
  e2e_ms_.push_back(static_cast<float>(figures.e2e_ms));
  if (figures.ttft_ms) ttft_ms_.push_back(static_cast<float>(*figures.ttft_ms));
  if (figures.tpot_ms) tpot_ms_.push_back(static_cast<float>(*figures.tpot_ms));
  for (size_t i = 1; i < events.content_us.size(); ++i)
    itl_.add(events.content_us[i] - events.content_us[i - 1]);
}

void Tally::add_failure(const RequestEvents& events) {
  ++counts_.num_failed;
  const bool is_full = counts_.failures.size() >= kMaxFailureKinds;
  const bool is_known = counts_.failures.contains(events.failure);
  Failure& failure = counts_.failures[is_full && !is_known ? "others" : events.failure];
  if (failure.count++ == 0) failure.example = events.detail;
}

Summary Tally::summarize(double duration_s, const std::vector<double>& percentiles) const {
  Summary summary = counts_;
  summary.duration_s = duration_s;
  summary.ttft_ms = distribution_of(ttft_ms_, percentiles);
  summary.tpot_ms = distribution_of(tpot_ms_, percentiles);
  summary.e2e_ms = distribution_of(e2e_ms_, percentiles);
  summary.itl_ms = distribution_of(itl_, percentiles);
  if (summary.num_refused > 0)
    summary.mean_refusal_ms = refusal_ms_ / static_cast<double>(summary.num_refused);
  if (duration_s > 0) summary.concurrency = in_flight_ms_ / 1000 / duration_s;
  summary.request_throughput = per_second(summary.num_ok, duration_s);
  summary.goodput = per_second(summary.num_good, duration_s);
  summary.output_throughput = per_second(summary.output_tokens, duration_s);
  summary.total_throughput = per_second(summary.input_tokens + summary.output_tokens, duration_s);
  if (summary.tpot_ms.mean > 0) summary.user_speed = 1000 / summary.tpot_ms.mean;
  return summary;
}

}  // namespace augur::serve_bench
