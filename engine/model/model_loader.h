// From a folder to a model that runs.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/engine_config.h"
#include "engine/model/architecture.h"
#include "engine/model/checkpoint.h"
#include "engine/model/decoder.h"
#include "engine/model/memory_plan.h"
#include "engine/model/model_weights.h"
#include "engine/model/route_memory.h"
#include "engine/model/routing_driver.h"
#include "engine/model/weight_loader.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "kernels/ops.h"
#include "prefetch/expert_store.h"
#include "prefetch/packed_file.h"

namespace augur {

struct PhaseTime {
  std::string name;
  double seconds = 0;
};

/// Everything a program needs of a model. Members are in order of use: later ones point into
/// earlier ones.
struct LoadedModel {
  std::filesystem::path folder;
  ModelDescription description;
  std::optional<Tokenizer> tokenizer;  // absent when the folder has no tokenizer.json
  std::optional<ChatTemplate> chat_template;
  std::unique_ptr<Ops> ops;
  // Where experts are read from while the model runs; none when all of them stay in memory.
  std::optional<Checkpoint> checkpoint;
  std::optional<PackedFile> packed_file;
  std::unique_ptr<ExpertStore> expert_store;
  std::unique_ptr<RouteMemory> route_memory;  // none unless configured
  ModelWeights weights;
  std::unique_ptr<RoutingDriver> routing_driver;  // none where the gates choose
  std::unique_ptr<Decoder> decoder;
  MemoryPlan memory;
  std::vector<PhaseTime> phases;

  const ModelConfig& config() const { return description.config; }
};

/// What is told while a model loads.
struct LoadListener {
  std::function<void(const std::string& line)> on_message;  // may be empty
  std::function<void(const std::string& line)> on_warning;  // may be empty
  LoadProgress on_progress;                                 // may be empty
  /// May exchange parts of the experts' memory, where it is smaller than the experts: for tests.
  std::function<void(ExpertMemory::Parts&, const ExpertStore&, const Ops&)> on_expert_memory;
};

/// The demo model: AUGUR_DEMO_MODEL where set, the folder beside the installed program, or the
/// one of the source tree the program was built in.
std::filesystem::path demo_model_folder();

/// Reads what the folder describes, plans memory, and only then reads weights. Throws ConfigError
/// for a folder that cannot be run as described and OutOfMemory, with the table of what needs
/// what, when it would not fit.
std::unique_ptr<LoadedModel> load_model(const EngineConfig& config, const LoadListener& listener);

/// A model with random weights (weight_loader.h, generate_weights), to measure speed without a
/// checkpoint: as many of its layers as fit. `name` is for messages. Its decode steps are not
/// recorded yet, so that routing can be forced before.
std::unique_ptr<LoadedModel> generate_model(const EngineConfig& config,
                                            const ModelDescription& description,
                                            const std::string& name,
                                            const LoadListener& listener);

}  // namespace augur
