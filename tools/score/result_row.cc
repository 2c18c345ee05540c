#include "tools/score/result_row.h"

#include <fmt/format.h>
#include <boost/json/serialize.hpp>

#include <cmath>
#include <concepts>

namespace augur::score {
namespace {

void append_number(fmt::memory_buffer& out, std::floating_point auto number) {
  if (std::isfinite(number))
    fmt::format_to(fmt::appender(out), "{}", number);
  else
    out.append(std::string_view("null"));
}

void append_string(fmt::memory_buffer& out, std::string_view text) {
  out.append(boost::json::serialize(boost::json::string_view(text.data(), text.size())));
}

/// "[a,b,c]", each entry written by `append`.
template <typename Range, typename Append>
void append_list(fmt::memory_buffer& out, const Range& entries, Append append) {
  char separator = '[';
  for (const auto& entry : entries) {
    out.push_back(separator);
    append(entry);
    separator = ',';
  }
  if (separator == '[') out.push_back('[');
  out.push_back(']');
}

void append_logprob_lists(fmt::memory_buffer& out,
                          std::span<const ScoredToken> tokens,
                          const RowSettings& settings) {
  if (settings.token_logprobs) {
    out.append(std::string_view(",\"token_logprobs\":"));
    append_list(out, tokens, [&](const ScoredToken& token) { append_number(out, token.logprob); });
  }
  if (settings.top_logprobs) {
    out.append(std::string_view(",\"top_logprobs\":"));
    append_list(out, tokens, [&](const ScoredToken& token) {
      append_list(out, token.top, [&](const TokenLogprob& likely) {
        fmt::format_to(fmt::appender(out), "[{},", likely.token_id);
        append_number(out, likely.logprob);
        out.push_back(']');
      });
    });
  }
}

std::string_view reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kFailed:
      return "failed";
    case FinishReason::kNone:
    case FinishReason::kAborted:
      break;
  }
  return "aborted";
}

/// The fields of one completion, without braces.
void append_completion(fmt::memory_buffer& out,
                       const Completion& completion,
                       const RowSettings& settings) {
  out.append(std::string_view("\"text\":"));
  append_string(out, completion.text);
  out.append(std::string_view(",\"output_ids\":"));
  append_list(out, completion.output_ids,
              [&](int32_t id) { fmt::format_to(fmt::appender(out), "{}", id); });
  fmt::format_to(fmt::appender(out), ",\"finish_reason\":\"{}\"",
                 reason_name(completion.finish_reason));
  if (!completion.matched_stop.empty()) {
    out.append(std::string_view(",\"matched_stop\":"));
    append_string(out, completion.matched_stop);
  }
  append_logprob_lists(out, completion.logprobs, settings);
}

}  // namespace

ResultRow score_row(const std::string& id_json,
                    const EncodedDocument& document,
                    std::span<const ScoredToken> scored,
                    const RowSettings& settings) {
  Totals totals{.documents = 1,
                .prompt_tokens = static_cast<int64_t>(document.ids.size()),
                .scored_tokens = static_cast<int64_t>(scored.size())};
  for (const ScoredToken& token : scored) totals.logprob_sum += static_cast<double>(token.logprob);
  if (!std::isfinite(totals.logprob_sum))
    throw BadLine("the model gave a log-probability that is not finite", id_json);

  fmt::memory_buffer out;
  fmt::format_to(fmt::appender(out), "{{\"id\":{},\"num_tokens\":{}", id_json, document.ids.size());
  if (document.has_prompt)
    fmt::format_to(fmt::appender(out), ",\"num_scored_tokens\":{}", scored.size());
  out.append(std::string_view(",\"logprob_sum\":"));
  append_number(out, totals.logprob_sum);
  out.append(std::string_view(",\"perplexity\":"));
  append_number(out, totals.perplexity().value_or(std::nan("")));
  append_logprob_lists(out, scored, settings);
  out.append(std::string_view("}\n"));
  return {fmt::to_string(out), totals};
}

ResultRow generate_row(const std::string& id_json,
                       const RequestResult& result,
                       const RowSettings& settings) {
  Totals totals{.documents = 1, .prompt_tokens = result.num_prompt_tokens};
  for (const Completion& completion : result.completions)
    totals.completion_tokens += static_cast<int64_t>(completion.output_ids.size());

  fmt::memory_buffer out;
  fmt::format_to(fmt::appender(out), "{{\"id\":{},", id_json);
  if (result.completions.size() == 1) {
    append_completion(out, result.completions.front(), settings);
  } else {
    out.append(std::string_view("\"choices\":"));
    int index = 0;
    append_list(out, result.completions, [&](const Completion& completion) {
      fmt::format_to(fmt::appender(out), "{{\"index\":{},", index++);
      append_completion(out, completion, settings);
      out.push_back('}');
    });
  }
  fmt::format_to(fmt::appender(out),
                 ",\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{},"
                 "\"total_tokens\":{}}}}}\n",
                 totals.prompt_tokens, totals.completion_tokens,
                 totals.prompt_tokens + totals.completion_tokens);
  return {fmt::to_string(out), totals};
}

std::string error_row(int64_t line_number, const std::string& id_json, std::string_view reason) {
  fmt::memory_buffer out;
  fmt::format_to(fmt::appender(out), "{{\"line\":{}", line_number);
  if (!id_json.empty()) fmt::format_to(fmt::appender(out), ",\"id\":{}", id_json);
  out.append(std::string_view(",\"error\":"));
  append_string(out, reason);
  out.append(std::string_view("}\n"));
  return fmt::to_string(out);
}

}  // namespace augur::score
