// A fixture: a small random checkpoint, written once for a suite, and the settings it runs with.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string_view>

#include "configs/engine_config.h"
#include "tests/temp_folder.h"
#include "tools/random_checkpoint.h"

namespace augur::test {

/// `Model` has a static config_json.
template <typename Model>
class SmallCheckpointTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempFolder>();
    write_random_checkpoint({.output = *folder_ / "model",
                             .config_json = Model::kConfigJson,
                             .config_name = "config",
                             .seed = 3,
                             .shard_bytes = int64_t{1} << 30,
                             .num_threads = 1});
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static EngineConfig config(PrecisionChoice precision = PrecisionChoice::kBF16) {
    EngineConfig config;
    config.model.path = (*folder_ / "model").string();
    config.execution.device = DeviceChoice::kCpu;
    config.execution.precision = precision;
    config.execution.num_threads = 1;
    config.execution.max_batch_size = 6;
    config.execution.max_tokens_per_step = 64;
    config.kv_cache.block_size = 16;
    config.kv_cache.max_context = 128;
    config.logging.level = LogLevel::kOff;
    return config;
  }

  static inline std::unique_ptr<TempFolder> folder_;
};

}  // namespace augur::test
