#include "tools/serve_bench/serve_bench.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <limits>

#include "configs/config_error.h"
#include "tools/serve_bench/exchange.h"
#include "tools/serve_bench/server_calls.h"
#include "tools/serve_bench/server_url.h"
#include "tools/serve_bench/workload.h"

namespace augur::serve_bench {
namespace {

constexpr int64_t kDefaultRequests = 1000;
constexpr int64_t kUnbounded = std::numeric_limits<int64_t>::max();
constexpr int64_t kProbeTokens = 2;
constexpr int64_t kOtherFiles = 64;  // descriptors that are no connections

// Every connection is a descriptor. The soft limit, often 1024, may be raised up to the hard one.
void raise_file_limit(int64_t num_connections, bool is_bound_by_options) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t needed = static_cast<rlim_t>(std::min(num_connections, kUnbounded - kOtherFiles)) +
                        static_cast<rlim_t>(kOtherFiles);
  if (limit.rlim_cur >= needed) return;
  if (is_bound_by_options && needed > limit.rlim_max) {
    throw ConfigError("--concurrency",
                      fmt::format("{} connections need {} open files, and {} are allowed (ulimit "
                                  "-Hn)",
                                  num_connections, needed, limit.rlim_max));
  }
  limit.rlim_cur = std::min(needed, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
}

int64_t count_requests(const Options& options, const Workload& workload) {
  if (options.num_requests) return *options.num_requests;
  if (options.duration_s > 0) return kUnbounded;
  return options.dataset.empty() ? kDefaultRequests : workload.num_dataset_rows();
}

int64_t bound_of_ids(const Options& options, HttpClient& client) {
  if (!options.dataset.empty() || options.endpoint == Endpoint::kChat) return 0;
  const int64_t size = options.vocab_size > 0 ? options.vocab_size : served_vocab_size(client);
  if (size > 0) return size;
  throw ConfigError("--vocab-size",
                    "the server does not tell its vocabulary: give a bound for random token ids");
}

/// Sends one request with a short answer, so that what is wrong shows as one clear message.
void probe(HttpClient& client, const Workload& workload, const Options& options) {
  ChunkScanner scanner;
  PlannedRequest plan = workload.plan(/*request_idx=*/-1, kProbeTokens);
  plan.abort_after_chunks.reset();
  std::optional<RequestEvents> events;
  client.start("POST", workload.path(), plan.body,
               std::make_shared<Exchange>(/*request_idx=*/-1, plan, options.is_streamed,
                                          HttpClient::now_us(), scanner,
                                          [&](RequestEvents&& done) { events = std::move(done); }));
  client.run([&] { return events.has_value(); });
  if (events->outcome == Outcome::kOk) return;
  if (events->outcome == Outcome::kRefused && options.allow_refusals) return;
  std::string what = events->outcome == Outcome::kRefused
                         ? fmt::format("the probe was refused with HTTP {}", events->status)
                         : fmt::format("the probe failed: {}", events->failure);
  if (!events->detail.empty()) what += ": " + events->detail;
  if (events->status == 401 || events->status == 403) what += "; a key is given by --api-key-file";
  throw ConfigError(fmt::format("{}{}", options.url, workload.path()), what);
}

std::ofstream open_output(const std::string& file, const char* option) {
  std::ofstream stream;
  if (file.empty()) return stream;
  stream.open(file, std::ios::binary | std::ios::trunc);
  if (!stream) throw ConfigError(option, "cannot write " + file);
  return stream;
}

void close_output(std::ofstream& stream, const std::string& file) {
  if (file.empty()) return;
  stream.close();
  if (!stream) throw ConfigError(file, "could not be written to its end");
}

std::atomic<bool> g_is_interrupted{false};

// Signals set a flag while this lives; afterwards they do what they did before.
class SignalGuard {
 public:
  SignalGuard() {
    g_is_interrupted = false;
    struct sigaction action {};
    action.sa_handler = [](int) { g_is_interrupted = true; };
    action.sa_flags = SA_RESETHAND;  // a second one ends the program
    sigaction(SIGINT, &action, &old_int_);
    sigaction(SIGTERM, &action, &old_term_);
  }
  ~SignalGuard() {
    sigaction(SIGINT, &old_int_, nullptr);
    sigaction(SIGTERM, &old_term_, nullptr);
  }
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

 private:
  struct sigaction old_int_ {};
  struct sigaction old_term_ {};
};

}  // namespace

Report measure(const Options& options, const std::function<bool()>& is_interrupted) {
  const std::string key = options.api_key_file.empty() ? "" : read_api_key(options.api_key_file);
  HttpClient client(parse_server_url(options.url), key, options.timeout_s);
  Report report;
  report.options = options;
  report.model = options.model.empty() ? first_model(client) : options.model;
  report.vocab_size = bound_of_ids(options, client);
  const Workload workload(options, report.model, report.vocab_size);
  report.num_requests = count_requests(options, workload);
  raise_file_limit(options.concurrency > 0 ? options.concurrency : report.num_requests,
                   options.concurrency > 0);
  std::ofstream rows = open_output(options.requests_file, "--save-requests");

  probe(client, workload, options);
  LoadRun run(client, workload, options.is_streamed, is_interrupted);
  const Arrivals at_once(std::numeric_limits<double>::infinity(), Arrival::kConstant, 1, 0);
  if (options.num_warmups > 0) {
    run.run({.num_requests = options.num_warmups,
             .is_warmup = true,
             .concurrency = options.concurrency},
            at_once, [](RequestEvents&&) {});
  }
  if (options.flush_cache) flush_server_cache(client);

  Tally tally(options.goodput);
  const auto start_us = HttpClient::now_us();
  report.phase = run.run({.num_requests = report.num_requests,
                          .duration_s = options.duration_s,
                          .concurrency = options.concurrency},
                         Arrivals(options.rate, options.arrival, options.burstiness, options.seed),
                         [&](RequestEvents&& events) {
                           const RequestFigures figures = tally.add(events);
                           if (rows.is_open())
                             rows << request_row(events, figures, start_us) << '\n';
                         });
  close_output(rows, options.requests_file);
  report.summary = tally.summarize(
      static_cast<double>(report.phase.end_us - report.phase.start_us) / 1e6, options.percentiles);
  report.client = client.counters();
  return report;
}

int run_serve_bench(const Options& options) {
  std::ofstream json = open_output(options.json_file, "--json");
  const SignalGuard guard;
  const Report report = measure(options, [] { return g_is_interrupted.load(); });
  fmt::print("{}{}", format_settings(report), format_table(report));
  if (json.is_open()) json << format_json(report);
  close_output(json, options.json_file);
  if (report.phase.is_interrupted) return 130;
  const bool is_refusal_bad = !options.allow_refusals && report.summary.num_refused > 0;
  return report.summary.num_failed > 0 || is_refusal_bad ? 2 : 0;
}

}  // namespace augur::serve_bench
