// augur-pack: writes the experts of a checkpoint as the CPU backends lay them out in memory.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <thread>

#include "configs/config_error.h"
#include "engine/model/architecture.h"
#include "engine/model/checkpoint.h"
#include "engine/model/weight_plan.h"
#include "engine/progress.h"
#include "kernels/cpu/cpu_ops.h"
#include "prefetch/packed_writer.h"

namespace augur {
namespace {

struct Options {
  std::string model;
  std::string output;
  std::string check;
  bool overwrites = false;
  int num_threads = 1;
};

std::string describe_file(const PackedFile& packed) {
  const PackedIdentity& identity = packed.identity();
  return fmt::format("{} experts of {}, layout {}, {}", packed.entries().size(),
                     format_decimal_bytes(static_cast<double>(identity.layout.block_bytes)),
                     identity.weight_layout,
                     format_decimal_bytes(static_cast<double>(packed.file().num_bytes())));
}

int pack(const Options& options) {
  const std::filesystem::path folder = options.model;
  const ModelDescription model = read_model_description(folder);
  if (model.config.moe.num_experts == 0) {
    throw ConfigError(folder.string(), "is a dense model: it has no experts to pack");
  }
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const WeightPlan plan = plan_weights(model.config, model.architecture->names, checkpoint);
  // Every instruction set reads the same layout.
  const std::unique_ptr<Ops> ops = make_cpu_ops(/*num_threads=*/1);
  const ExpertStore store(
      checkpoint.files(),
      expert_layout(*ops, model.config.hidden_size, model.config.moe.intermediate_size),
      expert_sources(plan));

  PackOptions pack_options;
  pack_options.overwrites = options.overwrites;
  pack_options.num_threads = options.num_threads;
  {
    ByteProgress progress("packing");
    pack_options.on_progress = [&](int64_t done_bytes, int64_t total_bytes) {
      progress.update(done_bytes, total_bytes);
    };
    write_packed_file(options.output, store, *ops, pack_options);
  }
  const PackedFile packed(options.output);
  packed.require_match(packed_identity(store, *ops));
  fmt::print("{}: {}\n", options.output, describe_file(packed));
  return 0;
}

int check(const Options& options) {
  const PackedFile packed(options.check);
  std::vector<ExpertKey> damaged;
  {
    ByteProgress progress("checking");
    damaged = find_damaged(packed, [&](int64_t done_bytes, int64_t total_bytes) {
      progress.update(done_bytes, total_bytes);
    });
  }
  constexpr size_t kMaxShown = 10;
  for (size_t i = 0; i < std::min(damaged.size(), kMaxShown); ++i) {
    fmt::print(stderr, "augur-pack: {}: {} at offset {} is damaged\n", options.check,
               describe(damaged[i]), packed.entry(damaged[i]).offset);
  }
  if (!damaged.empty()) {
    fmt::print(stderr, "augur-pack: {}: {} of {} experts are damaged\n", options.check,
               damaged.size(), packed.entries().size());
    return 1;
  }
  fmt::print("{}: {}; every checksum fits\n", options.check, describe_file(packed));
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app(
      "Writes the experts of a checkpoint as the CPU backends lay them out in memory, so that "
      "loading one needs no packing (docs/augur-pack.md).",
      "augur-pack");
  Options options;
  options.num_threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 8u));
  auto* model = app.add_option("--model", options.model, "model folder")->type_name("DIR");
  auto* output = app.add_option("--output", options.output, "file to write")->type_name("FILE");
  auto* checked =
      app.add_option("--check", options.check, "instead: verify the checksums of a packed file")
          ->type_name("FILE");
  app.add_flag("--overwrite", options.overwrites, "replace a file that is there")->needs(output);
  app.add_option("--threads", options.num_threads, "threads that read, pack and write")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  model->needs(output);
  output->needs(model);
  checked->excludes(model);
  CLI11_PARSE(app, argc, argv);
  if (!options.check.empty()) return check(options);
  if (options.output.empty()) {
    fmt::print(stderr, "augur-pack: accepted: --model DIR --output FILE, or --check FILE\n");
    return 1;
  }
  return pack(options);
}

}  // namespace
}  // namespace augur

int main(int argc, char** argv) {
  try {
    return augur::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "augur-pack: {}\n", error.what());
    return 1;
  }
}
