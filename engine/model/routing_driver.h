// Recorded routing in place of the gates' choices: for measuring where gates were never trained.
//
// A generated checkpoint runs as fast as a trained one of its shape, but its gates choose as no
// trained gates do, and pools and predictors live on how those choose. So each row is given the
// experts of a token of a trace. What the model then says is meaningless.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cache/routing_observer.h"
#include "cache/routing_trace.h"
#include "configs/model_config.h"
#include "kernels/ops.h"

namespace augur {

/// The choices of a trace, laid out for a model: text after text, a text's tokens as they ran.
struct RecordedRoutes {
  std::string path;  // of the trace
  int64_t num_tokens = 0;
  int top_k = 0;
  std::vector<int> layers;           // the model's layers with experts
  std::vector<int32_t> experts;      // [layers, num_tokens, top_k]
  std::vector<int64_t> turn_starts;  // the first token of each text, rising

  const int32_t* choices(size_t layer_idx, int64_t token_idx) const {
    return experts.data() + (static_cast<int64_t>(layer_idx) * num_tokens + token_idx) * top_k;
  }
};

/// Layer by layer in their order: the model's first layer with experts takes the trace's first.
/// A token without choices of a layer takes those of the next that has some: engines that want no
/// logits of a prompt's tokens leave these out of the last layer. `path` is for messages. Throws
/// ConfigError for a trace of fewer layers, other top_k, or experts that the model lacks.
RecordedRoutes fit_routes(const RoutingTrace& trace,
                          const std::string& path,
                          const ModelConfig& model);

/// Fills the choices of a step before it runs. Made for a decoder, which it is added to as an
/// observer and whose force_routing() takes experts().
/// Threading: one thread, the decoder's.
class RoutingDriver final : public RoutingObserver {
 public:
  /// Allocates num_bytes() in the memory of `ops`, which outlives the driver. Steps have up to
  /// `max_tokens` rows.
  RoutingDriver(RecordedRoutes routes, const ModelConfig& model, int64_t max_tokens, Ops& ops);
  static int64_t num_bytes(const ModelConfig& model, int64_t max_tokens);

  /// [num_layers, max_tokens, top_k], of which those of layers with experts are filled.
  const int32_t* experts() const { return forced_.as<int32_t>(); }

  /// The row of sequence s at position p gets the choices of token (first_token(s) + p) modulo the
  /// trace's length.
  void on_step(const StepRows& rows) override;
  void on_routing(const RoutingView&) override {}

  /// Sequence s begins where text s of the trace does, as far as there are texts, so that a run
  /// that is repeated gets back the choices it made; later sequences begin at places spread over
  /// the trace, so that those that run together do not all choose alike.
  int64_t first_token(int64_t sequence_id) const;

  /// For people, at the start and beside every result.
  std::string warning() const;

 private:
  const RecordedRoutes routes_;
  const int64_t max_tokens_;
  Ops& ops_;
  Buffer forced_;
  // Of one step; they keep their memory.
  std::vector<int64_t> token_of_row_;
  std::vector<int32_t> layer_choices_;  // [rows, top_k]
};

}  // namespace augur
