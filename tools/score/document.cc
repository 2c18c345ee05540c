#include "tools/score/document.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <limits>

namespace augur::score {
namespace {

namespace json = boost::json;

// Deep enough for the schemas of tools within messages.
constexpr size_t kMaxDepth = 64;

std::string_view kind_name(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "true or false";
    case json::kind::int64:
    case json::kind::uint64:
    case json::kind::double_:
      return "a number";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "a list";
    case json::kind::object:
      break;
  }
  return "an object";
}

[[noreturn]] void refuse_kind(std::string_view what,
                              const json::value& found,
                              std::string_view accepted) {
  throw BadLine(std::string(what) + " is " + std::string(kind_name(found)) +
                ", accepted: " + std::string(accepted));
}

std::string read_id(const json::object& object, int64_t line_number) {
  const json::value* id = object.if_contains("id");
  if (id == nullptr || id->is_null()) return std::to_string(line_number);
  if (!id->is_string() && !id->is_int64() && !id->is_uint64())
    refuse_kind("\"id\"", *id, "a string or a whole number");
  return json::serialize(*id);
}

std::string read_string(const json::object& object, std::string_view key) {
  const json::value& value = object.at(key);
  if (!value.is_string()) refuse_kind('"' + std::string(key) + '"', value, "a string");
  return std::string(value.get_string());
}

std::vector<int32_t> read_ids(const json::value& value) {
  if (!value.is_array()) refuse_kind("\"input_ids\"", value, "a list of token ids");
  const json::array& list = value.get_array();
  if (list.empty()) throw BadLine("\"input_ids\" is empty, accepted: at least one token id");
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const json::value& id : list) {
    const bool is_id = id.is_int64() && id.get_int64() >= 0 &&
                       id.get_int64() <= std::numeric_limits<int32_t>::max();
    if (!is_id)
      throw BadLine("\"input_ids\" holds " + json::serialize(id).substr(0, 80) + " at place " +
                    std::to_string(ids.size()) + ", accepted: token ids");
    ids.push_back(static_cast<int32_t>(id.get_int64()));
  }
  return ids;
}

MessagesInput read_messages(json::object& object) {
  json::value& value = object.at("messages");
  if (!value.is_array()) refuse_kind("\"messages\"", value, "a list of messages");
  MessagesInput input{.messages = std::move(value.get_array()), .tools = {}};
  if (input.messages.empty()) throw BadLine("\"messages\" is empty, accepted: at least one");
  for (size_t i = 0; i < input.messages.size(); ++i) {
    const std::string what = "message " + std::to_string(i);
    if (!input.messages[i].is_object()) refuse_kind(what, input.messages[i], "an object");
    const json::value* role = input.messages[i].get_object().if_contains("role");
    if (role == nullptr) throw BadLine(what + " has no \"role\"");
    if (!role->is_string()) refuse_kind("\"role\" of " + what, *role, "a string");
  }
  if (json::value* tools = object.if_contains("tools"); tools != nullptr && !tools->is_null()) {
    if (!tools->is_array()) refuse_kind("\"tools\"", *tools, "a list");
    input.tools = std::move(tools->get_array());
  }
  return input;
}

CompletionInput read_completion(const json::object& object) {
  if (!object.contains("completion"))
    throw BadLine("\"prompt\" has no \"completion\" beside it; when scoring, accepted: both");
  CompletionInput input{read_string(object, "prompt"), read_string(object, "completion")};
  if (input.completion.empty()) throw BadLine("\"completion\" is empty, nothing could be scored");
  return input;
}

TextInput read_text(const json::object& object, std::string_view key) {
  TextInput input{read_string(object, key)};
  if (input.text.empty()) throw BadLine('"' + std::string(key) + "\" is empty");
  return input;
}

void read_input(json::object& object, Mode mode, Document& document) {
  std::string found;
  int num_found = 0;
  for (const std::string_view key : {"text", "prompt", "messages", "input_ids"}) {
    if (!object.contains(key)) continue;
    found += (num_found++ > 0 ? "\" and \"" : "") + std::string(key);
  }
  const std::string accepted =
      mode == Mode::kScore
          ? "accepted: \"text\", \"prompt\" and \"completion\", \"messages\" or \"input_ids\""
          : "accepted: \"text\", \"prompt\", \"messages\" or \"input_ids\"";
  if (num_found == 0) throw BadLine("has no input; " + accepted);
  if (num_found > 1) throw BadLine("has both \"" + found + "\"; " + accepted);
  if (found == "messages")
    document.input = read_messages(object);
  else if (found == "input_ids")
    document.input = IdsInput{read_ids(object.at("input_ids"))};
  else if (found == "prompt" && mode == Mode::kScore)
    document.input = read_completion(object);
  else
    document.input = read_text(object, found);
}

}  // namespace

Document parse_document(std::string_view line, int64_t line_number, Mode mode) {
  json::error_code error;
  json::value value = json::parse({line.data(), line.size()}, error, json::storage_ptr(),
                                  json::parse_options{.max_depth = kMaxDepth});
  if (error) throw BadLine("is not valid JSON: " + error.message());
  if (!value.is_object()) refuse_kind("the line", value, "an object");
  Document document;
  document.id_json = read_id(value.get_object(), line_number);
  try {
    read_input(value.get_object(), mode, document);
  } catch (const BadLine& bad) {
    throw BadLine(bad.what(), document.id_json);
  }
  return document;
}

}  // namespace augur::score
