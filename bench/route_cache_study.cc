// What a route cache can answer for on trained models, and what that costs; and whether its hints
// beat those of the other predictors.
//
//   augur_route_cache_study --model A --model B --svg plot.svg
//
// For each model, dims x threshold -> hit rate and agreement at k, with the threshold fixed and all
// entries kept: first while the gates decide and every choice is stored, which is the best a cache
// can be, then served, with the perplexity. A served row stores nothing and changes the states
// behind it. Then how many experts each predictor foretells, and what a look-up takes beside the
// gate it stands for. Documents run as in decoding,
// some at a time, one row of each in a step. The projections are fitted to the very text that is
// run, which is more than a server could know: a bound from above.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include "bench/route_study_plot.h"
#include "bench/route_study_recall.h"
#include "bench/route_study_run.h"
#include "configs/config_error.h"
#include "engine/model/prefetching.h"
#include "prefetch/prompt_signature.h"
#include "prefetch/recency.h"
#include "prefetch/route_cache_predictor.h"
#include "prefetch/transition_table.h"

namespace augur {
namespace {

struct Options {
  std::vector<std::string> models;
  std::string text = AUGUR_SOURCE_DIR "/tests/data/eval.jsonl";
  std::string svg;
  std::vector<int> dims = {3, 8, 16, 32, 64};
  std::vector<float> thresholds = {0.8f, 0.92f, 0.95f, 0.98f, 0.99f, 0.995f, 0.999f};
  double wanted = 0.987;  // the agreement claimed for 3 components at 0.92
  int64_t max_tokens = 512;
  int64_t stride = 1;
  int64_t num_rows = 16;
  int64_t num_samples = 2048;
  int num_threads = 1;
};

constexpr int64_t kFewestCheckedExperts = 200;  // for an agreement to be told

struct Study {
  StudyModel model;
  StudyText text;
  std::vector<std::vector<Projection>> projections;  // by index of Options::dims
};

RouteCacheConfig cache_config(const Options& options,
                              const Study& study,
                              const RouteCacheShape& shape,
                              int dims,
                              float threshold) {
  RouteCacheConfig config;
  config.capacity = study.text.num_tokens * static_cast<int64_t>(shape.moe_layers.size());
  config.dims = dims;
  config.similarity_threshold = config.lowest_threshold = config.highest_threshold = threshold;
  config.min_agreement = config.min_hint_agreement = 0;  // it serves, come what may
  config.max_rows = static_cast<int>(options.num_rows);
  return config;
}

StudyPoint point_of(int dims, float threshold, const RouteCounts& counts, double perplexity) {
  const bool is_checked = counts.num_checked_experts >= kFewestCheckedExperts;
  return {dims, threshold, counts.hit_rate(), is_checked ? counts.agreement() : -1, perplexity};
}

// Caches that watch the gates decide.
class Watchers final : public RoutingObserver {
 public:
  void add(std::unique_ptr<RouteCache> cache) { caches_.push_back(std::move(cache)); }
  void on_step(const StepRows& rows) override {
    for (const auto& cache : caches_) cache->begin_step();
  }
  void on_routing(const RoutingView& routing) override {
    for (const auto& cache : caches_) cache->observe(routing);
  }
  const std::vector<std::unique_ptr<RouteCache>>& caches() const { return caches_; }

