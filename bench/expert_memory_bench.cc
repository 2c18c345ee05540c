// Decoding with experts that do not all fit: what a pool of each size costs, and what reading ahead
// gains, through the whole engine.
//
//   augur_bench_expert_memory                      the demo model
//   augur_bench_expert_memory --model DIR --pools 25,50 --set cache.experts.packed_file=FILE
//
// Documents are continued greedily, so many at once as the batch has rows. Only decode steps are
// timed; a first group of documents fills the pool and the tables and is not. Experts are read past
// the page cache where the file system can, so that the disk is what is measured, and the time that
// the disk needs at least for the bytes demanded is printed beside the time that layers waited.
// The same run compares every token with those of the model whose experts are all in memory: one
// that differs ends the program with an error.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/disk_rate.h"
#include "configs/load_config.h"
#include "engine/model/architecture.h"
#include "engine/model/model_loader.h"
#include "engine/schedule/engine.h"
#include "kernels/cpu/cpu_ops.h"
#include "prefetch/direct_file.h"

namespace augur {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string model;
  std::string data = AUGUR_SOURCE_DIR "/tests/data/eval.jsonl";
  std::string csv;
  std::vector<int> pool_percents = {10, 25, 50, 75, 100};
  std::vector<int64_t> batch_sizes = {1, 8};
  std::vector<std::string> readers;  // empty: all
  std::vector<std::string> overrides;
  int64_t prompt_tokens = 256;
  int64_t output_tokens = 64;
  int64_t num_groups = 3;  // of documents that run together, the first one apart
  bool has_resident = true;
  bool is_brief = false;
};

/// Who reads ahead.
struct Reader {
  std::string name;
  std::function<void(PrefetchConfig&)> choose;
};

std::vector<Reader> readers() {
  const auto only = [](bool PrefetchConfig::*predictor) {
    return [predictor](PrefetchConfig& config) {
      config.gate_lookahead = config.transition = config.recency = config.prompt_signature = false;
      config.*predictor = true;
    };
  };
  return {{"off", [](PrefetchConfig& config) { config.enabled = false; }},
          {"gate_lookahead", only(&PrefetchConfig::gate_lookahead)},
          {"transition", only(&PrefetchConfig::transition)},
          {"recency", only(&PrefetchConfig::recency)},
          {"prompt_signature", only(&PrefetchConfig::prompt_signature)},
          {"all", [](PrefetchConfig&) {}},
          {"all, no budget", [](PrefetchConfig& config) { config.adapts = false; }}};
}

using TokensOf = std::map<std::string, std::vector<int32_t>>;  // by request

/// Sums over decode steps, and the tokens of all requests.
struct Measured {
  int64_t num_tokens = 0;
  double seconds = 0;
  ExpertUseCounts uses;
  int64_t demand_bytes = 0;
  int64_t prefetched_bytes = 0;
  int64_t stall_us = 0;
  TokensOf tokens;
  std::string error;  // of a request; else empty

  double per_token(double sum) const { return sum / static_cast<double>(num_tokens); }
};

/// What an expert memory counted until some moment. All zero where there is none.
struct Counted {
  explicit Counted(const ExpertMemory* memory) {
    if (memory == nullptr) return;
    uses = memory->counters().total();
    demand_bytes = memory->counters().demand_bytes();
    stall_us = memory->counters().stall_us;
    if (memory->planner() != nullptr) {
      prefetched_bytes = memory->planner()->counters().prefetched_bytes;
    }
  }
  ExpertUseCounts uses;
  int64_t demand_bytes = 0;
  int64_t prefetched_bytes = 0;
  int64_t stall_us = 0;
};

void add_step(Measured& sum, const Counted& before, const Counted& after) {
  ExpertUseCounts uses = after.uses;
  uses -= before.uses;
  sum.uses += uses;
  sum.demand_bytes += after.demand_bytes - before.demand_bytes;
  sum.prefetched_bytes += after.prefetched_bytes - before.prefetched_bytes;
  sum.stall_us += after.stall_us - before.stall_us;
}

