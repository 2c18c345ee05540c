#include "tools/serve_bench/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <map>
#include <memory>
#include <string>

#include "configs/config_error.h"
#include "tools/serve_bench/server_url.h"

namespace augur::serve_bench {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 22;
constexpr int64_t kMaxCount = int64_t{1} << 40;

// Options as they were given, until they have been looked at.
struct Given {
  std::string rate = "inf";
  std::string goodput;
  std::string percentiles = "50,90,99";
  bool ignore_eos = false;  // where it is given
};

double parse_number(const std::string& text, const std::string& where, const char* accepted) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || std::isnan(value))
    throw ConfigError(where, fmt::format("found '{}', accepted: {}", text, accepted));
  return value;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return parts;
}

double parse_rate(const std::string& text) {
  constexpr const char* kAccepted = "inf, or requests a second above 0";
  const double rate = parse_number(text, "--rate", kAccepted);
  if (rate <= 0)
    throw ConfigError("--rate", fmt::format("found '{}', accepted: {}", text, kAccepted));
  return rate;
}

Goodput parse_goodput(const std::string& text) {
  constexpr const char* kAccepted = "ttft:MS,tpot:MS,e2e:MS, or some of these";
  Goodput goodput;
  if (text.empty()) return goodput;
  const auto refuse = [&] {
    return ConfigError("--goodput", fmt::format("found '{}', accepted: {}", text, kAccepted));
  };
  const std::map<std::string, std::optional<double>*> bounds{{"ttft", &goodput.ttft_ms},
                                                             {"tpot", &goodput.tpot_ms},
                                                             {"e2e", &goodput.e2e_ms},
                                                             {"e2el", &goodput.e2e_ms}};
  for (const std::string& part : split(text)) {
    const size_t colon = part.find(':');
    const auto bound = bounds.find(part.substr(0, colon));
    if (colon == part.npos || bound == bounds.end() || *bound->second) throw refuse();
    *bound->second = parse_number(part.substr(colon + 1), "--goodput", kAccepted);
    if (**bound->second < 0) throw refuse();
  }
  return goodput;
}

std::vector<double> parse_percentiles(const std::string& text) {
  constexpr const char* kAccepted = "numbers from 0 to 100, such as 50,90,99.9";
  std::vector<double> percentiles;
  for (const std::string& part : split(text)) {
    percentiles.push_back(parse_number(part, "--percentiles", kAccepted));
    if (percentiles.back() < 0 || percentiles.back() > 100)
      throw ConfigError("--percentiles", fmt::format("found '{}', accepted: {}", text, kAccepted));
  }
  return percentiles;
}

void add_server(CLI::App& command, Options& options) {
  const std::string group = "The server";
  command.add_option("--url,--base-url", options.url, "where it is; http only")
      ->option_text("URL (http://127.0.0.1:8000)")
      ->group(group);
  command.add_option("--api-key-file", options.api_key_file, "file with the key to send")
      ->option_text("FILE")
      ->group(group);
  command.add_option("--model", options.model, "model to ask for (the first that is listed)")
      ->option_text("NAME")
      ->group(group);
  const std::map<std::string, Endpoint> endpoints{{"completions", Endpoint::kCompletions},
                                                  {"chat", Endpoint::kChat}};
  command.add_option("--endpoint", options.endpoint, "completions or chat (completions)")
      ->option_text("WHICH")
      ->transform(CLI::CheckedTransformer(endpoints).description(""))
      ->group(group);
  command
      .add_flag("!--no-stream", options.is_streamed,
                "ask for whole answers: no TTFT, TPOT and ITL then")
      ->group(group);
  command.add_flag("--flush-cache", options.flush_cache, "POST /flush_cache before measuring")
      ->group(group);
}

