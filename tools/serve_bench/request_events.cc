#include "tools/serve_bench/request_events.h"

#include <boost/json.hpp>

namespace augur::serve_bench {
namespace {

double ms(int64_t us) {
  return static_cast<double>(us) / 1000;
}

bool keeps(const std::optional<double>& bound, const std::optional<double>& value) {
  return !bound || !value || *value <= *bound;
}

boost::json::value or_null(const std::optional<double>& value) {
  return value ? boost::json::value(*value) : boost::json::value();
}

}  // namespace

const char* name_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOk:
      return "ok";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kRefused:
      return "refused";
    case Outcome::kAborted:
      return "aborted";
    case Outcome::kCutOff:
      return "cut off";
  }
  return "";
}

RequestFigures figures_of(const RequestEvents& events, const Goodput& goodput) {
  RequestFigures figures;
  figures.e2e_ms = ms(events.end_us - events.send_us);
  if (!events.content_us.empty()) figures.ttft_ms = ms(events.content_us.front() - events.send_us);
  figures.is_prompt_known = events.usage_prompt_tokens || events.known_prompt_tokens > 0;
  figures.prompt_tokens = events.usage_prompt_tokens.value_or(events.known_prompt_tokens);
  figures.is_counted_by_usage = events.usage_output_tokens.has_value();
  figures.output_tokens =
      events.usage_output_tokens.value_or(static_cast<int64_t>(events.content_us.size()));
  if (figures.ttft_ms && figures.output_tokens > 1) {
    figures.tpot_ms =
        (figures.e2e_ms - *figures.ttft_ms) / static_cast<double>(figures.output_tokens - 1);
  }
  figures.is_good = events.outcome == Outcome::kOk && keeps(goodput.ttft_ms, figures.ttft_ms) &&
                    keeps(goodput.tpot_ms, figures.tpot_ms) &&
                    keeps(goodput.e2e_ms, figures.e2e_ms);
  return figures;
}

std::string request_row(const RequestEvents& events,
                        const RequestFigures& figures,
                        int64_t start_us) {
  boost::json::object row{{"request", events.request_idx},
                          {"outcome", name_of(events.outcome)},
                          {"status", events.status},
                          {"sent_ms", ms(events.send_us - start_us)},
                          {"e2e_ms", figures.e2e_ms},
                          {"ttft_ms", or_null(figures.ttft_ms)},
                          {"tpot_ms", or_null(figures.tpot_ms)},
                          {"prompt_tokens", figures.prompt_tokens},
                          {"output_tokens", figures.output_tokens},
                          {"counted_by", figures.is_counted_by_usage ? "usage" : "chunks"}};
  boost::json::array gaps;
  for (size_t i = 1; i < events.content_us.size(); ++i)
    gaps.push_back(ms(events.content_us[i] - events.content_us[i - 1]));
  row["itl_ms"] = std::move(gaps);
  if (!events.failure.empty()) row["failure"] = events.failure;
  if (!events.detail.empty()) row["detail"] = events.detail;
  return boost::json::serialize(row);
}

}  // namespace augur::serve_bench
