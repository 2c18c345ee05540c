// Log-probabilities of the documents of tests/data, as a model gives them.
#pragma once

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "engine/model/model_loader.h"
#include "engine/schedule/engine.h"

namespace augur::test {

inline std::unique_ptr<Engine> make_engine(LoadedModel& model, int64_t max_tokens_per_step) {
  EngineOptions options;
  options.max_tokens_per_step = max_tokens_per_step;
  options.eos_token_ids = model.config().eos_token_ids;
  return std::make_unique<Engine>(options, *model.decoder, &*model.tokenizer);
}

struct DocumentScore {
  int64_t num_tokens = 0;
  double logprob_sum = 0;
};

/// Scores every `stride`-th document of tests/data/eval.jsonl, the first max_tokens of each, by id.
inline std::map<std::string, DocumentScore> score_documents(LoadedModel& model,
                                                            int64_t max_tokens,
                                                            int64_t stride,
                                                            int64_t max_tokens_per_step = 2048) {
  std::map<std::string, DocumentScore> scores;
  const auto engine = make_engine(model, max_tokens_per_step);
  std::ifstream lines(std::filesystem::path(AUGUR_SOURCE_DIR) / "tests/data/eval.jsonl");
  int64_t line_idx = 0;
  for (std::string line; std::getline(lines, line); ++line_idx) {
    if (line_idx % stride != 0) continue;
    const boost::json::value document = boost::json::parse(line);
    Request request;
    request.id = document.at("id").as_string().c_str();
    request.prompt_ids = model.tokenizer->encode(document.at("text").as_string());
    if (static_cast<int64_t>(request.prompt_ids.size()) > max_tokens) {
      request.prompt_ids.resize(max_tokens);
    }
    request.sampling.max_tokens = 0;
    request.score_prompt = true;
    request.on_finished = [&scores](RequestResult&& result) {
      DocumentScore& score = scores[result.id];
      score.num_tokens = result.num_prompt_tokens;
      for (const ScoredToken& token : result.prompt_logprobs) score.logprob_sum += token.logprob;
    };
    EXPECT_EQ(engine->check(request), "");
    engine->submit(std::move(request));
  }
  while (engine->step()) {
  }
  return scores;
}

}  // namespace augur::test
