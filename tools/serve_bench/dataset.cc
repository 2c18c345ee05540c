// Reads the lines of a dataset; see workload.h.
#include <fmt/format.h>

#include <boost/json.hpp>
#include <sstream>

#include "configs/config_error.h"
#include "prefetch/file.h"
#include "tools/serve_bench/workload.h"

namespace augur::serve_bench {
namespace {

namespace json = boost::json;

constexpr int64_t kMaxFileBytes = int64_t{1} << 30;
constexpr int64_t kMaxTokens = int64_t{1} << 22;

json::array user_message(const json::string& text) {
  return {json::object{{"role", "user"}, {"content", text}}};
}

bool are_token_ids(const json::value& value) {
  if (!value.is_array() || value.as_array().empty()) return false;
  for (const json::value& id : value.as_array())
    if (!id.is_int64() || id.as_int64() < 0) return false;
  return true;
}

void read_prompt(const json::object& line,
                 Endpoint endpoint,
                 const std::string& where,
                 DatasetRow& row) {
  const bool is_chat = endpoint == Endpoint::kChat;
  const json::value* messages = line.if_contains("messages");
  const json::value* prompt = line.if_contains("prompt");
  if (prompt == nullptr) prompt = line.if_contains("text");
  if ((messages != nullptr) == (prompt != nullptr))
    throw ConfigError(where, "accepted: one of \"prompt\", \"text\" and \"messages\"");
  if (messages != nullptr) {
    if (!is_chat) throw ConfigError(where, "\"messages\" need --endpoint chat");
    if (!messages->is_array() || messages->as_array().empty())
      throw ConfigError(where, "\"messages\" is no list of messages");
    row.prompt_member = "\"messages\":" + json::serialize(*messages);
  } else if (prompt->is_string()) {
    row.prompt_member = is_chat
                            ? "\"messages\":" + json::serialize(user_message(prompt->as_string()))
                            : "\"prompt\":" + json::serialize(*prompt);
  } else if (are_token_ids(*prompt)) {
    if (is_chat) throw ConfigError(where, "token ids need --endpoint completions");
    row.prompt_member = "\"prompt\":" + json::serialize(*prompt);
    row.num_token_ids = static_cast<int64_t>(prompt->as_array().size());
  } else {
    throw ConfigError(where, "the prompt is neither a text nor a list of token ids");
  }
}

DatasetRow read_row(const std::string& text, Endpoint endpoint, const std::string& where) {
  json::error_code error;
  const json::value line = json::parse(text, error);
  if (error || !line.is_object())
    throw ConfigError(where, "not a JSON object" + (error ? ": " + error.message() : ""));
  DatasetRow row;
  read_prompt(line.as_object(), endpoint, where, row);
  const json::value* max_tokens = line.as_object().if_contains("max_tokens");
  if (max_tokens == nullptr || max_tokens->is_null()) return row;
  if (!max_tokens->is_int64() || max_tokens->as_int64() < 1 || max_tokens->as_int64() > kMaxTokens)
    throw ConfigError(where, fmt::format("\"max_tokens\" is {}, accepted: 1 to {}",
                                         json::serialize(*max_tokens), kMaxTokens));
  row.max_tokens = max_tokens->as_int64();
  return row;
}

}  // namespace

std::vector<DatasetRow> read_dataset(const std::string& file, Endpoint endpoint) {
  std::istringstream lines(read_text_file(file, kMaxFileBytes));
  std::vector<DatasetRow> rows;
  int64_t line_number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++line_number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    rows.push_back(read_row(line, endpoint, fmt::format("{}:{}", file, line_number)));
  }
  if (rows.empty()) throw ConfigError(file, "holds no requests");
  return rows;
}

}  // namespace augur::serve_bench
