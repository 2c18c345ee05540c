// Documents run through a model as decoding runs them, for studies of routing.
//
// A step has a row of each of several documents, so a row finds what all steps before it left, and
// every row's next token is scored.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cache/projection.h"
#include "engine/model/model_loader.h"
#include "engine/model/route_memory.h"

namespace augur {

struct StudyText {
  std::vector<std::vector<int32_t>> documents;
  int64_t num_tokens = 0;
};

/// The first `max_tokens` tokens of every `stride`-th line of a file of {"text": ...} lines. Throws
/// ConfigError.
StudyText read_study_text(const std::filesystem::path& path,
                          const Tokenizer& tokenizer,
                          int64_t max_tokens,
                          int64_t stride);

class StudyModel {
 public:
  /// Runs `num_rows` documents at a time, of up to `max_tokens` tokens.
  StudyModel(const std::string& folder, int64_t num_rows, int64_t max_tokens, int num_threads);

  LoadedModel& model() { return *model_; }
  const ModelConfig& config() const { return model_->config(); }
  std::string name() const { return model_->folder.filename().string(); }

  /// The perplexity of the text.
  double perplexity(const StudyText& text);
  /// Projections by MoE layer, fitted to about `num_samples` gate inputs spread over the text; one
  /// list for each of `dims`.
  std::vector<std::vector<Projection>> fit_projections(const StudyText& text,
                                                       const std::vector<int>& dims,
                                                       int64_t num_samples);

 private:
  const int64_t num_rows_;
  std::unique_ptr<LoadedModel> model_;
};

}  // namespace augur
