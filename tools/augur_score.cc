// augur-score: scores or continues documents offline. See docs/augur-score.md.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <limits>
#include <optional>
#include <sstream>

#include "configs/config_error.h"
#include "configs/config_writer.h"
#include "engine/engine_setup.h"
#include "engine/log.h"
#include "engine/model/model_loader.h"
#include "engine/model/route_metrics.h"
#include "engine/progress.h"
#include "engine/schedule/validation.h"
#include "engine/text/utf8.h"
#include "tools/score/command_line.h"
#include "tools/score/expert_map.h"
#include "tools/score/expert_report.h"
#include "tools/score/interrupt.h"
#include "tools/score/job.h"
#include "tools/score/model_text.h"
#include "tools/score/report.h"
#include "tools/score/routing_file.h"
#include "tools/score/sampling.h"
#include "tools/score/side_files.h"

namespace augur::score {
namespace {

int status(ExitCode code) {
  return static_cast<int>(code);
}

void log_lines(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) log_info("{}", line);
}

std::unique_ptr<LoadedModel> load(const EngineConfig& config) {
  LoadListener listener;
  listener.on_message = log_lines;
  listener.on_warning = [](const std::string& line) { log_warning("{}", line); };
  ByteProgress progress("loading");
  listener.on_progress = [&](int64_t done, int64_t total) { progress.update(done, total); };
  std::unique_ptr<LoadedModel> model = load_model(config, listener);
  std::string phases;
  double seconds = 0;
  for (const PhaseTime& phase : model->phases) {
    phases += fmt::format("{}{} {:.2f} s", phases.empty() ? "" : ", ", phase.name, phase.seconds);
    seconds += phase.seconds;
  }
  log_info("loaded in {:.2f} s: {}", seconds, phases);
  return model;
}

/// Refuses sampling settings that no line could be run with.
void check_sampling(const SamplingParams& sampling, int64_t vocab_size) {
  if (const std::string problem = validate_sampling(sampling, vocab_size); !problem.empty())
    throw ConfigError("sampling", problem);
}

/// What is said of experts needs some that do not stay in memory. `is_pooled`: there are such.
void check_expert_report(const Options& options, bool is_pooled) {
  if (options.expert_report.empty() || is_pooled) return;
  throw ConfigError("--expert-report",
                    "all experts stay in memory, so there is nothing to tell of them; accepted "
                    "with cache.experts.device_bytes above 0 and a model that has experts");
}

/// The name of the model's folder, a line of UTF-8.
std::string name_of_model(const LoadedModel& model) {
  const std::filesystem::path folder = model.folder.lexically_normal();
  const std::string name =
      (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  std::string storage;
  std::string valid(valid_utf8_or_repaired(name, storage));
  std::replace_if(
      valid.begin(), valid.end(), [](unsigned char c) { return c < ' '; }, '?');
  return valid;
}

/// What a run tells of its experts.
struct ExpertFigures {
  std::optional<ExpertView> view;  // none when all of them stay in memory
  std::vector<std::string> lines;
  std::vector<Metric> metrics;
};

ExpertFigures expert_figures(const LoadedModel& model, double seconds) {
  ExpertFigures figures;
  if (const ExpertMemory* const memory = model.weights.expert_memory.get()) {
    figures.view.emplace(view_of(*memory, model.config()));
    figures.lines = expert_summary_lines(*figures.view, seconds);
    append_expert_metrics(*figures.view, figures.metrics);
  }
  if (model.weights.low_bit_experts != nullptr) {
    const LowBitCounts counts = model.weights.low_bit_experts->total();
    figures.lines.push_back(low_bit_summary_line(counts));
    append_low_bit_metrics(counts, figures.metrics);
  }
  if (model.route_memory != nullptr) {
    const RouteReport report = model.route_memory->report();
    figures.lines.push_back(route_summary_line(report));
    append_route_metrics(report, figures.metrics);
  }
  return figures;
}

void write_expert_reports(const Options& options,
                          const ExpertFigures& figures,
                          const std::string& model) {
  const ReportPaths paths = report_paths(options.expert_report);
  if (!paths.json.empty()) {
    write_side_file(paths.json, "the report of experts",
                    expert_report_json(*figures.view, figures.metrics, model));
  }
  if (!paths.svg.empty())
    write_side_file(paths.svg, "the picture of experts", expert_map_svg(*figures.view, model));
}

void tell_result(const Options& options,
                 const JobResult& result,
                 const ExpertFigures& experts,
                 int argc,
                 char** argv) {
  std::string errors = options.errors;
  if (errors.empty() && std::filesystem::is_regular_file(options.output))
    errors = options.output + ".errors.jsonl";
  for (const std::string& line : summary_lines(options.mode, result)) log_info("{}", line);
  for (const std::string& line : experts.lines) log_info("{}", line);
  if (const std::string text = bad_lines_text(result, errors); !text.empty())
    log_warning("{}", text);
  if (!options.summary.empty()) {
    const std::string of_experts =
        experts.metrics.empty() ? std::string() : metrics_json(without_layers(experts.metrics));
    write_side_file(options.summary, "the summary", summary_json(options.mode, result, of_experts));
  }
  if (result.strict_stop)
    log_error("{}:{}: {}; stopped there, as --strict asks", options.input,
              result.strict_stop->line_number, result.strict_stop->reason);
  if (result.signal != 0 && std::filesystem::is_regular_file(options.output))
    log_warning("interrupted; go on with: {}", resume_command(argc, argv));
}

int run(int argc, char** argv) {
  CommandLine command = parse_command_line(argc, argv);
  if (command.exit_status) return *command.exit_status;
  Options& options = command.options;
  EffectiveConfig effective = load_config(options.config_file, options.overrides);
  if (options.print_config) {
    std::cout << write_config(effective);
    return std::cout.flush() ? status(ExitCode::kOk) : status(ExitCode::kOutputFailed);
  }
  set_log_level(effective.config.logging.level);
  // What is wrong with options and files is told before a large model is read.
  check_sampling(make_sampling(options.sampling, {}), std::numeric_limits<int32_t>::max());
  if (effective.config.model.path.empty())
    effective.config.model.path = demo_model_folder().string();
  std::error_code error;
  const auto folder = std::filesystem::weakly_canonical(effective.config.model.path, error);
  check_side_files(options);
  check_expert_report(options, effective.config.cache.experts.device_bytes > 0);
  catch_signals();
  Job job(options, row_settings(options, effective.config, folder.string()));
  log_lines(write_config(effective, kServerSections));
  if (const ResumePoint& resume = job.resume(); !resume.done.empty() || !resume.held.empty())
    log_info("going on after {} documents", format_count(resume.totals.documents));

  const std::unique_ptr<LoadedModel> model = load(effective.config);
  check_expert_report(options, model->weights.expert_memory != nullptr);
  const SamplingParams sampling = make_sampling(options.sampling, model->description.generation);
  check_sampling(sampling, model->config().vocab_size);
  const Tokenizer* const tokenizer = model->tokenizer ? &*model->tokenizer : nullptr;
  const ModelTextCodec codec(tokenizer, model->chat_template ? &*model->chat_template : nullptr);
  const EngineSetup setup = make_engine_setup(effective.config, *model);
  std::optional<RoutingFile> routing;
  if (!options.record_routing.empty()) {
    if (model->config().moe.num_experts == 0)
      throw ConfigError("--record-routing", "the model has no experts that tokens are routed to");
    routing.emplace(options.record_routing, name_of_model(*model), *model);
  }
  Engine engine(setup.options, *model->decoder, tokenizer);

  JobResult result;
  {
    StatusLine line;
    result = job.run(engine, codec, sampling, setup.options, [&](const JobProgress& progress) {
      if (line.is_due()) line.show(progress_text(options.mode, progress));
    });
  }
  const ExpertFigures experts = expert_figures(*model, result.seconds);
  tell_result(options, result, experts, argc, argv);
  if (routing)
    log_info("routing: {} lines in {}", format_count(routing->num_lines()), options.record_routing);
  if (experts.view) write_expert_reports(options, experts, name_of_model(*model));
  if (model->routing_driver) log_warning("{}", model->routing_driver->warning());
  return result.exit_status();
}

int fail(ExitCode code, const std::exception& error) {
  log_error("{}", error.what());
  return status(code);
}

}  // namespace
}  // namespace augur::score

int main(int argc, char** argv) {
  using namespace augur;
  using namespace augur::score;
  try {
    return run(argc, argv);
  } catch (const ConfigError& error) {
    return fail(ExitCode::kUsage, error);
  } catch (const ResumeError& error) {
    return fail(ExitCode::kUsage, error);
  } catch (const OutOfMemory& error) {
    return fail(ExitCode::kUsage, error);
  } catch (const OutputError& error) {
    log_error("{}", error.what());
    log_error(
        "rows that stand in the output are whole and count; once there is room, the same "
        "command with --resume goes on");
    return status(ExitCode::kOutputFailed);
  } catch (const InputError& error) {
    return fail(ExitCode::kFailed, error);
  } catch (const std::exception& error) {
    return fail(ExitCode::kFailed, error);
  }
}
