// The loop of the program: keeps the engine fed, and hands on what it finishes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/schedule/engine.h"
#include "tools/score/result_row.h"
#include "tools/score/result_writer.h"
#include "tools/score/work_queue.h"

namespace augur::score {

struct RunnerSettings {
  Mode mode = Mode::kScore;
  RowSettings rows;
  SamplingParams sampling;   // when generating; the seed is mixed with the line number
  int top_logprobs = 0;      // when scoring
  int64_t max_waiting = 64;  // requests that wait in the engine, so that it is never short of work
  bool is_strict = false;
};

/// How far the run is, told after every step.
struct RunProgress {
  int64_t documents = 0;  // done by this run
  int64_t bad_lines = 0;
  int64_t input_bytes = 0;  // of the lines done
  int64_t tokens = 0;       // computed
};

/// The first bad line of a strict run.
struct StrictStop {
  int64_t line_number = 0;
  std::string reason;
};

/// Threading: one thread, which also runs the engine.
class Runner {
 public:
  /// All references outlive the runner. `report` is called after every step.
  Runner(Engine& engine,
         WorkQueue& queue,
         ResultWriter& writer,
         const RunnerSettings& settings,
         std::function<void(const RunProgress&)> report);

  /// Until every item is done, a signal is caught, or a strict run met a bad line: then what is
  /// already in the engine is finished, and the line is returned. The writer is not finished.
  /// Throws what the queue, the engine and the writer throw.
  std::optional<StrictStop> run();

 private:
  struct Finished {
    std::shared_ptr<const WorkItem> item;
    RequestResult result;
  };

  /// Takes items until the engine has enough. Returns false when no more will come.
  bool feed();
  void start(WorkItem&& item);
  void start_document(WorkItem&& item);
  Request make_request(const WorkItem& item) const;
  /// Writes what the last step finished.
  void collect();
  void finish_document(const WorkItem& item, const RequestResult& result);
  void finish_bad(const WorkItem& item, const std::string& reason);
  void finish(const WorkItem& item, bool is_bad, std::string text, const Totals& totals);

  Engine& engine_;
  WorkQueue& queue_;
  ResultWriter& writer_;
  const RunnerSettings settings_;
  const std::function<void(const RunProgress&)> report_;
  RunProgress progress_;
  bool is_idle_ = true;
  std::optional<StrictStop> stop_;
  // Filled by the engine's callbacks, which may outlive the runner.
  std::shared_ptr<std::vector<Finished>> finished_ = std::make_shared<std::vector<Finished>>();
};

/// The seed of a line's document: differs from line to line, and depends on nothing else, so that
/// neither the batch nor an interruption changes what is drawn.
uint64_t seed_of_line(uint64_t seed, int64_t line_number);

}  // namespace augur::score