EngineConfig engine_config(const Options& options) {
  std::vector<ConfigOverride> overrides;
  for (const std::string& text : options.overrides) overrides.push_back(parse_set_option(text));
  EngineConfig config = load_config(std::nullopt, overrides).config;
  config.model.path = options.model.empty() ? demo_model_folder().string() : options.model;
  config.execution.device = DeviceChoice::kCpu;
  config.execution.max_batch_size =
      *std::max_element(options.batch_sizes.begin(), options.batch_sizes.end());
  config.kv_cache.max_context = options.prompt_tokens + options.output_tokens;
  return config;
}

/// The beginnings of documents that are long enough, from all over the file.
std::vector<std::vector<int32_t>> read_prompts(const Options& options,
                                               const Tokenizer& tokenizer,
                                               size_t num_wanted) {
  std::ifstream lines(options.data);
  if (!lines) throw std::runtime_error("cannot read " + options.data);
  std::vector<std::vector<int32_t>> prompts;
  for (std::string line; std::getline(lines, line);) {
    auto tokens = tokenizer.encode(boost::json::parse(line).at("text").as_string());
    if (std::ssize(tokens) < options.prompt_tokens) continue;
    tokens.resize(options.prompt_tokens);
    prompts.push_back(std::move(tokens));
  }
  if (prompts.size() < num_wanted) {
    throw std::runtime_error(fmt::format("{} has {} documents of at least {} tokens; {} are needed",
                                         options.data, prompts.size(), options.prompt_tokens,
                                         num_wanted));
  }
  std::mt19937 random(1);
  std::shuffle(prompts.begin(), prompts.end(), random);
  prompts.resize(num_wanted);
  return prompts;
}

Request make_request(size_t idx,
                     const std::vector<int32_t>& prompt,
                     const Options& options,
                     Measured& measured) {
  Request request{.id = std::to_string(idx), .prompt_ids = prompt};
  request.sampling.temperature = 0;
  request.sampling.ignore_eos = true;
  request.sampling.max_tokens = options.output_tokens;
  request.on_finished = [&measured](RequestResult&& result) {
    if (!result.error.empty()) measured.error = result.error;
    if (!result.completions.empty()) {
      measured.tokens[result.id] = std::move(result.completions[0].output_ids);
    }
  };
  return request;
}

