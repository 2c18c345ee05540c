// Writes the routing of every step in the form that read_routing_trace reads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/routing_observer.h"
#include "kernels/ops.h"

namespace augur {

class RoutingRecorder final : public RoutingObserver {
 public:
  /// Puts text at the end of a file. What it throws leaves the recorder's methods.
  using Write = std::function<void(std::string_view text)>;

  /// Writes the file's first lines at once, then each step as a whole when it ends: a step that
  /// failed leaves nothing. `model` is for people, a line at most. `ops`, and what `write` refers
  /// to, outlive the recorder.
  RoutingRecorder(Write write, const std::string& model, Ops& ops);

  void on_step(const StepRows& rows) override;
  void on_routing(const RoutingView& routing) override;
  void on_step_end() override;

  /// Written so far: one for each token and layer.
  int64_t num_lines() const { return num_lines_; }

 private:
  const Write write_;
  Ops& ops_;
  int64_t step_ = -1;
  int64_t num_lines_ = 0;
  StepRows rows_;  // of the step under way
  // Of one layer, in host memory.
  std::vector<int32_t> experts_;
  std::vector<float> weights_;
  // Of the step under way.
  std::string text_;
  int64_t num_step_lines_ = 0;
};

}  // namespace augur
