#include "tools/score/totals.h"

#include <boost/json/value.hpp>

#include <cmath>

namespace augur::score {
namespace {

namespace json = boost::json;

/// The whole number at `key`; nothing when there is none.
std::optional<int64_t> read_count(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains({key.data(), key.size()});
  if (value == nullptr || !value->is_int64()) return {};
  return value->get_int64();
}

std::optional<double> read_number(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains({key.data(), key.size()});
  if (value == nullptr || !value->is_number()) return {};
  return value->to_number<double>();
}

}  // namespace

Totals& Totals::operator+=(const Totals& other) {
  documents += other.documents;
  bad_lines += other.bad_lines;
  prompt_tokens += other.prompt_tokens;
  completion_tokens += other.completion_tokens;
  scored_tokens += other.scored_tokens;
  logprob_sum += other.logprob_sum;
  return *this;
}

std::optional<double> Totals::perplexity() const {
  if (scored_tokens == 0) return {};
  return std::exp(-logprob_sum / static_cast<double>(scored_tokens));
}

json::object totals_to_json(const Totals& totals) {
  return {{"documents", totals.documents},         {"bad_lines", totals.bad_lines},
          {"prompt_tokens", totals.prompt_tokens}, {"completion_tokens", totals.completion_tokens},
          {"scored_tokens", totals.scored_tokens}, {"logprob_sum", totals.logprob_sum}};
}

std::optional<Totals> totals_from_json(const json::object& object) {
  const auto documents = read_count(object, "documents");
  const auto bad_lines = read_count(object, "bad_lines");
  const auto prompt_tokens = read_count(object, "prompt_tokens");
  const auto completion_tokens = read_count(object, "completion_tokens");
  const auto scored_tokens = read_count(object, "scored_tokens");
  const auto logprob_sum = read_number(object, "logprob_sum");
  if (!documents || !bad_lines || !prompt_tokens || !completion_tokens || !scored_tokens ||
      !logprob_sum)
    return {};
  return Totals{*documents,         *bad_lines,     *prompt_tokens,
                *completion_tokens, *scored_tokens, *logprob_sum};
}

std::optional<Totals> totals_of_row(const json::object& row) {
  if (const json::value* usage = row.if_contains("usage"); usage != nullptr && usage->is_object()) {
    const auto prompt = read_count(usage->get_object(), "prompt_tokens");
    const auto completion = read_count(usage->get_object(), "completion_tokens");
    if (!prompt || !completion) return {};
    return Totals{.documents = 1, .prompt_tokens = *prompt, .completion_tokens = *completion};
  }
  const auto num_tokens = read_count(row, "num_tokens");
  const auto logprob_sum = read_number(row, "logprob_sum");
  if (!num_tokens || !logprob_sum) return {};
  return Totals{.documents = 1,
                .prompt_tokens = *num_tokens,
                .scored_tokens = read_count(row, "num_scored_tokens").value_or(*num_tokens - 1),
                .logprob_sum = *logprob_sum};
}

}  // namespace augur::score
