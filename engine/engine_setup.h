// From a loaded model and the configuration to the engine's options: one place for every program.
#pragma once

#include <memory>

#include "configs/engine_config.h"
#include "engine/model/model_loader.h"
#include "engine/schedule/engine.h"
#include "engine/schedule/signature_oracle.h"

namespace augur {

/// Options, and what they point to.
struct EngineSetup {
  std::unique_ptr<SignatureOracle> oracle;  // where the schedule asks for one
  EngineOptions options;
};

/// `model` outlives the setup, the setup the engine. Throws ConfigError for a schedule that the
/// model cannot be run with.
EngineSetup make_engine_setup(const EngineConfig& config, LoadedModel& model);

}  // namespace augur