Measured measure(LoadedModel& model,
                 const std::vector<std::vector<int32_t>>& prompts,
                 int64_t batch_size,
                 const Options& options) {
  const ExpertMemory* memory = model.weights.expert_memory.get();
  Engine engine(
      {.max_batch_size = batch_size, .max_tokens_per_step = model.decoder->limits().max_tokens},
      *model.decoder, /*tokenizer=*/nullptr);
  Measured measured;
  for (size_t first = 0; first < prompts.size(); first += static_cast<size_t>(batch_size)) {
    for (size_t i = first; i < first + static_cast<size_t>(batch_size); ++i) {
      engine.submit(make_request(i, prompts[i], options, measured));
    }
    while (engine.num_waiting() + engine.num_running() > 0) {
      const EngineCounters counters = engine.counters();
      const Counted before(memory);
      const Clock::time_point start = Clock::now();
      engine.step();
      const std::chrono::duration<double> elapsed = Clock::now() - start;
      const bool is_decode = engine.counters().prefill_tokens == counters.prefill_tokens;
      if (first == 0 || !is_decode) continue;
      measured.num_tokens += engine.counters().decode_tokens - counters.decode_tokens;
      measured.seconds += elapsed.count();
      add_step(measured, before, Counted(memory));
    }
  }
  if (!measured.error.empty()) throw std::runtime_error(measured.error);
  return measured;
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), config_(engine_config(options)) {
    const ModelDescription description = read_model_description(config_.model.path);
    const std::unique_ptr<Ops> ops = make_cpu_ops(1);
    const ModelConfig& model = description.config;
    if (model.moe.num_experts == 0) throw std::runtime_error("the model has no experts");
    num_keys_ = model.moe.num_experts * model.num_moe_layers();
    // As slots are laid out, at whole pages.
    const int64_t block_bytes =
        expert_layout(*ops, model.hidden_size, model.moe.intermediate_size).block_bytes;
    slot_bytes_ = (block_bytes + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
    if (!options.csv.empty()) {
      csv_.open(options.csv);
      if (!csv_) throw std::runtime_error("cannot write " + options.csv);
      csv_ << "batch,pool_percent,prefetch,tokens_per_s,hit_rate,misses_per_token,"
              "stall_ms_per_token,disk_ms_per_token,demand_mb_per_token,prefetched_mb_per_token,"
              "wasted_share\n";
    }
  }

  /// Whether all tokens were those of the model in memory.
  bool run() {
    make_prompts_and_rate();
    for (const int64_t batch_size : options_.batch_sizes) {
      print_head(batch_size);
      if (options_.has_resident) {
        const std::unique_ptr<LoadedModel> model = load_model(config_, {});
        report(*model, batch_size, /*pool_percent=*/0, "in memory");
      }
      for (const int pool_percent : options_.pool_percents) {
        for (const Reader& reader : readers()) {
          // Where everything stays in the pool there is nothing to read ahead.
          if (pool_percent == 100 && reader.name != "off" && reader.name != "all") continue;
          if (!is_asked_for(reader)) continue;
          EngineConfig config = pooled_config(pool_percent);
          reader.choose(config.prefetch);
          const std::unique_ptr<LoadedModel> model = load_model(config, {});
          report(*model, batch_size, pool_percent, reader.name);
        }
      }
    }
    fmt::print("\n{} of {} continuations differ from those of {}\n", num_different_, num_compared_,
               options_.has_resident ? "the model in memory" : "the first run");
    return num_different_ == 0;
  }

 private:
  bool is_asked_for(const Reader& reader) const {
    const std::vector<std::string>& names = options_.readers;
    return names.empty() || std::find(names.begin(), names.end(), reader.name) != names.end();
  }

  EngineConfig pooled_config(int pool_percent) const {
    EngineConfig config = config_;
    const int64_t num_slots = (num_keys_ * pool_percent + 99) / 100;
    config.cache.experts.device_bytes = num_slots * slot_bytes_;
    return config;
  }

  void make_prompts_and_rate() {
    const std::unique_ptr<LoadedModel> model =
        load_model(pooled_config(options_.pool_percents.front()), {});
    if (!model->tokenizer) throw std::runtime_error("the model has no tokenizer.json");
    const int64_t largest = config_.execution.max_batch_size;
    prompts_ = read_prompts(options_, *model->tokenizer,
                            static_cast<size_t>(largest * (1 + options_.num_groups)));
    const File& file =
        model->packed_file ? model->packed_file->file() : model->checkpoint->files()[0];
    disk_rate_ = direct_read_rate(file, int64_t{1} << 20, 4);
    const int64_t one_read = std::min(slot_bytes_, int64_t{1} << 20);
    const double single_rate = direct_read_rate(file, one_read, 1);
    fmt::print("{}: {} experts of {:.3f} MB; {}\n", config_.model.path, num_keys_,
               1e-6 * static_cast<double>(slot_bytes_), model->ops->description());
    fmt::print("documents of {} tokens continued by {}, {} groups of them; eviction {}\n",
               options_.prompt_tokens, options_.output_tokens, options_.num_groups,
               kEnumWords<EvictionChoice>[static_cast<size_t>(config_.cache.experts.policy)]);
    if (disk_rate_ > 0) {
      fmt::print(
          "{}: direct reads of 1 MiB, 4 at a time: {:.2f} GB/s; of {:.3f} MB, one at a time: "
          "{:.0f} us each\n",
          file.path().string(), 1e-9 * disk_rate_, 1e-6 * static_cast<double>(one_read),
          1e6 * static_cast<double>(one_read) / single_rate);
    } else {
      fmt::print("{}: no direct I/O here: what is read comes from the page cache\n",
                 file.path().string());
    }
  }

  void print_head(int64_t batch_size) const {
    fmt::print(
        "\nbatch {}; per generated token; disk: what the bytes demanded take it at least; wasted: "
        "share of prefetches not used by the end\n"
        "{:>6} {:<17} {:>9} {:>6} {:>7} {:>9} {:>8} {:>10} {:>13} {:>7}\n",
        batch_size, "pool %", "prefetch", "tokens/s", "hits", "misses", "stall ms", "disk ms",
        "demand MB", "prefetched MB", "wasted");
  }

  void report(LoadedModel& model, int64_t batch_size, int pool_percent, const std::string& name) {
    const auto num_prompts = batch_size * (1 + options_.num_groups);
    const Measured measured =
        measure(model, {prompts_.begin(), prompts_.begin() + num_prompts}, batch_size, options_);
    compare(batch_size, measured.tokens);
    const double rate = static_cast<double>(measured.num_tokens) / measured.seconds;
    const bool is_pooled = pool_percent > 0;
    const double hit_rate = is_pooled ? measured.uses.hit_rate() : 1;
    const double misses = measured.per_token(static_cast<double>(measured.uses.num_misses()));
    const double stall_ms = 1e-3 * measured.per_token(static_cast<double>(measured.stall_us));
    const double demand = measured.per_token(static_cast<double>(measured.demand_bytes));
    const double prefetched = measured.per_token(static_cast<double>(measured.prefetched_bytes));
    const double disk_ms = disk_rate_ > 0 ? 1e3 * demand / disk_rate_ : 0;
    const auto num_prefetches = static_cast<double>(measured.uses.num_prefetches);
    const double wasted =
        num_prefetches > 0
            ? std::max(0.0, 1 - static_cast<double>(measured.uses.num_useful_prefetches) /
                                    num_prefetches)
            : 0;
    fmt::print(
        "{:>6} {:<17} {:>9.1f} {:>6.3f} {:>7.2f} {:>9.3f} {:>8.3f} {:>10.3f} {:>13.3f} "
        "{:>7.2f}\n",
        is_pooled ? std::to_string(pool_percent) : "-", name, rate, hit_rate, misses, stall_ms,
        disk_ms, 1e-6 * demand, 1e-6 * prefetched, wasted);
    std::fflush(stdout);
    if (csv_.is_open()) {
      csv_ << fmt::format("{},{},\"{}\",{:.3f},{:.4f},{:.4f},{:.5f},{:.5f},{:.5f},{:.5f},{:.4f}\n",
                          batch_size, pool_percent, name, rate, hit_rate, misses, stall_ms, disk_ms,
                          1e-6 * demand, 1e-6 * prefetched, wasted);
    }
  }

  void compare(int64_t batch_size, const TokensOf& tokens) {
    const auto [expected, is_first] = expected_.try_emplace(batch_size, tokens);
    if (is_first) return;
    for (const auto& [id, ids] : expected->second) {
      ++num_compared_;
      num_different_ += tokens.at(id) != ids;
    }
  }

  const Options options_;
  const EngineConfig config_;
  int64_t num_keys_ = 0;
  int64_t slot_bytes_ = 0;
  double disk_rate_ = 0;  // bytes a second; 0: not known
  std::vector<std::vector<int32_t>> prompts_;
  std::map<int64_t, TokensOf> expected_;  // by batch size
  int64_t num_compared_ = 0;
  int64_t num_different_ = 0;
  std::ofstream csv_;
};

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Decoding with a pool of experts, by its size and by who reads ahead.",
               "augur_bench_expert_memory");
  app.add_option("--model", options.model, "folder of a checkpoint; default: the demo model");
  app.add_option("--data", options.data, "JSONL with a text in each line")->capture_default_str();
  app.add_option("--csv", options.csv, "file to write the table to as well");
  app.add_option("--pools", options.pool_percents, "share of the experts in the pool, percent")
      ->delimiter(',')
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--batch", options.batch_sizes, "sequences at once")
      ->delimiter(',')
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  std::vector<std::string> names;
  for (const Reader& reader : readers()) names.push_back(reader.name);
  app.add_option("--prefetch", options.readers, "who reads ahead; default: each in turn")
      ->check(CLI::IsMember(names));
  app.add_option("--prompt", options.prompt_tokens, "tokens of a document that are its prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--output", options.output_tokens, "tokens generated after each")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("--groups", options.num_groups, "batches of documents that are measured")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--set", options.overrides, "KEY=VALUE of the configuration");
  app.add_flag("!--no-resident", options.has_resident,
               "leave out the run with all experts in memory: for models that do not fit; tokens "
               "are then compared with those of the first run");
  app.add_flag("--brief", options.is_brief, "a moment of it, to see that it works");
  CLI11_PARSE(app, argc, argv);
  if (options.is_brief) {
    options.pool_percents = {25};
    options.batch_sizes = {2};
    options.readers = {"off", "all"};
    options.prompt_tokens = 32;
    options.output_tokens = 4;
    options.num_groups = 1;
  }
  return Bench(options).run() ? 0 : 1;
}

}  // namespace
}  // namespace augur

int main(int argc, char** argv) {
  try {
    return augur::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "augur_bench_expert_memory: {}\n", error.what());
    return 1;
  }
}
