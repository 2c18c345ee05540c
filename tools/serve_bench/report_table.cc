// The table for people; see report.h.
#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <limits>

#include "tools/serve_bench/report.h"

namespace augur::serve_bench {
namespace {

constexpr int kWidth = 58;
constexpr int kNameWidth = 44;

// Two columns, filled row by row.
class Table {
 public:
  void title(std::string_view text, char fill) {
    fmt::format_to(out(), "{}\n", centred(text.empty() ? "" : fmt::format(" {} ", text), fill));
  }
  void heading(std::string_view text) { fmt::format_to(out(), "{}\n", centred(text, '-')); }
  void row(std::string_view name, int64_t value) { text_row(name, fmt::format("{}", value)); }
  void row(std::string_view name, double value, int digits = 2) {
    text_row(name, fmt::format("{:.{}f}", value, digits));
  }
  void text_row(std::string_view name, std::string_view value) {
    fmt::format_to(out(), "{:<{}}{}\n", name, kNameWidth, value);
  }
  void line(std::string_view text) { fmt::format_to(out(), "{}\n", text); }
  std::string take() { return std::move(text_); }

 private:
  std::back_insert_iterator<std::string> out() { return std::back_inserter(text_); }
  static std::string centred(std::string_view text, char fill) {
    const size_t num_fill = text.size() < kWidth ? kWidth - text.size() : 0;
    return std::string(num_fill / 2, fill) + std::string(text) +
           std::string(num_fill - num_fill / 2, fill);
  }
  std::string text_;
};

void add_latency(Table& table,
                 const Report& report,
                 std::string_view heading,
                 std::string_view name,
                 const Distribution& figures) {
  if (figures.count == 0) return;
  table.heading(heading);
  table.row(fmt::format("Mean {} (ms):", name), figures.mean);
  table.row(fmt::format("Median {} (ms):", name), figures.median);
  for (size_t i = 0; i < figures.percentiles.size(); ++i) {
    const double percent = report.options.percentiles[i];
    if (percent == 50) continue;
    table.row(fmt::format("P{:g} {} (ms):", percent, name), figures.percentiles[i]);
  }
  table.row(fmt::format("Max {} (ms):", name), figures.max);
}

void add_counts(Table& table, const Report& report) {
  const Summary& summary = report.summary;
  table.row("Successful requests:", summary.num_ok);
  table.row("Failed requests:", summary.num_failed);
  for (const auto& [kind, failure] : summary.failures)
    table.row(fmt::format("  {}:", kind), failure.count);
  table.row("Refused requests (429, 503):", summary.num_refused);
  for (const auto& [status, refusal] : summary.refusals)
    table.row(fmt::format("  HTTP {}:", status), refusal.count);
  if (summary.num_refused > 0) {
    table.row("  with Retry-After:", summary.num_with_retry_after);
    table.row("  Mean time to refusal (ms):", summary.mean_refusal_ms);
  }
  if (report.options.abort_share > 0) {
    table.row("Requests aborted by this client:", summary.num_aborted);
    table.row("  chunks they had by then:", summary.num_aborted_chunks);
  }
  if (summary.num_cut_off > 0) table.row("Cut off by the interrupt:", summary.num_cut_off);
}

void add_load(Table& table, const Report& report) {
  const Summary& summary = report.summary;
  if (report.options.concurrency > 0)
    table.row("Maximum request concurrency:", report.options.concurrency);
  if (!std::isinf(report.options.rate))
    table.row("Request rate configured (RPS):", report.options.rate);
  table.row("Benchmark duration (s):", summary.duration_s);
  table.row("Total input tokens:", summary.input_tokens);
  table.row("Total generated tokens:", summary.output_tokens);
  table.row("Request throughput (req/s):", summary.request_throughput);
  if (report.options.goodput.is_asked()) table.row("Request goodput (req/s):", summary.goodput);
  table.row("Output token throughput (tok/s):", summary.output_throughput);
  table.row("Total token throughput (tok/s):", summary.total_throughput);
  table.row("Concurrency:", summary.concurrency);
  table.row("Peak concurrent requests:", report.phase.peak_in_flight);
  if (summary.user_speed > 0) table.row("Speed per user, 1/TPOT (tok/s):", summary.user_speed);
}

void add_client(Table& table, const Report& report) {
  table.heading("Client");
  table.row("Client CPU (% of one core):", report.phase.cpu_share * 100, 1);
  table.row("  in the busiest second (%):", report.phase.busiest_cpu_share * 100, 1);
  if (!std::isinf(report.options.rate)) {
    table.row("Latest send after its arrival (ms):", report.phase.max_lateness_ms);
    if (report.options.concurrency > 0)
      table.row("Arrivals held back by --concurrency:", report.phase.num_delayed);
  }
  table.row("Connections opened:", report.client.connections);
}

void add_notes(Table& table, const Report& report) {
  const Summary& summary = report.summary;
  if (summary.num_counted_by_chunks > 0)
    table.line(fmt::format("Note: {} requests came without usage: their output tokens are chunks.",
                           summary.num_counted_by_chunks));
  if (summary.num_unknown_prompts > 0)
    table.line(fmt::format("Note: the input tokens of {} requests are not known and count as 0.",
                           summary.num_unknown_prompts));
  if (report.options.is_streamed && summary.num_without_content > 0)
    table.line(fmt::format("Note: {} requests succeeded without any text: they have no TTFT.",
                           summary.num_without_content));
  for (const auto& [kind, failure] : summary.failures)
    table.line(fmt::format("Failed, {}: {}", kind, failure.example));
  for (const auto& [status, refusal] : summary.refusals)
    table.line(fmt::format("Refused, HTTP {}: {}", status, refusal.example));
  if (report.phase.gave_up)
    table.line("Warning: given up, since no connection could be had many times in a row.");
  if (report.phase.busiest_cpu_share > kBusyClientShare)
    table.line(
        fmt::format("Warning: this client's thread was up to {:.0f} % busy: latencies and "
                    "throughput may be its own. Share the load among several clients.",
                    report.phase.busiest_cpu_share * 100));
}

std::string count_or_all(int64_t count) {
  return count == std::numeric_limits<int64_t>::max() ? "until the time is up"
                                                      : fmt::format("{}", count);
}

std::string describe_rate(const Options& options) {
  if (std::isinf(options.rate)) return "inf";
  if (options.arrival == Arrival::kConstant) return fmt::format("{:g}/s, constant", options.rate);
  if (options.burstiness == 1) return fmt::format("{:g}/s, Poisson", options.rate);
  return fmt::format("{:g}/s, gamma with burstiness {:g}", options.rate, options.burstiness);
}

std::string describe_prompts(const Report& report) {
  const Options& options = report.options;
  if (!options.dataset.empty()) return options.dataset;
  std::string text =
      fmt::format("random, {} + {} tokens", options.input_tokens, options.output_tokens);
  if (options.range_ratio > 0) text += fmt::format(", range ratio {:g}", options.range_ratio);
  if (options.shared_prefix_tokens > 0)
    text += fmt::format(", after one of {} shared prefixes of {}", options.num_prefix_groups,
                        options.shared_prefix_tokens);
  return text +
         (report.vocab_size > 0 ? fmt::format(", ids below {}", report.vocab_size) : ", of words");
}

}  // namespace

std::string format_settings(const Report& report) {
  const Options& options = report.options;
  Table table;
  table.title("Settings", '=');
  table.text_row("Server:", options.url);
  table.text_row("Model:", report.model);
  table.text_row("Endpoint:",
                 fmt::format("{}{}", options.endpoint == Endpoint::kChat ? "chat" : "completions",
                             options.is_streamed ? "" : ", not streamed"));
  table.text_row("Requests:", count_or_all(report.num_requests));
  if (options.duration_s > 0) table.row("Sent for (s):", options.duration_s);
  table.row("Warm-up requests:", options.num_warmups);
  table.text_row("Request rate:", describe_rate(options));
  table.text_row("Maximum concurrency:",
                 options.concurrency > 0 ? fmt::format("{}", options.concurrency) : "none");
  table.text_row("Prompts:", describe_prompts(report));
  table.text_row("Ignore EOS:",
                 options.ignore_eos.value_or(options.dataset.empty()) ? "yes" : "no");
  table.row("Temperature:", options.temperature);
  table.text_row("Seed:", fmt::format("{}", options.seed));
  if (options.abort_share > 0) table.row("Share aborted:", options.abort_share);
  if (!options.extra_body.empty()) table.text_row("Extra body:", options.extra_body);
  if (options.flush_cache) table.text_row("Cache:", "flushed before");
  return table.take();
}

std::string format_table(const Report& report) {
  const Summary& summary = report.summary;
  Table table;
  table.title("Serving Benchmark Result", '=');
  add_counts(table, report);
  add_load(table, report);
  add_latency(table, report, "Time to First Token", "TTFT", summary.ttft_ms);
  add_latency(table, report, "Time per Output Token (excl. 1st token)", "TPOT", summary.tpot_ms);
  add_latency(table, report, "Inter-token Latency", "ITL", summary.itl_ms);
  add_latency(table, report, "End-to-end Latency", "E2EL", summary.e2e_ms);
  add_client(table, report);
  table.title("", '=');
  add_notes(table, report);
  return table.take();
}

}  // namespace augur::serve_bench
