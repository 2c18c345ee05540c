#include "tools/score/command_line.h"

#include <CLI/CLI.hpp>

#include <charconv>
#include <iostream>
#include <limits>
#include <map>
#include <string>

#include "configs/config_writer.h"

namespace augur::score {
namespace {

constexpr const char* kDescription =
    "Scores or continues documents offline: JSON lines in, JSON lines out.\n"
    "A line of input holds \"id\" and \"text\", \"prompt\" and \"completion\", \"messages\", or "
    "\"input_ids\".";

constexpr const char* kExitCodes =
    "Exit status: 0 all done; 1 options, configuration, model or input refused; 2 done, some "
    "lines bad\n(or --strict stopped at one); 3 output could not be written; 4 the run broke off; "
    "130, 143 interrupted.";

/// "42=-1.5": token 42 becomes that much less likely. "-inf" forbids it.
LogitBias parse_logit_bias(const std::string& text) {
  const size_t equals = text.find('=');
  LogitBias bias;
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const auto refuse = [&] {
    return CLI::ValidationError(
        "--logit-bias", "found " + text + ", accepted: ID=BIAS, such as 42=-1.5 or 42=-inf");
  };
  if (equals == std::string::npos) throw refuse();
  const auto id = std::from_chars(begin, begin + equals, bias.token_id);
  const auto value = std::from_chars(begin + equals + 1, end, bias.bias);
  if (id.ec != std::errc() || id.ptr != begin + equals || value.ec != std::errc() ||
      value.ptr != end || bias.bias != bias.bias)
    throw refuse();
  return bias;
}

void add_files(CLI::App& app, Options& options) {
  app.add_option("-i,--input", options.input, "JSON lines to read; - for standard input")
      ->option_text("FILE");
  app.add_option("-o,--output", options.output, "JSON lines to write; - for standard output")
      ->option_text("FILE");
  app.add_flag("--resume", options.resume, "go on with an output that an earlier run began");
  app.add_flag("--overwrite", options.overwrite, "start anew if the output is there")
      ->excludes("--resume");
  app.add_flag("--unordered", options.unordered, "write rows as they are done, not in input order");
  app.add_option("--errors", options.errors, "where bad lines are told (OUTPUT.errors.jsonl)")
      ->option_text("FILE");
  app.add_flag("--strict", options.strict, "stop at the first bad line");
  app.add_option("--summary", options.summary, "also write the closing figures as JSON")
      ->option_text("FILE");
}

void add_experts(CLI::App& app, Options& options) {
  const std::string group = "Experts";
  app.add_option("--expert-report", options.expert_report,
                 "where experts were and how well that served: FILE.json (figures), FILE.svg "
                 "(picture), or both")
      ->option_text("FILE")
      ->group(group);
  app.add_option("--record-routing", options.record_routing,
                 "write which experts every token went to, for augur-replay")
      ->option_text("FILE")
      ->group(group);
}

void add_scoring(CLI::App& app, Options& options) {
  const std::string group = "Scoring";
  app.add_flag("--token-logprobs", options.token_logprobs, "list the log-probability of each token")
      ->group(group);
  app.add_option("--top-logprobs", options.top_logprobs,
                 "list the K likeliest tokens at each place")
      ->option_text("K")
      ->check(CLI::Range(1, 1000))
      ->group(group);
  app.add_option("--max-tokens-per-document", options.max_tokens_per_document,
                 "score only the first N tokens of each document")
      ->option_text("N")
      ->check(CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max()))
      ->group(group);
}

void add_generation(CLI::App& app, SamplingFlags& flags, std::vector<std::string>& logit_bias) {
  const std::string group = "Generating (with --mode generate)";
  const auto count_range = CLI::Range(int64_t{0}, int64_t{1} << 30);
  app.add_option("--max-tokens", flags.max_tokens, "tokens of a completion at most (256)")
      ->option_text("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->group(group);
  app.add_option("--min-tokens", flags.min_tokens, "no end before so many tokens")
      ->option_text("N")
      ->check(count_range)
      ->group(group);
  app.add_option("--temperature", flags.temperature, "0: always the likeliest token (the model's)")
      ->option_text("T")
      ->group(group);
  app.add_option("--top-k", flags.top_k, "draw from the K likeliest; 0: all (the model's)")
      ->option_text("K")
      ->group(group);
  app.add_option("--top-p", flags.top_p, "draw from the likeliest that make up P (the model's)")
      ->option_text("P")
      ->group(group);
  app.add_option("--min-p", flags.min_p, "leave out less than P times the likeliest (the model's)")
      ->option_text("P")
      ->group(group);
  app.add_option("--repetition-penalty", flags.repetition_penalty,
                 "above 1: tokens of prompt and output become less likely (the model's)")
      ->option_text("F")
      ->group(group);
  app.add_option("--presence-penalty", flags.presence_penalty, "taken off tokens of the output (0)")
      ->option_text("F")
      ->group(group);
  app.add_option("--frequency-penalty", flags.frequency_penalty,
                 "taken off tokens of the output, once for each time (0)")
      ->option_text("F")
      ->group(group);
  app.add_option("--seed", flags.seed, "another seed, other draws; the same, the same (0)")
      ->option_text("N")
      ->group(group);
  app.add_option("--n", flags.n, "completions of each prompt (1)")
      ->option_text("N")
      ->check(CLI::Range(1, 128))
      ->group(group);
  app.add_option("--stop", flags.stop, "end before this text; may be given several times")
      ->option_text("TEXT")
      ->expected(1)
      ->take_all()
      ->group(group);
  app.add_option("--stop-token-id", flags.stop_token_ids, "end at this token; may be repeated")
      ->option_text("ID")
      ->expected(1)
      ->take_all()
      ->group(group);
  app.add_flag("--include-stop", flags.include_stop, "keep the stop text or token in the output")
      ->group(group);
  app.add_flag("--ignore-eos", flags.ignore_eos, "go on after the model's end-of-text tokens")
      ->group(group);
  app.add_option("--logit-bias", logit_bias, "ID=B adds B to a token's logit; may be repeated")
      ->option_text("ID=B")
      ->expected(1)
      ->take_all()
      ->group(group);
  app.add_option("--logprobs", flags.logprobs, "list log-probabilities, and the K likeliest tokens")
      ->option_text("K")
      ->check(CLI::Range(0, 1000))
      ->group(group);
}

/// An option of one mode means nothing in the other: silence would hide a mistake.
void refuse_options_of_the_other_mode(const CLI::App& app, Mode mode) {
  const std::string other = mode == Mode::kScore ? "Generating (with --mode generate)" : "Scoring";
  for (const CLI::Option* option : app.get_options())
    if (option->get_group() == other && option->count() > 0)
      throw CLI::ValidationError(option->get_name(), mode == Mode::kScore
                                                         ? "needs --mode generate"
                                                         : "does not go with --mode generate");
}

}  // namespace

CommandLine parse_command_line(int argc, const char* const* argv) {
  CommandLine result;
  Options& options = result.options;
  std::string model;
  std::vector<std::string> settings;
  std::vector<std::string> logit_bias;

  CLI::App app(kDescription, "augur-score");
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
  app.set_version_flag("--version", "augur-score " AUGUR_VERSION);
  CLI::Option* model_option = app.add_option(
      "--model", model, "folder of the model, in Hugging Face layout (the demo model)");
  model_option->option_text("DIR");
  const std::map<std::string, Mode> kModes{{"score", Mode::kScore}, {"generate", Mode::kGenerate}};
  app.add_option("--mode", options.mode, "score (log-probabilities of the text) or generate")
      ->option_text("MODE")
      ->transform(CLI::Transformer(kModes))
      ->check(CLI::IsMember({"0", "1"}).description(""));
  add_files(app, options);
  add_scoring(app, options);
  add_generation(app, options.sampling, logit_bias);
  add_experts(app, options);
  const std::string group = "Configuration";
  app.add_option("--config", options.config_file, "YAML file; keys are listed below")
      ->option_text("FILE")
      ->group(group);
  app.add_option("--set", settings, "one key of the configuration; may be given several times")
      ->option_text("KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->group(group);
  app.add_flag("--print-config", options.print_config, "print the configuration in effect and stop")
      ->group(group);
  app.footer("Keys of the configuration:\n" + config_help(kServerSections) + "\n" + kExitCodes);

  try {
    app.parse(argc, argv);
    for (const std::string& bias : logit_bias)
      options.sampling.logit_bias.push_back(parse_logit_bias(bias));
    if (!options.print_config) {
      if (options.input.empty()) throw CLI::RequiredError("--input");
      if (options.output.empty()) throw CLI::RequiredError("--output");
    }
    refuse_options_of_the_other_mode(app, options.mode);
  } catch (const CLI::ParseError& error) {
    result.exit_status = app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
    return result;
  }
  for (const std::string& setting : settings)
    options.overrides.push_back(parse_set_option(setting));
  if (model_option->count() > 0)
    options.overrides.push_back({"model.path", model, "--model " + model});
  return result;
}

}  // namespace augur::score