 private:
  std::vector<std::unique_ptr<RouteCache>> caches_;
};

std::vector<StudyPoint> watch(const Options& options, Study& study, double& perplexity) {
  const RouteCacheShape shape = route_cache_shape(study.model.config());
  Watchers watchers;
  for (size_t d = 0; d < options.dims.size(); ++d) {
    for (const float threshold : options.thresholds) {
      RouteCacheConfig config = cache_config(options, study, shape, options.dims[d], threshold);
      config.num_later_layers = 0;  // nobody asks for hints
      auto cache = std::make_unique<RouteCache>(shape, config);
      cache->set_projections(study.projections[d]);
      watchers.add(std::move(cache));
    }
  }
  Decoder& decoder = *study.model.model().decoder;
  decoder.add_routing_observer(watchers);
  perplexity = study.model.perplexity(study.text);
  decoder.remove_routing_observer(watchers);
  std::vector<StudyPoint> points;
  for (const auto& cache : watchers.caches()) {
    points.push_back(point_of(cache->config().dims, cache->config().similarity_threshold,
                              cache->total(), perplexity));
  }
  return points;
}

struct Served {
  StudyPoint point;
  double look_up_us = 0;  // of a row in a layer
  double gate_us = 0;     // of a row that was gated
};

Served serve(const Options& options, Study& study, size_t dims_idx, float threshold) {
  const RouteCacheShape shape = route_cache_shape(study.model.config());
  const int dims = options.dims[dims_idx];
  RouteMemoryPlan plan;
  plan.serves = true;
  plan.shape = shape;
  plan.by_state = cache_config(options, study, shape, dims, threshold);
  plan.by_state->mode = RouteCacheMode::kServe;
  plan.by_state->num_later_layers = 0;  // nobody asks for hints
  RouteMemory memory(plan, options.num_rows);
  memory.by_state()->set_projections(study.projections[dims_idx]);
  Decoder& decoder = *study.model.model().decoder;
  decoder.set_route_memory(&memory);
  const double perplexity = study.model.perplexity(study.text);
  decoder.set_route_memory(nullptr);

  const RouteReport report = memory.report();
  const RouteCounts counts = report.total_by_state();
  const RouteReport::Gate gate = report.total_gate();
  Served served;
  served.point = point_of(dims, threshold, counts, perplexity);
  served.look_up_us = gate.look_up_us / static_cast<double>(gate.num_rows);
  served.gate_us = gate.gate_us / static_cast<double>(std::max<int64_t>(gate.num_gated_rows, 1));
  fmt::print(stderr, "{} {:2} {:.3f}: hit {:.3f} agree {:.4f} perplexity {:.3f}\n",
             study.model.name(), dims, threshold, served.point.hit_rate, served.point.agreement,
             perplexity);
  return served;
}

/// "39.4 / 81.5": look-ups that hit and experts agreed on, in percent.
std::string hit_and_agreement(const StudyPoint& point) {
  return point.agreement < 0
             ? fmt::format("{:.1f} / -", 100 * point.hit_rate)
             : fmt::format("{:.1f} / {:.1f}", 100 * point.hit_rate, 100 * point.agreement);
}

template <typename Cell>
void print_table(const Options& options, const std::vector<StudyPoint>& points, const Cell& cell) {
  fmt::print("\n| dims |");
  for (const float threshold : options.thresholds) fmt::print(" {:g} |", threshold);
  fmt::print("\n| --- |");
  for (size_t i = 0; i < options.thresholds.size(); ++i) fmt::print(" --- |");
  for (size_t i = 0; i < points.size(); ++i) {
    if (i % options.thresholds.size() == 0) fmt::print("\n| {} |", points[i].dims);
    fmt::print(" {} |", cell(points[i]));
  }
  fmt::print("\n");
}

void print_best(const Options& options,
                const std::vector<StudyPoint>& points,
                double plain_perplexity) {
  const StudyPoint* best = nullptr;
  for (const StudyPoint& point : points) {
    const bool is_good = point.agreement >= options.wanted;
    if (is_good && (best == nullptr || point.hit_rate > best->hit_rate)) best = &point;
  }
  if (best == nullptr) {
    fmt::print("\nNo setting agrees to {:.1f} %.\n", 100 * options.wanted);
    return;
  }
  fmt::print(
      "\nMost hits of those that agree to {:.1f} %: {} dimensions, threshold {:g}: {:.1f} % "
      "hit, {:.1f} % agree, perplexity {:+.2f} %.\n",
      100 * options.wanted, best->dims, best->threshold, 100 * best->hit_rate,
      100 * best->agreement, 100 * (best->perplexity / plain_perplexity - 1));
}

StudyPanel study_agreement(const Options& options, Study& study) {
  StudyPanel panel;
  panel.title = study.model.name();
  double plain_perplexity = 0;
  panel.watched = watch(options, study, plain_perplexity);
  std::vector<Served> all;
  for (size_t d = 0; d < options.dims.size(); ++d) {
    for (const float threshold : options.thresholds) {
      all.push_back(serve(options, study, d, threshold));
      panel.served.push_back(all.back().point);
    }
  }
  fmt::print("\n{} tokens of {} documents; perplexity by its own gates {:.3f}.\n",
             study.text.num_tokens, study.text.documents.size(), plain_perplexity);
  fmt::print("\nWhile the gates decide: look-ups that hit / experts agreed on, percent\n");
  print_table(options, panel.watched, hit_and_agreement);
  print_best(options, panel.watched, plain_perplexity);
  fmt::print("\nServed: look-ups that hit / experts agreed on, percent / perplexity\n");
  print_table(options, panel.served, [](const StudyPoint& point) {
    return fmt::format("{} / {:.2f}", hit_and_agreement(point), point.perplexity);
  });
  print_best(options, panel.served, plain_perplexity);
  fmt::print("\nMicroseconds of a row in a layer, looked up (and gated), in steps of {} rows:\n\n",
             options.num_rows);
  for (size_t d = 0; d < options.dims.size(); ++d) {
    // At the highest threshold nearly every row is stored: the fullest cache.
    const Served& served = all[(d + 1) * options.thresholds.size() - 1];
    fmt::print("- {} dimensions: {:.1f} ({:.2f})\n", options.dims[d], served.look_up_us,
               served.gate_us);
  }
  return panel;
}

void study_recall(const Options& options, Study& study) {
  LoadedModel& model = study.model.model();
  const ModelConfig& config = study.model.config();
  const MoeLayers layers = moe_layers_of(config);
  const std::vector<int> distances = {1, 2, 4};
  std::vector<std::string> names = {"gate lookahead", "transition table", "prompt signature",
                                    "recency"};
  std::vector<std::unique_ptr<Predictor>> predictors;
  predictors.push_back(make_gate_lookahead(config, model.weights, *model.ops));
  predictors.push_back(std::make_unique<TransitionTable>(layers, distances.back()));
  predictors.push_back(std::make_unique<PromptSignature>(layers, PromptSignature::Options{}));
  predictors.push_back(std::make_unique<Recency>(layers, Recency::Options{}));
  // The nearest entry whatever its cosine foretells most; a threshold keeps hints back.
  constexpr float kAnyCosine = 1e-6f;
  const RouteCacheShape shape = route_cache_shape(config);
  std::vector<std::unique_ptr<RouteCache>> caches;
  for (size_t d = 0; d < options.dims.size(); ++d) {
    for (const float threshold : {0.92f, kAnyCosine}) {
      RouteCacheConfig cache = cache_config(options, study, shape, options.dims[d], threshold);
      cache.num_later_layers = distances.back();
      caches.push_back(std::make_unique<RouteCache>(shape, cache));
      caches.back()->set_projections(study.projections[d]);
      predictors.push_back(std::make_unique<RouteCachePredictor>(*caches.back()));
      names.push_back(fmt::format("route cache, {} dims, {}", options.dims[d],
                                  threshold == kAnyCosine ? "nearest" : "cosine > 0.92"));
    }
  }
  const int64_t num_unscored = study.text.num_tokens / 4;
  RecallStudy recalls(layers, std::move(predictors), distances, config.moe.top_k, num_unscored);
  model.decoder->add_routing_observer(recalls);
  study.model.perplexity(study.text);
  model.decoder->remove_routing_observer(recalls);

  fmt::print(
      "\nExperts foretold among the first k / 2k guesses, percent, by MoE layers ahead "
      "(after {} tokens to learn from):\n\n| predictor |",
      num_unscored);
  for (const int distance : distances) fmt::print(" {} |", distance);
  fmt::print("\n| --- | --- | --- | --- |\n");
  for (size_t p = 0; p < names.size(); ++p) {
    fmt::print("| {} |", names[p]);
    for (size_t d = 0; d < distances.size(); ++d) {
      const RecallCount& recall = recalls.recall(p, d);
      fmt::print(" {:.1f} / {:.1f} |", 100 * recall.at_k(), 100 * recall.at_2k());
    }
    fmt::print("\n");
  }
}

void add_options(CLI::App& app, Options& options) {
  app.add_option("--model", options.models, "folder of a model (the demo model)");
  app.add_option("--text", options.text, "JSON lines with a \"text\"")->capture_default_str();
  app.add_option("--svg", options.svg, "where to draw hit rate against agreement");
  app.add_option("--dims", options.dims, "of the reduced states")
      ->delimiter(',')
      ->check(CLI::Range(Projection::kMinDims, Projection::kMaxDims))
      ->capture_default_str();
  app.add_option("--threshold", options.thresholds, "cosines from which a state is a hit")
      ->delimiter(',')
      ->check(CLI::Range(0.01, 1.0));
  app.add_option("--wanted", options.wanted, "agreement to look for")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--tokens", options.max_tokens, "of a document at most")
      ->check(CLI::Range(64, 65536))
      ->capture_default_str();
  app.add_option("--stride", options.stride, "take every so many-th document")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--rows", options.num_rows, "documents that run at a time")
      ->check(CLI::Range(int64_t{1}, kMaxGuessedRows))
      ->capture_default_str();
  app.add_option("--samples", options.num_samples, "gate inputs that projections are fitted to")
      ->check(CLI::Range(256, 65536))
      ->capture_default_str();
  app.add_option("--threads", options.num_threads, "of the model's operations")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("What a route cache can answer for, and what it foretells.");
  add_options(app, options);
  CLI11_PARSE(app, argc, argv);
  std::sort(options.thresholds.begin(), options.thresholds.end());
  if (options.models.empty()) options.models.push_back(demo_model_folder().string());
  std::vector<StudyPanel> panels;
  for (const std::string& folder : options.models) {
    Study study{
        StudyModel(folder, options.num_rows, options.max_tokens, options.num_threads), {}, {}};
    study.text = read_study_text(options.text, *study.model.model().tokenizer, options.max_tokens,
                                 options.stride);
    fmt::print("\n## {}\n", study.model.name());
    study.projections = study.model.fit_projections(study.text, options.dims, options.num_samples);
    study_recall(options, study);
    panels.push_back(study_agreement(options, study));
    std::fflush(stdout);
  }
  if (options.svg.empty()) return 0;
  std::ofstream file(options.svg);
  file << plot_study(panels, options.wanted);
  file.close();
  if (!file) throw ConfigError(options.svg, "cannot be written");
  return 0;
}

}  // namespace
}  // namespace augur

int main(int argc, char** argv) {
  try {
    return augur::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "augur_route_cache_study: {}\n", error.what());
    return 1;
  }
}
