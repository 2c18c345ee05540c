#include "tools/score/job.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "tools/score/interrupt.h"

namespace augur::score {
namespace {

// A window fills this many steps, so that the choice of what runs beside what is wide enough.
constexpr int64_t kStepsPerWindow = 32;
// Rows wait in memory for earlier ones: windows shrink so that theirs stay within this.
constexpr int64_t kWindowRowBytes = int64_t{16} << 20;
// One window in the engine, one ready, one being made.
constexpr int64_t kWindowsInside = 3;

}  // namespace

int JobResult::exit_status() const {
  if (signal != 0) return 128 + signal;
  if (strict_stop || totals.bad_lines > 0) return static_cast<int>(ExitCode::kBadLines);
  return static_cast<int>(ExitCode::kOk);
}

Job::Job(const Options& options, const boost::json::object& settings)
    : options_(options), reader_(options.input), opened_(open_results(options, settings)) {}

FeederSettings Job::feeder_settings(const EngineOptions& engine_options) const {
  // What a token's part of a row takes: about 24 bytes for each number with its id.
  const int64_t num_likely = options_.mode == Mode::kScore ? options_.top_logprobs.value_or(0)
                                                           : options_.sampling.logprobs.value_or(0);
  const int64_t bytes_per_token = 24 * (1 + num_likely);
  const int64_t wanted = kStepsPerWindow * engine_options.max_tokens_per_step;
  return {.encode = {.mode = options_.mode,
                     .max_tokens_per_document = options_.max_tokens_per_document},
          .window_tokens = std::max(engine_options.max_tokens_per_step,
                                    std::min(wanted, kWindowRowBytes / bytes_per_token))};
}

JobResult Job::run(Engine& engine,
                   const TextCodec& codec,
                   const SamplingParams& sampling,
                   const EngineOptions& engine_options,
                   const std::function<void(const JobProgress&)>& report) {
  const auto start = std::chrono::steady_clock::now();
  const auto seconds_since_start = [start] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const FeederSettings feeding = feeder_settings(engine_options);
  WorkQueue queue(kWindowsInside * feeding.window_tokens);
  ResultWriter writer(std::move(opened_.files), /*keep_order=*/!options_.unordered);
  Feeder feeder(reader_, codec, feeding, opened_.resume, queue);

  const bool is_scoring = options_.mode == Mode::kScore;
  const RunnerSettings settings{
      .mode = options_.mode,
      .rows = {.token_logprobs = is_scoring ? options_.token_logprobs : sampling.logprobs >= 0,
               .top_logprobs =
                   is_scoring ? options_.top_logprobs.has_value() : sampling.logprobs > 0},
      .sampling = sampling,
      .top_logprobs = options_.top_logprobs.value_or(0),
      .max_waiting = engine_options.max_batch_size,
      .is_strict = options_.strict};
  Runner runner(engine, queue, writer, settings, [&](const RunProgress& progress) {
    report({.run = progress,
            .passed_bytes = feeder.passed_bytes(),
            .total_bytes = reader_.file_bytes(),
            .seconds = seconds_since_start()});
  });

  JobResult result;
  {
    const FeederThread thread(feeder, queue);
    result.strict_stop = runner.run();
  }
  writer.finish();
  result.seconds = seconds_since_start();
  result.written = writer.written();
  result.totals = opened_.resume.totals;
  result.totals += result.written;
  result.signal = caught_signal();
  return result;
}

}  // namespace augur::score
