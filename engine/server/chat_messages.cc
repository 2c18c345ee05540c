#include "engine/server/chat_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <utility>

#include "engine/server/api_error.h"
#include "engine/server/prompt_fields.h"
#include "engine/text/chat_template.h"

namespace augur::server {
namespace {

namespace json = boost::json;

constexpr size_t kMaxRoleBytes = 64;
constexpr size_t kMaxFunctionNameBytes = 256;
constexpr size_t kMaxKwargs = 32;
constexpr size_t kMaxKwargNameBytes = 64;
constexpr size_t kMaxKwargBytes = 1024;
constexpr size_t kMaxEffortBytes = 64;

// Variables of a template that belong to the conversation or the model, and the parameters of
// transformers' apply_chat_template, which would be taken for them.
constexpr std::string_view kReservedVariables[] = {
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "conversation",
    "continue_final_message",
    "chat_template",
    "tokenize",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
    "raise_exception",
    "strftime_now",
    "namespace",
    "range",
    "additional_special_tokens",
};

constexpr std::string_view kUnsupported[] = {"chat_template", "continue_final_message", "documents",
                                             "media_io_kwargs"};

std::string member_path(const std::string& path, std::string_view key) {
  return fmt::format("{}.{}", path, key);
}

/// The value of a member, which must be there.
const json::value& required(const json::object& object,
                            std::string_view key,
                            const std::string& path,
                            std::string_view accepted) {
  const json::value* value = object.if_contains(key);
  const std::string where = member_path(path, key);
  if (value == nullptr)
    throw bad_request(where, fmt::format("{} is missing; accepted: {}", where, accepted));
  return *value;
}

json::string text_of_part(const json::value& value, const std::string& path) {
  const json::object& part = to_object(value, path);
  const json::value& type = required(part, "type", path, "\"text\"");
  const std::string type_path = member_path(path, "type");
  if (!type.is_string()) fail_field(type_path, type, "\"text\"");
  if (type.get_string() != "text") fail_unsupported(type_path, type, "\"text\"");
  const json::value& text = required(part, "text", path, "a string");
  to_string(text, member_path(path, "text"), 0, std::string::npos);
  return text.get_string();
}

json::string read_content(const json::value& value, const std::string& path) {
  if (value.is_null()) return {};
  if (value.is_string()) return value.get_string();
  const json::array* parts = value.if_array();
  if (parts == nullptr) fail_field(path, value, "a string, null, or a list of text parts");
  json::string content;
  for (size_t i = 0; i < parts->size(); ++i) {
    if (i > 0) content.push_back('\n');
    content.append(text_of_part((*parts)[i], item_path(path, i)));
  }
  return content;
}

void read_arguments(json::object& function, const std::string& path) {
  json::value* arguments = function.if_contains("arguments");
  if (arguments == nullptr || arguments->is_object()) return;
  const std::string where = member_path(path, "arguments");
  const json::string* text = arguments->if_string();
  if (text == nullptr) fail_field(where, *arguments, "an object, or one as JSON in a string");
  if (text->empty()) {
    *arguments = json::object();
    return;
  }
  json::error_code error;
  json::parse_options options;
  options.max_depth = kMaxJsonDepth / 2;  // it hangs below a message
  json::value parsed = json::parse(*text, error, {}, options);
  if (error || !parsed.is_object()) {
    fail_field(where, *arguments, "an object, or one as JSON in a string");
  }
  *arguments = std::move(parsed);
}

void read_tool_calls(json::object& message, const std::string& path) {
  json::value* value = message.if_contains("tool_calls");
  if (value == nullptr || value->is_null()) return;
  const std::string calls_path = member_path(path, "tool_calls");
  json::array* calls = value->if_array();
  if (calls == nullptr) fail_field(calls_path, *value, "a list of calls");
  for (size_t i = 0; i < calls->size(); ++i) {
    const std::string call_path = item_path(calls_path, i);
    const json::object& call = to_object((*calls)[i], call_path);
    const std::string function_path = member_path(call_path, "function");
    to_object(required(call, "function", call_path, "an object"), function_path);
    json::object& function = (*calls)[i].get_object()["function"].get_object();
    to_string(required(function, "name", function_path, "a string"),
              member_path(function_path, "name"), 1, kMaxFunctionNameBytes);
    read_arguments(function, function_path);
  }
}

json::object read_message(const json::value& value, const std::string& path) {
  json::object message = to_object(value, path);
  const std::string_view role = to_string(required(message, "role", path, "a string"),
                                          member_path(path, "role"), 1, kMaxRoleBytes);
  read_tool_calls(message, path);
  const bool may_lack_content = message.contains("tool_calls");
  const json::value nothing;
  const json::value& content =
      may_lack_content && !message.contains("content")
          ? nothing
          : required(message, "content", path, "a string, null, or a list of text parts");
  json::string text = read_content(content, member_path(path, "content"));
  if (role == "developer") message["role"] = "system";
  message["content"] = std::move(text);
  return message;
}

json::array read_messages(const JsonFields& fields, const ApiContext& context) {
  constexpr std::string_view kAccepted = "a list of one message or more";
  const json::value* value = fields.find("messages");
  if (value == nullptr) {
    throw bad_request("messages", fmt::format("messages is missing; accepted: {}", kAccepted));
  }
  const json::array* list = value->if_array();
  if (list == nullptr || list->empty()) fail_field("messages", *value, std::string(kAccepted));
  json::array messages;
  messages.reserve(list->size());
  for (size_t i = 0; i < list->size(); ++i) {
    messages.push_back(read_message((*list)[i], item_path("messages", i)));
  }
  return messages;
}

std::optional<json::array> read_tools(const JsonFields& fields) {
  const json::value* value = fields.find("tools");
  if (value == nullptr) return std::nullopt;
  const json::array* list = value->if_array();
  if (list == nullptr) fail_field("tools", *value, "a list of functions");
  if (list->empty()) return std::nullopt;
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string path = item_path("tools", i);
    const json::object& tool = to_object((*list)[i], path);
    const json::value& type = required(tool, "type", path, "\"function\"");
    if (type != json::value("function")) {
      fail_unsupported(member_path(path, "type"), type, "\"function\"");
    }
    const std::string function_path = member_path(path, "function");
    const json::object& function =
        to_object(required(tool, "function", path, "an object"), function_path);
    to_string(required(function, "name", function_path, "a string"),
              member_path(function_path, "name"), 1, kMaxFunctionNameBytes);
  }
  return *list;
}

/// Whether tools may be called at all.
bool read_tool_choice(const JsonFields& fields) {
  const json::value* choice = fields.find("tool_choice");
  if (choice == nullptr) return true;
  const json::string* name = choice->if_string();
  if (name == nullptr && !choice->is_object()) {
    fail_field("tool_choice", *choice, "\"none\", \"auto\"");
  }
  if (name == nullptr || (*name != "none" && *name != "auto")) {
    fail_unsupported("tool_choice", *choice, "\"none\", \"auto\"");
  }
  return *name == "auto";
}

bool is_identifier(std::string_view name) {
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  if (name.empty() || name.size() > kMaxKwargNameBytes || !is_letter(name[0])) return false;
  return std::all_of(name.begin(), name.end(),
                     [&](char c) { return is_letter(c) || (c >= '0' && c <= '9'); });
}

json::object read_variables(const JsonFields& fields) {
  json::object variables;
  if (const auto effort = fields.string("reasoning_effort", kMaxEffortBytes, 1)) {
    variables["reasoning_effort"] = *effort;
  }
  const json::value* value = fields.find("chat_template_kwargs");
  if (value == nullptr) return variables;
  const json::object& kwargs = to_object(*value, "chat_template_kwargs");
  if (kwargs.size() > kMaxKwargs) {
    throw bad_request("chat_template_kwargs",
                      fmt::format("chat_template_kwargs has {} entries; accepted: at most {}",
                                  kwargs.size(), kMaxKwargs));
  }
  for (const auto& member : kwargs) {
    const std::string_view name = member.key();
    const auto& reserved = kReservedVariables;
    const bool is_reserved =
        std::find(std::begin(reserved), std::end(reserved), name) != std::end(reserved);
    if (!is_identifier(name) || is_reserved) {
      throw bad_request("chat_template_kwargs",
                        fmt::format("chat_template_kwargs has the key {}; accepted: variables of "
                                    "the template that are not the conversation's or the model's",
                                    describe(json::string(name))));
    }
    const std::string path = fmt::format("chat_template_kwargs.{}", name);
    if (member.value().is_structured()) {
      fail_field(path, member.value(), "true, false, null, a number or a string");
    }
    if (member.value().is_string()) to_string(member.value(), path, 0, kMaxKwargBytes);
    variables[name] = member.value();
  }
  return variables;
}

}  // namespace

std::vector<int32_t> read_chat_prompt(const JsonFields& fields, const ApiContext& context) {
  if (context.chat_template == nullptr) {
    throw bad_request("messages", "this model has no chat template; accepted: /v1/completions");
  }
  fields.refuse(kUnsupported);
  ChatInput input;
  input.tools = read_tools(fields);
  if (!read_tool_choice(fields)) input.tools.reset();
  input.add_generation_prompt = fields.boolean_or("add_generation_prompt", true);
  input.variables = read_variables(fields);
  const bool add_special_tokens = fields.boolean_or("add_special_tokens", false);
  input.messages = read_messages(fields, context);
  std::string text;
  try {
    text = context.chat_template->render(input);
  } catch (const TemplateError& error) {
    throw bad_request("messages", "the chat template refuses the conversation: " + error.message());
  }
  std::vector<int32_t> ids = encode_text(text, add_special_tokens, context, "messages");
  if (ids.empty())
    throw bad_request("messages", "messages come to no token; accepted: at least one");
  return ids;
}

}  // namespace augur::server
