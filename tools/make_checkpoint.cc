// augur-make-checkpoint: writes a model folder of any supported shape with random weights.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <map>
#include <string>
#include <thread>

#include "prefetch/file.h"
#include "tools/checkpoint_presets.h"
#include "tools/random_checkpoint.h"

namespace augur {
namespace {

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

// One line that is written over as the work goes on; nothing where no one watches.
void show_progress(int64_t bytes_written, int64_t bytes_wanted) {
  static int64_t last_percent = -1;
  const int64_t percent = bytes_wanted > 0 ? bytes_written * 100 / bytes_wanted : 100;
  if (percent == last_percent || ::isatty(STDERR_FILENO) == 0) return;
  last_percent = percent;
  fmt::print(stderr, "\r{:3}% of {:.2f} GB{}", percent, static_cast<double>(bytes_wanted) / 1e9,
             percent == 100 ? "\n" : "");
}

int run(int argc, char** argv) {
  CLI::App app(
      "Writes a model folder of any supported architecture and size with random weights, "
      "to test and time with.",
      "augur-make-checkpoint");
  std::map<std::string, std::string_view> presets;
  std::string preset_names;
  for (const CheckpointPreset& preset : checkpoint_presets()) {
    presets.emplace(preset.name, preset.config_json);
    preset_names += fmt::format("{}{}", preset_names.empty() ? "" : ", ", preset.name);
  }

  RandomCheckpointOptions options;
  std::string config_path;
  std::string preset_name;
  options.shard_bytes = 5'000'000'000;
  options.num_threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  auto* shape = app.add_option_group("shape", "what to make");
  shape->add_option("--config", config_path, "a config.json to take the shape from")
      ->type_name("FILE");
  shape->add_option("--preset", preset_name, "a known shape: " + preset_names)->type_name("NAME");
  shape->require_option(1);
  app.add_option("--output", options.output, "folder to write; it must not hold a model yet")
      ->required()
      ->type_name("DIR");
  app.add_option("--layers", options.num_layers, "so many decoder layers instead")
      ->check(CLI::Range(1, 1024));
  app.add_option("--seed", options.seed, "another seed gives other weights")->capture_default_str();
  app.add_option("--shard-bytes", options.shard_bytes, "largest data of one file, as 5GB or 512MB")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--threads", options.num_threads, "threads that make values")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--tokenizer", options.tokenizer, "folder to copy tokenizer files from")
      ->type_name("DIR");
  CLI11_PARSE(app, argc, argv);

  std::string config_json;
  if (!config_path.empty()) {
    options.config_name = config_path;
    config_json = read_text_file(config_path, kMaxConfigBytes);
  } else if (const auto preset = presets.find(preset_name); preset != presets.end()) {
    options.config_name = preset_name;
    config_json = preset->second;
  } else {
    fmt::print(stderr, "--preset: found '{}'; accepted: {}\n", preset_name, preset_names);
    return 1;
  }
  options.config_json = config_json;
  options.on_progress = show_progress;

  const RandomCheckpointReport report = write_random_checkpoint(options);
  fmt::print(
      "{}: {:.2f} billion parameters in {} tensors, {:.2f} GB in {} file{}, {:.1f} s, "
      "{:.0f} MB/s\n",
      options.output.string(), static_cast<double>(report.num_parameters) / 1e9, report.num_tensors,
      static_cast<double>(report.num_bytes) / 1e9, report.num_shards,
      report.num_shards == 1 ? "" : "s", report.seconds,
      static_cast<double>(report.num_bytes) / 1e6 / report.seconds);
  return 0;
}

}  // namespace
}  // namespace augur

int main(int argc, char** argv) {
  try {
    return augur::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "augur-make-checkpoint: {}\n", error.what());
    return 1;
  }
}
