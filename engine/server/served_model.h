// A model that is ready to serve: what was loaded, the engine over it, and what both say.
//
// Threading: constant once made, but for the engine, which the loop's thread owns from
// EngineLoop::start on.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "configs/load_config.h"
#include "engine/engine_setup.h"
#include "engine/model/expert_metrics.h"
#include "engine/model/model_loader.h"
#include "engine/schedule/engine.h"
#include "engine/server/api_call.h"
#include "engine/server/stats.h"

namespace augur::server {

/// What is to be told of experts between two steps. The rest is in EngineLoop::figures().
struct ExpertSnapshot {
  std::vector<Metric> metrics;         // of expert memory, low-bit copies and the route cache
  std::optional<ExpertStats> experts;  // where asked for and a pool is there
};

/// What the model is called where no name is configured: the name of its folder.
std::string default_model_name(const EngineConfig& config);

class ServedModel {
 public:
  /// Loads the model and makes the engine. Throws ConfigError and OutOfMemory.
  ServedModel(const EffectiveConfig& effective, const LoadListener& listener);

  /// Runs the configured prompts, so that their keys and values are cached; once for each salt that
  /// requests will have. Before the engine is given to a loop. Throws ConfigError for a prompt that
  /// cannot be run.
  void warm_up(const WarmupConfig& config, const std::vector<std::string>& salts);

  Engine& engine() { return *engine_; }
  const LoadedModel& model() const { return *model_; }
  const ApiContext& context() const { return context_; }
  /// Lossy modes that are on: "route_cache", "low_bit_experts", ...; empty: answers are exact.
  const std::vector<std::string>& lossy_modes() const { return lossy_modes_; }
  /// What the start took, the warm-up included.
  const std::vector<PhaseTime>& phases() const { return model_->phases; }
  /// Positions that the KV cache holds.
  int64_t kv_capacity() const;

  /// On the thread that owns the engine, between steps.
  ExpertSnapshot snapshot(bool with_experts) const;

 private:
  std::unique_ptr<LoadedModel> model_;
  std::optional<EngineSetup> setup_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::string> lossy_modes_;
  ApiContext context_;
};

}  // namespace augur::server