void add_load(CLI::App& command, Options& options, Given& given) {
  const std::string group = "The load";
  command
      .add_option("--requests,--num-prompts", options.num_requests,
                  "how many (1000; each line of a dataset; no limit with --duration)")
      ->option_text("N")
      ->check(CLI::Range(int64_t{1}, kMaxCount))
      ->group(group);
  command.add_option("--duration", options.duration_s, "send nothing after so many seconds")
      ->option_text("S")
      ->check(CLI::Range(0.001, 1e7))
      ->group(group);
  command.add_option("--rate,--request-rate", given.rate, "requests a second, or inf (inf)")
      ->option_text("R")
      ->group(group);
  const std::map<std::string, Arrival> arrivals{{"poisson", Arrival::kPoisson},
                                                {"constant", Arrival::kConstant}};
  command.add_option("--arrival", options.arrival, "gaps of a rate: poisson or constant (poisson)")
      ->option_text("WHICH")
      ->transform(CLI::CheckedTransformer(arrivals).description(""))
      ->group(group);
  command
      .add_option("--burstiness", options.burstiness,
                  "shape of the gamma distribution of gaps; 1 is Poisson, less comes in bursts (1)")
      ->option_text("B")
      ->check(CLI::Range(1e-3, 1e6))
      ->group(group);
  command
      .add_option("--concurrency,--max-concurrency", options.concurrency,
                  "requests under way at most (any number)")
      ->option_text("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->group(group);
  command
      .add_option("--warmup,--num-warmups", options.num_warmups,
                  "requests before those that are measured (0)")
      ->option_text("N")
      ->check(CLI::Range(int64_t{0}, kMaxCount))
      ->group(group);
  command
      .add_option("--abort-share", options.abort_share,
                  "share of requests that this client disconnects while they stream (0)")
      ->option_text("P")
      ->check(CLI::Range(0.0, 1.0))
      ->group(group);
  command.add_option("--timeout", options.timeout_s, "seconds until a request has failed (600)")
      ->option_text("S")
      ->check(CLI::Range(0.001, 1e6))
      ->group(group);
  command.add_option("--seed", options.seed, "of arrivals, prompts and aborts (0)")
      ->option_text("N")
      ->group(group);
}

void add_prompts(CLI::App& command, Options& options, Given& given) {
  const std::string group = "Prompts";
  command
      .add_option("--dataset", options.dataset,
                  "JSON lines of {\"prompt\"}, {\"text\"} or {\"messages\"}, with \"max_tokens\" "
                  "if need be (random prompts)")
      ->option_text("FILE")
      ->group(group);
  command
      .add_option("--input-tokens,--random-input-len", options.input_tokens,
                  "tokens of a random prompt; words in chat (1024)")
      ->option_text("N")
      ->check(CLI::Range(int64_t{1}, kMaxTokens))
      ->group(group);
  command
      .add_option("--output-tokens,--random-output-len", options.output_tokens,
                  "max_tokens to ask for (128)")
      ->option_text("N")
      ->check(CLI::Range(int64_t{1}, kMaxTokens))
      ->group(group);
  command
      .add_option("--range-ratio,--random-range-ratio", options.range_ratio,
                  "lengths are uniform in L * (1 - R) to L * (1 + R) (0)")
      ->option_text("R")
      ->check(CLI::Range(0.0, 1.0))
      ->group(group);
  command
      .add_option("--shared-prefix,--random-prefix-len", options.shared_prefix_tokens,
                  "tokens before a random prompt that its group shares (0)")
      ->option_text("N")
      ->check(CLI::Range(int64_t{0}, kMaxTokens))
      ->group(group);
  command.add_option("--prefix-groups", options.num_prefix_groups, "groups of shared prefixes (8)")
      ->option_text("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->group(group);
  command
      .add_option("--vocab-size", options.vocab_size,
                  "random token ids are below it (as /server_info says)")
      ->option_text("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31))
      ->group(group);
  command
      .add_flag("--ignore-eos,!--no-ignore-eos", given.ignore_eos,
                "ask for all of max_tokens (on for random prompts, off with a dataset)")
      ->group(group);
  command.add_option("--temperature", options.temperature, "(0)")
      ->option_text("T")
      ->check(CLI::Range(0.0, 1e3))
      ->group(group);
  command.add_option("--extra-body", options.extra_body, "further fields of each request")
      ->option_text("JSON")
      ->group(group);
}

void add_report(CLI::App& command, Options& options, Given& given) {
  const std::string group = "The report";
  command
      .add_option("--goodput", given.goodput,
                  "ttft:MS,tpot:MS,e2e:MS: also count the requests that keep these")
      ->option_text("BOUNDS")
      ->group(group);
  command
      .add_option("--percentiles,--metric-percentiles", given.percentiles,
                  "of latencies (50,90,99)")
      ->option_text("P,...")
      ->group(group);
  command.add_option("--json", options.json_file, "also write the figures there")
      ->option_text("FILE")
      ->group(group);
  command
      .add_option("--save-requests,--save-detailed", options.requests_file,
                  "write figures of each request there, as JSON lines")
      ->option_text("FILE")
      ->group(group);
  command
      .add_flag("--allow-refusals", options.allow_refusals,
                "answers of 429 and 503 do not count as failures")
      ->group(group);
}

void check(const Options& options) {
  parse_server_url(options.url);
  if (options.duration_s > 0 && !options.num_requests && std::isinf(options.rate) &&
      options.concurrency == 0)
    throw ConfigError("--duration", "needs --rate, --concurrency or --requests to bound the load");
  if (options.abort_share > 0 && !options.is_streamed)
    throw ConfigError("--abort-share", "does not go with --no-stream: nothing streams");
  if (std::isinf(options.rate) && (options.arrival != Arrival::kPoisson || options.burstiness != 1))
    throw ConfigError("--rate", "is inf: --arrival and --burstiness need a rate");
  if (options.arrival == Arrival::kConstant && options.burstiness != 1)
    throw ConfigError("--burstiness", "does not go with --arrival constant");
  if (!options.dataset.empty() && options.shared_prefix_tokens > 0)
    throw ConfigError("--shared-prefix", "does not go with --dataset");
  if (!options.is_streamed && (options.goodput.ttft_ms || options.goodput.tpot_ms))
    throw ConfigError("--goodput", "ttft and tpot do not go with --no-stream");
}

}  // namespace

std::function<void()> add_serve_options(CLI::App& command, Options& options) {
  const auto given = std::make_shared<Given>();
  add_server(command, options);
  add_load(command, options, *given);
  add_prompts(command, options, *given);
  add_report(command, options, *given);
  command.footer(
      "Exit status: 0 all requests succeeded; 1 options, server or model refused; 2 requests "
      "failed;\n130 interrupted.");
  return [given, &command, &options] {
    if (command.count("--ignore-eos") > 0) options.ignore_eos = given->ignore_eos;
    options.rate = parse_rate(given->rate);
    options.goodput = parse_goodput(given->goodput);
    options.percentiles = parse_percentiles(given->percentiles);
    check(options);
  };
}

}  // namespace augur::serve_bench
