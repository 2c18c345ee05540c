#include "bench/route_study_run.h"

#include <boost/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>

#include "configs/config_error.h"

namespace augur {
namespace {

// One document of those that run at a time.
struct Place {
  size_t document = 0;
  int64_t position = 0;
};

void add_row(StepBatch& batch,
             int64_t place_idx,
             const Place& place,
             const std::vector<int32_t>& document,
             int block_size,
             int64_t blocks_per_seq) {
  batch.logit_rows.push_back({.row_idx = static_cast<int32_t>(batch.num_tokens()),
                              .target_id = document[place.position + 1],
                              .wants_logprob = true});
  batch.token_ids.push_back(document[place.position]);
  batch.positions.push_back(static_cast<int32_t>(place.position));
  batch.kv_slots.push_back(place_idx * blocks_per_seq * block_size + place.position);
  batch.query_start.push_back(static_cast<int32_t>(batch.num_tokens()));
  batch.context_len.push_back(static_cast<int32_t>(place.position + 1));
  batch.sequence_ids.push_back(static_cast<int64_t>(place.document));
  for (int64_t block = 0; block < blocks_per_seq; ++block) {
    batch.block_table.push_back(static_cast<int32_t>(place_idx * blocks_per_seq + block));
  }
  ++batch.num_decode_seqs;
}

// Every so many rows of each MoE layer.
class GateInputs final : public RoutingObserver {
 public:
  explicit GateInputs(int64_t period) : period_(period) {}

  void on_step(const StepRows& rows) override { num_rows_ += rows.num_tokens; }
  void on_routing(const RoutingView& routing) override {
    std::vector<float>& rows = of_layer[routing.layer_idx];
    for (int64_t row = 0; row < routing.num_tokens; ++row) {
      if ((num_rows_ + row) % period_ != 0) continue;
      const auto* const values = routing.gate_input.row<const float>(row);
      rows.insert(rows.end(), values, values + routing.gate_input.num_cols);
    }
  }

  std::map<int, std::vector<float>> of_layer;

 private:
  const int64_t period_;
  int64_t num_rows_ = 0;
};

}  // namespace

StudyText read_study_text(const std::filesystem::path& path,
                          const Tokenizer& tokenizer,
                          int64_t max_tokens,
                          int64_t stride) {
  std::ifstream lines(path);
  if (!lines) throw ConfigError(path.string(), "cannot be read");
  StudyText text;
  int64_t line_idx = 0;
  for (std::string line; std::getline(lines, line); ++line_idx) {
    if (line_idx % stride != 0) continue;
    boost::system::error_code error;
    const boost::json::value document = boost::json::parse(line, error);
    const boost::json::value* const found = error ? nullptr : document.find_pointer("/text", error);
    if (found == nullptr || !found->is_string()) {
      throw ConfigError(path.string() + ", line " + std::to_string(line_idx + 1),
                        "is not JSON with a \"text\"");
    }
    std::vector<int32_t> ids = tokenizer.encode(found->get_string());
    if (std::ssize(ids) > max_tokens) ids.resize(max_tokens);
    if (ids.size() < 2) continue;  // nothing to score
    text.num_tokens += std::ssize(ids) - 1;
    text.documents.push_back(std::move(ids));
  }
  if (text.documents.empty()) throw ConfigError(path.string(), "holds no text");
  return text;
}

StudyModel::StudyModel(const std::string& folder,
                       int64_t num_rows,
                       int64_t max_tokens,
                       int num_threads)
    : num_rows_(num_rows) {
  EngineConfig config;
  config.model.path = folder;
  config.execution.device = DeviceChoice::kCpu;
  config.execution.num_threads = num_threads;
  config.execution.max_batch_size = num_rows;
  config.execution.max_tokens_per_step = std::max<int64_t>(num_rows, 16);
  config.kv_cache.max_context = max_tokens;
  model_ = load_model(config, {});
  if (!model_->tokenizer) throw ConfigError(folder, "has no tokenizer.json");
  if (this->config().moe.num_experts == 0) throw ConfigError(folder, "has no experts");
}

double StudyModel::perplexity(const StudyText& text) {
  const ModelRunner::Limits& limits = model_->decoder->limits();
  const int64_t blocks_per_seq = (limits.max_context + limits.block_size - 1) / limits.block_size;
  std::vector<Place> places;
  size_t next_document = 0;
  for (; std::ssize(places) < num_rows_ && next_document < text.documents.size(); ++next_document) {
    places.push_back({next_document, 0});
  }
  double logprob_sum = 0;
  std::vector<LogitResult> results;
  while (true) {
    StepBatch batch;
    batch.block_table_stride = blocks_per_seq;
    batch.query_start = {0};
    for (size_t i = 0; i < places.size(); ++i) {
      Place& place = places[i];
      if (place.document >= text.documents.size()) continue;  // none is left
      add_row(batch, static_cast<int64_t>(i), place, text.documents[place.document],
              limits.block_size, blocks_per_seq);
      // The last token is only a target.
      if (++place.position + 1 >= std::ssize(text.documents[place.document])) {
        place = {next_document++, 0};
      }
    }
    if (batch.num_tokens() == 0) break;
    model_->decoder->run(batch, results);
    for (const LogitResult& result : results) logprob_sum += result.logprob;
  }
  return std::exp(-logprob_sum / static_cast<double>(text.num_tokens));
}

std::vector<std::vector<Projection>> StudyModel::fit_projections(const StudyText& text,
                                                                 const std::vector<int>& dims,
                                                                 int64_t num_samples) {
  GateInputs inputs(std::max<int64_t>(text.num_tokens / num_samples, 1));
  model_->decoder->add_routing_observer(inputs);
  perplexity(text);
  model_->decoder->remove_routing_observer(inputs);
  std::vector<std::vector<Projection>> fitted(dims.size());
  const int64_t hidden_size = config().hidden_size;
  for (const auto& [layer, rows] : inputs.of_layer) {
    for (size_t i = 0; i < dims.size(); ++i) {
      fitted[i].push_back(
          Projection::fit(rows.data(), std::ssize(rows) / hidden_size, hidden_size, dims[i]));
    }
  }
  return fitted;
}

}  // namespace augur
