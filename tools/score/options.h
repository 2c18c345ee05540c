// What the command line asks for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "configs/load_config.h"
#include "engine/schedule/request.h"
#include "tools/score/mode.h"

namespace augur::score {

/// The sampling settings that were given; the others come from the model.
struct SamplingFlags {
  std::optional<float> temperature;
  std::optional<int> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  int64_t max_tokens = 256;
  int64_t min_tokens = 0;
  uint64_t seed = 0;
  int n = 1;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  std::vector<LogitBias> logit_bias;
  bool ignore_eos = false;
  bool include_stop = false;
  std::optional<int> logprobs;
};

struct Options {
  std::string input;
  std::string output;
  std::string errors;          // empty: OUTPUT.errors.jsonl, none when the output is no plain file
  std::string summary;         // empty: none
  std::string expert_report;   // empty: none; see report_paths
  std::string record_routing;  // empty: none
  Mode mode = Mode::kScore;
  bool unordered = false;
  bool resume = false;
  bool overwrite = false;
  bool strict = false;

  // Scoring.
  bool token_logprobs = false;
  std::optional<int> top_logprobs;
  int64_t max_tokens_per_document = 0;  // 0: whole documents

  SamplingFlags sampling;

  std::optional<std::string> config_file;
  std::vector<ConfigOverride> overrides;
  bool print_config = false;
};

}  // namespace augur::score
