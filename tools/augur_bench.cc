// augur-bench: how fast the whole engine runs a shape, with random weights made on the device; and
// how fast a server answers.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "configs/config_error.h"
#include "configs/load_config.h"
#include "engine/model/model_loader.h"
#include "engine/schedule/engine.h"
#include "prefetch/file.h"
#include "tools/bench/routing_table.h"
#include "tools/checkpoint_presets.h"
#include "tools/serve_bench/command_line.h"
#include "tools/serve_bench/serve_bench.h"

namespace augur::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

struct Options {
  std::string shape = "tiny";
  std::string config_path;
  RoutingChoice routing;
  std::vector<std::string> overrides;
  int64_t batch_size = 1;
  int64_t prompt_tokens = 1024;
  int64_t output_tokens = 64;
  int64_t num_requests = 32;
  int repetitions = 3;
};

double seconds_between(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

// Bytes of weights that a decode step of `batch_size` rows reads when its rows choose experts as
// evenly as can be: the bound on its speed besides the keys and values.
double decode_weight_bytes(const ModelConfig& config, int64_t batch_size) {
  const double hidden = static_cast<double>(config.hidden_size);
  const AttentionConfig& attention = config.attention;
  double values = static_cast<double>(config.vocab_size) * hidden;
  for (const LayerKind kind : config.layers) {
    values += 2.0 * hidden * attention.head_dim * (attention.num_heads + attention.num_kv_heads);
    if (kind == LayerKind::kDense) {
      values += 3 * hidden * static_cast<double>(config.dense_intermediate_size);
      continue;
    }
    const auto num_read = static_cast<double>(
        std::min<int64_t>(batch_size * config.moe.top_k, config.moe.num_experts));
    values += 3 * hidden *
                  (num_read * static_cast<double>(config.moe.intermediate_size) +
                   static_cast<double>(config.moe.shared_intermediate_size)) +
              2 * hidden * config.moe.num_experts;  // the router is float32
  }
  return 2 * values;
}

double kv_bytes_per_position(const ModelConfig& config) {
  return 4.0 * config.num_layers() * config.attention.num_kv_heads * config.attention.head_dim;
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {}

  void load(int64_t max_context, int64_t max_batch) {
    std::vector<ConfigOverride> overrides;
    for (const std::string& text : options_.overrides) overrides.push_back(parse_set_option(text));
    EffectiveConfig effective = load_config(std::nullopt, overrides);
    EngineConfig& config = effective.config;
    if (!effective.sources.contains("execution.max_batch_size")) {
      config.execution.max_batch_size = max_batch;
    }
    if (!effective.sources.contains("kv_cache.max_context")) {
      config.kv_cache.max_context = max_context;
    }
    const HfConfig hf = read_shape();
    const ModelDescription description = describe_model(hf, GenerationConfig{});
    const auto asked_layers = description.config.num_layers();
    const Clock::time_point start = Clock::now();
    model_ =
        generate_model(config, description, options_.shape,
                       {.on_message = [](const auto& line) { fmt::print(stderr, "{}\n", line); }});
    force_routing();
    model_->decoder->record_decode_steps();
    fmt::print("{}; {} of {} layers; routing {}; ready in {:.1f} s\n", model_->ops->description(),
               model_->config().num_layers(), asked_layers, options_.routing.text,
               seconds_between(start, Clock::now()));
  }

  void latency();
  void throughput();

 private:
  HfConfig read_shape() const {
    if (!options_.config_path.empty()) {
      return HfConfig::parse(read_text_file(options_.config_path, kMaxConfigBytes),
                             options_.config_path);
    }
    std::string names;
    for (const CheckpointPreset& preset : checkpoint_presets()) {
      if (preset.name == options_.shape) {
        return HfConfig::parse(preset.config_json, options_.shape);
      }
      names += fmt::format("{}{}", names.empty() ? "" : ", ", preset.name);
    }
    throw ConfigError("--shape", fmt::format("found '{}'; accepted: {}", options_.shape, names));
  }

  void force_routing() {
    const int64_t num_rows = model_->decoder->limits().max_tokens;
    const std::vector<int32_t> table =
        make_routing_table(options_.routing, model_->config(), num_rows);
    if (table.empty()) return;
    const auto num_bytes = static_cast<int64_t>(table.size() * sizeof(int32_t));
    routing_ = model_->ops->allocate(num_bytes);
    model_->ops->upload(routing_.data(), table.data(), num_bytes);
    model_->ops->synchronize();
    model_->decoder->force_routing(routing_.as<int32_t>());
  }

  Request request(int64_t prompt_tokens, int64_t output_tokens) {
    Request request;
    request.id = std::to_string(num_requests_++);
    std::uniform_int_distribution<int32_t> token(
        0, static_cast<int32_t>(model_->config().vocab_size - 1));
    for (int64_t i = 0; i < prompt_tokens; ++i) request.prompt_ids.push_back(token(generator_));
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.sampling.max_tokens = output_tokens;
    return request;
  }

  Engine make_engine() {
    const ModelRunner::Limits& limits = model_->decoder->limits();
    return Engine({.max_batch_size = limits.max_seqs, .max_tokens_per_step = limits.max_tokens},
                  *model_->decoder, /*tokenizer=*/nullptr);
  }

  const Options& options_;
  std::unique_ptr<LoadedModel> model_;
  Buffer routing_;
  int64_t num_requests_ = 0;
  std::mt19937 generator_{1};
};

// A batch of prompts, then decode steps with all of them: the time to the first token of the last
// one, and the steady time of a decode step.
void Bench::latency() {
  std::vector<double> first_token_s;
  std::vector<double> decode_s;  // per step, averaged over a repetition
  for (int repetition = 0; repetition <= options_.repetitions; ++repetition) {
    Engine engine = make_engine();
    int64_t num_started = 0;
    for (int64_t i = 0; i < options_.batch_size; ++i) {
      Request asked = request(options_.prompt_tokens, options_.output_tokens);
      asked.on_update = [&num_started, is_first = true](const RequestUpdate&) mutable {
        num_started += is_first;
        is_first = false;
      };
      engine.submit(std::move(asked));
    }
    const Clock::time_point start = Clock::now();
    while (num_started < options_.batch_size && engine.step()) {
    }
    const Clock::time_point started = Clock::now();
    const int64_t decoded_before = engine.counters().decode_tokens;
    while (engine.num_running() == options_.batch_size && engine.step()) {
    }
    const Clock::time_point end = Clock::now();
    const auto num_steps = static_cast<double>(engine.counters().decode_tokens - decoded_before) /
                           static_cast<double>(options_.batch_size);
    if (repetition == 0) continue;  // warms up
    first_token_s.push_back(seconds_between(start, started));
    if (num_steps > 0) decode_s.push_back(seconds_between(started, end) / num_steps);
  }
  const double first_s = median(first_token_s);
  const auto batch = static_cast<double>(options_.batch_size);
  const auto prompt = static_cast<double>(options_.prompt_tokens);
  fmt::print("batch {}, prompt {}: first token {:.2f} ms, {:.0f} prompt tokens/s\n",
             options_.batch_size, options_.prompt_tokens, first_s * 1e3, batch * prompt / first_s);
  if (decode_s.empty()) return;
  const double step_s = median(decode_s);
  const double mean_context = prompt + static_cast<double>(options_.output_tokens) / 2;
  const double bytes = decode_weight_bytes(model_->config(), options_.batch_size) +
                       batch * mean_context * kv_bytes_per_position(model_->config());
  fmt::print("decode: {:.3f} ms a step, {:.1f} tokens/s; reads {:.2f} GB a step: {:.2f} TB/s\n",
             step_s * 1e3, batch / step_s, bytes * 1e-9, bytes / step_s * 1e-12);
}

// Many requests through continuous batching, all there from the start.
void Bench::throughput() {
  std::vector<double> seconds;
  int64_t steps = 0;
  for (int repetition = 0; repetition <= options_.repetitions; ++repetition) {
    Engine engine = make_engine();
    for (int64_t i = 0; i < options_.num_requests; ++i) {
      engine.submit(request(options_.prompt_tokens, options_.output_tokens));
    }
    const Clock::time_point start = Clock::now();
    while (engine.step()) {
    }
    if (repetition > 0) seconds.push_back(seconds_between(start, Clock::now()));
    steps = engine.counters().num_steps;
  }
  const double elapsed_s = median(seconds);
  const auto num_in = static_cast<double>(options_.num_requests * options_.prompt_tokens);
  const auto num_out = static_cast<double>(options_.num_requests * options_.output_tokens);
  fmt::print(
      "{} requests of {} + {} tokens, up to {} at once: {:.2f} s, {} steps; {:.0f} prompt "
      "tokens/s, "
      "{:.0f} output tokens/s, {:.0f} tokens/s in all\n",
      options_.num_requests, options_.prompt_tokens, options_.output_tokens,
      model_->decoder->limits().max_seqs, elapsed_s, steps, num_in / elapsed_s, num_out / elapsed_s,
      (num_in + num_out) / elapsed_s);
}

void add_common(CLI::App& command, Options& options) {
  command.add_option("--shape", options.shape, "a known shape")
      ->type_name("NAME")
      ->capture_default_str();
  command.add_option("--config", options.config_path, "a config.json instead, for any other shape")
      ->type_name("FILE");
  command
      .add_option("--routing", options.routing.text,
                  "gate, balanced, power-law:EXPONENT or trace:FILE")
      ->capture_default_str();
  command.add_option("--set", options.overrides, "KEY=VALUE of the configuration")
      ->type_name("KEY=VALUE");
  command.add_option("--prompt", options.prompt_tokens, "tokens of a prompt")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command.add_option("--output", options.output_tokens, "tokens generated after each")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command.add_option("--repetitions", options.repetitions, "timed runs, after one that is not")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Measures the whole engine on a shape with random weights: no checkpoint is needed. Or any\n"
      "OpenAI-compatible server, over HTTP.",
      "augur-bench");
  app.require_subcommand(1);
  CLI::App& latency = *app.add_subcommand("latency", "one batch: first token, then decode steps");
  add_common(latency, options);
  latency.add_option("--batch", options.batch_size, "sequences at once")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  CLI::App& throughput =
      *app.add_subcommand("throughput", "many requests through continuous batching");
  add_common(throughput, options);
  throughput.add_option("--requests", options.num_requests, "how many")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  serve_bench::Options serve_options;
  CLI::App& serve = *app.add_subcommand("serve", "a server: latencies and throughput of requests");
  const std::function<void()> finish_serve_options =
      serve_bench::add_serve_options(serve, serve_options);
  CLI11_PARSE(app, argc, argv);
  if (serve.parsed()) {
    finish_serve_options();
    return serve_bench::run_serve_bench(serve_options);
  }

  Bench bench(options);
  const int64_t max_context = options.prompt_tokens + options.output_tokens;
  if (latency.parsed()) {
    bench.load(max_context, options.batch_size);
    bench.latency();
  } else {
    bench.load(max_context, std::min<int64_t>(options.num_requests, 256));
    bench.throughput();
  }
  return 0;
}

}  // namespace
}  // namespace augur::bench

int main(int argc, char** argv) {
  try {
    return augur::bench::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "augur-bench: {}\n", error.what());
    return 1;
  }
}
