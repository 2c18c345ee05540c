#include "tools/score/report.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include "engine/progress.h"

namespace augur::score {
namespace {

constexpr int kBarColumns = 24;

int64_t num_tokens(const Totals& totals) {
  return totals.prompt_tokens + totals.completion_tokens;
}

double tokens_per_second(const JobResult& result) {
  return result.seconds > 0 ? static_cast<double>(num_tokens(result.written)) / result.seconds : 0;
}

/// For a POSIX shell.
std::string quote(std::string_view argument) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";
  if (!argument.empty() && argument.find_first_not_of(kPlain) == argument.npos)
    return std::string(argument);
  std::string quoted = "'";
  for (const char c : argument) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

}  // namespace

std::string progress_text(Mode mode, const JobProgress& progress) {
  std::string text = mode == Mode::kScore ? "scoring" : "generating";
  const auto total = static_cast<double>(progress.total_bytes);
  const auto done = static_cast<double>(progress.run.input_bytes + progress.passed_bytes);
  if (total > 0) text += fmt::format(" {}", format_bar(done / total, kBarColumns));
  text += fmt::format("  {} documents", format_count(progress.run.documents));
  if (progress.run.bad_lines > 0)
    text += fmt::format("  {} bad lines", format_count(progress.run.bad_lines));
  if (progress.seconds > 0)
    text += fmt::format("  {} tokens/s",
                        format_rate(static_cast<double>(progress.run.tokens) / progress.seconds));
  // The rate of this run only: what an earlier one did was passed over in no time.
  if (total > done && progress.run.input_bytes > 0) {
    const double seconds_per_byte =
        progress.seconds / static_cast<double>(progress.run.input_bytes);
    text += fmt::format("  {} left", format_duration((total - done) * seconds_per_byte));
  }
  return text;
}

std::vector<std::string> summary_lines(Mode mode, const JobResult& result) {
  const Totals& totals = result.totals;
  std::vector<std::string> lines;
  std::string first = fmt::format("{} documents, {} tokens", format_count(totals.documents),
                                  format_count(num_tokens(totals)));
  if (mode == Mode::kScore)
    first += fmt::format(" ({} scored)", format_count(totals.scored_tokens));
  else
    first += fmt::format(" ({} generated)", format_count(totals.completion_tokens));
  lines.push_back(first);
  const int64_t earlier = totals.documents - result.written.documents;
  lines.push_back(fmt::format("{:.2f} s, {} tokens/s{}", result.seconds,
                              format_count(static_cast<int64_t>(tokens_per_second(result))),
                              earlier > 0 ? fmt::format(" for the {} documents of this run",
                                                        format_count(result.written.documents))
                                          : ""));
  if (const auto perplexity = totals.perplexity())
    lines.push_back(fmt::format("perplexity {:.4f}", *perplexity));
  return lines;
}

std::string bad_lines_text(const JobResult& result, const std::string& errors_path) {
  const int64_t count = result.totals.bad_lines;
  if (count == 0) return "";
  return fmt::format("{} bad line{}{}{}", format_count(count), count == 1 ? "" : "s",
                     errors_path.empty() ? "" : ": ", errors_path);
}

std::string summary_json(Mode mode, const JobResult& result, const std::string& experts) {
  const Totals& totals = result.totals;
  const auto perplexity = totals.perplexity();
  return fmt::format(
      "{{\"mode\":\"{}\",\"is_complete\":{},\"documents\":{},\"documents_of_this_run\":{},"
      "\"bad_lines\":{},\"tokens\":{},\"prompt_tokens\":{},\"completion_tokens\":{},"
      "\"scored_tokens\":{},\"logprob_sum\":{},\"perplexity\":{},\"seconds\":{:.6f},"
      "\"tokens_per_second\":{:.1f}{}{}}}\n",
      mode == Mode::kScore ? "score" : "generate", result.signal == 0 && !result.strict_stop,
      totals.documents, result.written.documents, totals.bad_lines, num_tokens(totals),
      totals.prompt_tokens, totals.completion_tokens, totals.scored_tokens, totals.logprob_sum,
      perplexity && std::isfinite(*perplexity) ? fmt::format("{}", *perplexity) : "null",
      result.seconds, tokens_per_second(result), experts.empty() ? "" : ",\"experts\":", experts);
}

std::string resume_command(int argc, const char* const* argv) {
  std::string command;
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--overwrite" || argument == "--resume") continue;
    command += quote(argument);
    command += ' ';
  }
  return command + "--resume";
}

}  // namespace augur::score
