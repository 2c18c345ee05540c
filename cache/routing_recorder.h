// Writes the routing of every step to a file that read_routing_trace reads.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "cache/routing_observer.h"
#include "kernels/ops.h"

namespace augur {

class RoutingRecorder final : public RoutingObserver {
 public:
  /// Replaces the file. `model` is for people, in the file's first lines. Throws ConfigError when
  /// the file cannot be made. `ops` outlives the recorder.
  RoutingRecorder(const std::string& path, const std::string& model, Ops& ops);

  void on_step(const StepRows& rows) override;
  void on_routing(const RoutingView& routing) override;
  /// Throws ConfigError when the file cannot be written.
  void on_step_end() override;

  /// Writes what is held back. Throws as on_step_end.
  void finish();
  int64_t num_lines() const { return num_lines_; }

 private:
  const std::string path_;
  Ops& ops_;
  std::ofstream file_;
  int64_t step_ = -1;
  int64_t num_lines_ = 0;
  StepRows rows_;  // of the step under way
  // Of one layer, in host memory.
  std::vector<int32_t> experts_;
  std::vector<float> weights_;
  std::string text_;
};

}  // namespace augur
