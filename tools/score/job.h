// A run from its files to its closing figures, everything but the model.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "engine/schedule/engine.h"
#include "tools/score/encode.h"
#include "tools/score/feeder.h"
#include "tools/score/line_reader.h"
#include "tools/score/options.h"
#include "tools/score/result_files.h"
#include "tools/score/runner.h"
#include "tools/score/totals.h"

namespace augur::score {

/// How far a run is, of how much.
struct JobProgress {
  RunProgress run;
  int64_t passed_bytes = 0;  // of input lines that an earlier run did
  int64_t total_bytes = 0;   // of the input; 0: not known
  double seconds = 0;
};

struct JobResult {
  Totals totals;   // of the whole output, earlier runs included
  Totals written;  // of this run
  double seconds = 0;
  std::optional<StrictStop> strict_stop;
  int signal = 0;  // that interrupted the run

  int exit_status() const;
};

/// Threading: one thread; run() starts another that reads and encodes.
class Job {
 public:
  /// Opens input and output, and reads the journal when resuming, so that what is wrong with them
  /// is known before a model is loaded. Throws ConfigError, OutputError and ResumeError.
  Job(const Options& options, const boost::json::object& settings);

  const ResumePoint& resume() const { return opened_.resume; }

  /// Runs all of the input. `sampling` is what is in effect when generating; `max_batch_size` and
  /// `max_tokens_per_step` are the engine's. Throws InputError, OutputError, ResumeError, and what
  /// the engine throws.
  JobResult run(Engine& engine,
                const TextCodec& codec,
                const SamplingParams& sampling,
                const EngineOptions& engine_options,
                const std::function<void(const JobProgress&)>& report);

 private:
  FeederSettings feeder_settings(const EngineOptions& engine_options) const;

  const Options options_;
  LineReader reader_;
  OpenedResults opened_;
};

}  // namespace augur::score
