// The report for programs; see report.h.
#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>
#include <limits>

#include "tools/serve_bench/report.h"

namespace augur::serve_bench {
namespace {

namespace json = boost::json;

void add_latency(json::object& result,
                 const std::vector<double>& percentiles,
                 std::string_view name,
                 const Distribution& figures) {
  const auto add = [&](std::string_view statistic, double value) {
    const std::string key = fmt::format("{}_{}_ms", statistic, name);
    if (figures.count > 0) {
      result[key] = value;
    } else {
      result[key] = nullptr;
    }
  };
  add("mean", figures.mean);
  add("median", figures.median);
  add("std", figures.std);
  for (size_t i = 0; i < percentiles.size(); ++i)
    add(fmt::format("p{:g}", percentiles[i]), figures.percentiles[i]);
  add("max", figures.max);
}

void add_settings(json::object& result, const Report& report) {
  const Options& options = report.options;
  result["url"] = options.url;
  result["model_id"] = report.model;
  result["endpoint_type"] = options.endpoint == Endpoint::kChat ? "openai-chat" : "openai";
  result["stream"] = options.is_streamed;
  if (report.num_requests == std::numeric_limits<int64_t>::max()) {
    result["num_prompts"] = nullptr;
  } else {
    result["num_prompts"] = report.num_requests;
  }
  result["max_duration"] = options.duration_s;
  result["num_warmups"] = options.num_warmups;
  if (std::isinf(options.rate)) {
    result["request_rate"] = "inf";
  } else {
    result["request_rate"] = options.rate;
  }
  result["arrival"] = options.arrival == Arrival::kConstant ? "constant" : "poisson";
  result["burstiness"] = options.burstiness;
  result["max_concurrency"] =
      options.concurrency > 0 ? json::value(options.concurrency) : json::value();
  result["seed"] = options.seed;
  result["dataset"] = options.dataset.empty() ? "random" : options.dataset;
  result["random_input_len"] = options.input_tokens;
  result["random_output_len"] = options.output_tokens;
  result["random_range_ratio"] = options.range_ratio;
  result["random_prefix_len"] = options.shared_prefix_tokens;
  result["num_prefixes"] = options.num_prefix_groups;
  result["vocab_size"] = report.vocab_size;
  result["ignore_eos"] = options.ignore_eos.value_or(options.dataset.empty());
  result["temperature"] = options.temperature;
  result["abort_share"] = options.abort_share;
  result["extra_body"] = options.extra_body;
}

json::object failures_of(const Summary& summary) {
  json::object result;
  for (const auto& [kind, failure] : summary.failures)
    result[kind] = {{"count", failure.count}, {"example", failure.example}};
  return result;
}

json::object refusals_of(const Summary& summary) {
  json::object result;
  for (const auto& [status, refusal] : summary.refusals)
    result[std::to_string(status)] = {{"count", refusal.count}, {"example", refusal.example}};
  return result;
}

void add_counts(json::object& result, const Report& report) {
  const Summary& summary = report.summary;
  result["duration"] = summary.duration_s;
  result["completed"] = summary.num_ok;
  result["failed"] = summary.num_failed;
  result["failures"] = failures_of(summary);
  result["refused"] = summary.num_refused;
  result["refusals"] = refusals_of(summary);
  result["refused_with_retry_after"] = summary.num_with_retry_after;
  result["mean_refusal_ms"] = summary.mean_refusal_ms;
  result["aborted"] = summary.num_aborted;
  result["aborted_chunks"] = summary.num_aborted_chunks;
  result["cut_off"] = summary.num_cut_off;
  result["gave_up"] = report.phase.gave_up;
  result["interrupted"] = report.phase.is_interrupted;
  result["total_input_tokens"] = summary.input_tokens;
  result["total_output_tokens"] = summary.output_tokens;
  result["counted_by_chunks"] = summary.num_counted_by_chunks;
  result["unknown_prompts"] = summary.num_unknown_prompts;
  result["without_content"] = report.options.is_streamed ? summary.num_without_content : 0;
}

void add_client(json::object& result, const Report& report) {
  result["client_cpu_share"] = report.phase.cpu_share;
  result["client_busiest_cpu_share"] = report.phase.busiest_cpu_share;
  result["max_send_lateness_ms"] = report.phase.max_lateness_ms;
  result["held_back_arrivals"] = report.phase.num_delayed;
  result["connections"] = report.client.connections;
  result["reused_connections"] = report.client.reused;
  result["resent_requests"] = report.client.resent;
}

}  // namespace

std::string format_json(const Report& report) {
  const Summary& summary = report.summary;
  json::object result;
  add_settings(result, report);
  add_counts(result, report);
  result["request_throughput"] = summary.request_throughput;
  result["request_goodput"] =
      report.options.goodput.is_asked() ? json::value(summary.goodput) : json::value();
  result["output_throughput"] = summary.output_throughput;
  result["total_token_throughput"] = summary.total_throughput;
  result["concurrency"] = summary.concurrency;
  result["max_concurrent_requests"] = report.phase.peak_in_flight;
  result["user_speed"] = summary.user_speed;
  const std::vector<double>& percentiles = report.options.percentiles;
  add_latency(result, percentiles, "ttft", summary.ttft_ms);
  add_latency(result, percentiles, "tpot", summary.tpot_ms);
  add_latency(result, percentiles, "itl", summary.itl_ms);
  add_latency(result, percentiles, "e2el", summary.e2e_ms);
  add_client(result, report);
  return json::serialize(result) + "\n";
}

}  // namespace augur::serve_bench
