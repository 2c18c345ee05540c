// The routing of a run, recorded into a file.
#pragma once

#include <string>

#include "cache/routing_recorder.h"
#include "engine/model/model_loader.h"
#include "tools/score/output_file.h"

namespace augur::score {

class RoutingFile {
 public:
  /// Replaces the file, and records every step from now on; the model's decoder runs no steps once
  /// this is gone. `name` is the model's, for people. Throws OutputError, and so does the decoder
  /// when a step cannot be written: the file then ends with a whole line.
  RoutingFile(const std::string& path, const std::string& name, LoadedModel& model);
  RoutingFile(const RoutingFile&) = delete;
  RoutingFile& operator=(const RoutingFile&) = delete;

  /// One for each token and layer.
  int64_t num_lines() const { return recorder_.num_lines(); }

 private:
  OutputFile file_;
  RoutingRecorder recorder_;
};

}  // namespace augur::score
