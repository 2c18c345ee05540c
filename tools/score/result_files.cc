#include "tools/score/result_files.h"

#include <filesystem>

namespace augur::score {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

template <typename T>
json::value optional_to_json(const std::optional<T>& value) {
  return value ? json::value(*value) : json::value(nullptr);
}

json::object sampling_settings(const SamplingFlags& flags) {
  json::array biases;
  for (const LogitBias& bias : flags.logit_bias)
    // As text: the bias may be infinite.
    biases.push_back(json::array{bias.token_id, json::string(std::to_string(bias.bias))});
  return {{"temperature", optional_to_json(flags.temperature)},
          {"top_k", optional_to_json(flags.top_k)},
          {"top_p", optional_to_json(flags.top_p)},
          {"min_p", optional_to_json(flags.min_p)},
          {"repetition_penalty", optional_to_json(flags.repetition_penalty)},
          {"presence_penalty", optional_to_json(flags.presence_penalty)},
          {"frequency_penalty", optional_to_json(flags.frequency_penalty)},
          {"max_tokens", flags.max_tokens},
          {"min_tokens", flags.min_tokens},
          {"seed", std::to_string(flags.seed)},
          {"n", flags.n},
          {"stop", json::array(flags.stop.begin(), flags.stop.end())},
          {"stop_token_ids", json::array(flags.stop_token_ids.begin(), flags.stop_token_ids.end())},
          {"logit_bias", biases},
          {"ignore_eos", flags.ignore_eos},
          {"include_stop", flags.include_stop},
          {"logprobs", optional_to_json(flags.logprobs)}};
}

/// The state as it is when nothing was done: cut to nothing, then its header.
void start_anew(const json::object& settings, OpenedResults& opened) {
  opened.files.output.truncate(0);
  opened.files.state->truncate(0);
  opened.files.state->append(header_record(settings));
}

}  // namespace

json::object row_settings(const Options& options,
                          const EngineConfig& config,
                          const std::string& model) {
  const auto precision = static_cast<size_t>(config.execution.precision);
  const auto kv_dtype = static_cast<size_t>(config.kv_cache.dtype);
  json::object settings{{"model", model},
                        {"precision", std::string(kEnumWords<PrecisionChoice>[precision])},
                        {"kv_cache_dtype", std::string(kEnumWords<KvDtypeChoice>[kv_dtype])},
                        {"max_context", config.kv_cache.max_context},
                        {"unordered", options.unordered}};
  if (const std::string& trace = config.execution.routing_trace; !trace.empty())
    settings["routing_trace"] = trace;
  if (options.mode == Mode::kScore) {
    settings["mode"] = "score";
    settings["token_logprobs"] = options.token_logprobs;
    settings["top_logprobs"] = optional_to_json(options.top_logprobs);
    settings["max_tokens_per_document"] = options.max_tokens_per_document;
  } else {
    settings["mode"] = "generate";
    for (auto& [key, value] : sampling_settings(options.sampling)) settings[key] = value;
  }
  return settings;
}

OpenedResults open_results(const Options& options, const json::object& settings) {
  const std::string& path = options.output;
  std::error_code error;
  if (options.input != "-" && path != "-" && fs::equivalent(options.input, path, error))
    throw ResumeError(path + ": is the input, accepted: another file for the output");

  OpenedResults opened{.files = {.output = OutputFile(path), .errors_path = options.errors}};
  ResultFiles& files = opened.files;
  if (!files.output.is_plain_file()) {
    if (options.resume)
      throw ResumeError(files.output.name() + ": only a run into a plain file can be resumed");
    return opened;
  }
  if (files.errors_path.empty()) files.errors_path = path + ".errors.jsonl";
  const bool has_errors = fs::exists(files.errors_path, error);
  const std::string state_path = path + ".state";
  const bool has_state = fs::exists(state_path, error) && fs::file_size(state_path, error) > 0;
  const int64_t output_bytes = files.output.num_bytes();

  if (output_bytes > 0 && !options.resume && !options.overwrite)
    throw ResumeError(path + ": holds " + std::to_string(output_bytes) +
                      " bytes already; --resume goes on with it, --overwrite starts anew");
  if (output_bytes > 0 && options.resume && !has_state)
    throw ResumeError(path + ": cannot be resumed without " + state_path +
                      ", which is not there; --overwrite starts anew");
  files.state.emplace(state_path);
  if (options.resume && has_state) {
    if (has_errors) files.errors.emplace(files.errors_path);
    opened.resume =
        recover(*files.state, files.output, files.errors ? &*files.errors : nullptr, settings);
    return opened;
  }
  start_anew(settings, opened);
  if (has_errors) OutputFile(files.errors_path).truncate(0);
  return opened;
}

}  // namespace augur::score
