#include "cache/routing_recorder.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

#include "kernels/require.h"

namespace augur {

RoutingRecorder::RoutingRecorder(Write write, const std::string& model, Ops& ops)
    : write_(std::move(write)), ops_(ops) {
  AUGUR_REQUIRE(model.find('\n') == model.npos, "the model's name breaks the line: " + model);
  write_("# routing recorded by Augur\n# model " + model +
         "\nstep,turn,phase,position,layer,experts,weights\n");
}

void RoutingRecorder::on_step(const StepRows& rows) {
  AUGUR_REQUIRE(!rows.sequence_ids.empty(), "the sequences have no numbers");
  ++step_;
  rows_ = rows;
  text_.clear();
  num_step_lines_ = 0;
}

void RoutingRecorder::on_routing(const RoutingView& routing) {
  const int64_t num_choices = routing.num_tokens * routing.top_k;
  experts_.resize(num_choices);
  weights_.resize(num_choices);
  ops_.download(experts_.data(), routing.experts, num_choices * 4);
  ops_.download(weights_.data(), routing.weights, num_choices * 4);
  ops_.synchronize();
  const auto out = std::back_inserter(text_);
  for (int64_t row = 0; row < routing.num_tokens; ++row) {
    fmt::format_to(out, "{},{},{},{},{},", step_, rows_.sequence_ids[rows_.sequence_of_row[row]],
                   row < rows_.num_decode_tokens ? 1 : 0, rows_.positions[row], routing.layer_idx);
    for (int k = 0; k < routing.top_k; ++k) {
      fmt::format_to(out, "{}{}", k > 0 ? " " : "", experts_[row * routing.top_k + k]);
    }
    text_ += ',';
    for (int k = 0; k < routing.top_k; ++k) {
      fmt::format_to(out, "{}{:.4f}", k > 0 ? " " : "", weights_[row * routing.top_k + k]);
    }
    text_ += '\n';
  }
  num_step_lines_ += routing.num_tokens;
}

void RoutingRecorder::on_step_end() {
  write_(text_);
  num_lines_ += num_step_lines_;
}

}  // namespace augur
