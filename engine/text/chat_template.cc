#include "engine/text/chat_template.h"

#include <boost/json/stream_parser.hpp>
#include <fstream>
#include <utility>

#include "configs/config_error.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_json.h"
#include "engine/text/jinja_parser.h"

namespace augur {
namespace {

namespace json = boost::json;

constexpr uintmax_t kMaxTemplateBytes = uintmax_t{4} << 20;
// Old ones list every added token.
constexpr uintmax_t kMaxConfigBytes = uintmax_t{256} << 20;

constexpr std::string_view kTokenNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                            "pad_token", "cls_token", "mask_token"};

// The bytes of a file; nullopt when there is none.
std::optional<std::string> read_file(const std::filesystem::path& path, uintmax_t max_bytes) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  const uintmax_t num_bytes = std::filesystem::file_size(path, error);
  if (error) throw ConfigError(path.string(), "cannot be read: " + error.message());
  if (num_bytes > max_bytes) {
    throw ConfigError(path.string(), "has " + std::to_string(num_bytes) + " bytes; at most " +
                                         std::to_string(max_bytes) + " are accepted");
  }
  std::ifstream file(path, std::ios::binary);
  std::string bytes(num_bytes, '\0');
  if (!file.read(bytes.data(), static_cast<std::streamsize>(num_bytes))) {
    throw ConfigError(path.string(), "cannot be read");
  }
  return bytes;
}

// The JSON object of a file; nullopt when there is no such file.
std::optional<json::object> read_object(const std::filesystem::path& path) {
  const std::optional<std::string> text = read_file(path, kMaxConfigBytes);
  if (!text) return std::nullopt;
  json::stream_parser parser;
  boost::system::error_code error;
  const size_t num_read = parser.write(*text, error);
  if (!error) parser.finish(error);
  if (error) {
    const auto line =
        1 + std::count(text->begin(), text->begin() + static_cast<ptrdiff_t>(num_read), '\n');
    throw ConfigError(path.string() + ":" + std::to_string(line),
                      "is not valid JSON: " + error.message());
  }
  json::value value = parser.release();
  if (!value.is_object()) throw ConfigError(path.string(), "must hold a JSON object");
  return std::move(value.get_object());
}

// A special token as a string or as an object with its settings; nullopt for null.
std::optional<std::string> token_text(const json::value& value, const std::string& where) {
  if (value.is_null()) return std::nullopt;
  const json::value* text = &value;
  if (value.is_object()) text = value.get_object().if_contains("content");
  if (text == nullptr || !text->is_string()) {
    throw ConfigError(where, "must be a string, an object with a string \"content\", or null");
  }
  return std::string(text->get_string());
}

// Adds the special tokens of a config file that are not known yet.
void collect_tokens(const json::object& config, const std::string& where, json::object& tokens) {
  for (std::string_view name : kTokenNames) {
    const json::value* value = config.if_contains(name);
    if (value == nullptr || tokens.contains(name)) continue;
    if (auto text = token_text(*value, where + ": " + std::string(name))) tokens[name] = *text;
  }
  const json::value* additional = config.if_contains("additional_special_tokens");
  if (additional == nullptr || !additional->is_array() || additional->get_array().empty() ||
      tokens.contains("additional_special_tokens")) {
    return;
  }
  json::array texts;
  for (const json::value& value : additional->get_array()) {
    if (auto text = token_text(value, where + ": additional_special_tokens")) {
      texts.emplace_back(*text);
    }
  }
  tokens["additional_special_tokens"] = std::move(texts);
}

struct Sources {
  std::optional<std::string> main;
  std::string main_where;
  std::optional<std::string> tool_use;
  std::string tool_use_where;
};

// "chat_template" of a tokenizer config: one template or a list of named ones.
Sources read_config_templates(const json::value& value, const std::string& where) {
  Sources sources{.main_where = where, .tool_use_where = where + " \"tool_use\""};
  if (value.is_null()) return sources;
  if (value.is_string()) {
    sources.main = std::string(value.get_string());
    return sources;
  }
  if (!value.is_array()) {
    throw ConfigError(where, "must be a string or a list of {\"name\", \"template\"} objects");
  }
  for (const json::value& entry : value.get_array()) {
    const json::object* object = entry.if_object();
    const json::value* name = object == nullptr ? nullptr : object->if_contains("name");
    const json::value* source = object == nullptr ? nullptr : object->if_contains("template");
    if (name == nullptr || source == nullptr || !name->is_string() || !source->is_string()) {
      throw ConfigError(where, "every entry must have a string \"name\" and \"template\"");
    }
    if (name->get_string() == "default") sources.main = std::string(source->get_string());
    if (name->get_string() == "tool_use") sources.tool_use = std::string(source->get_string());
  }
  if (!sources.main && !sources.tool_use) {
    throw ConfigError(where, "has no template named \"default\" or \"tool_use\"");
  }
  return sources;
}

Sources read_sources(const std::filesystem::path& folder, const json::object* config) {
  const std::filesystem::path file = folder / "chat_template.jinja";
  if (auto source = read_file(file, kMaxTemplateBytes)) {
    const std::filesystem::path tool_file = folder / "additional_chat_templates" / "tool_use.jinja";
    return {std::move(source), file.string(), read_file(tool_file, kMaxTemplateBytes),
            tool_file.string()};
  }
  const json::value* value = config == nullptr ? nullptr : config->if_contains("chat_template");
  if (value == nullptr) return {};
  return read_config_templates(*value,
                               (folder / "tokenizer_config.json").string() + ": chat_template");
}

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view source,
                           const std::string& where,
                           boost::json::object variables)
    : program_(jinja::parse(source, where)), variables_(std::move(variables)), where_(where) {}

std::optional<ChatTemplate> ChatTemplate::from_folder(const std::filesystem::path& folder) {
  const std::filesystem::path config_path = folder / "tokenizer_config.json";
  const std::optional<json::object> config = read_object(config_path);
  const Sources sources = read_sources(folder, config ? &*config : nullptr);
  if (!sources.main && !sources.tool_use) return std::nullopt;

  ChatTemplate chat_template;
  chat_template.where_ = sources.main_where;
  if (sources.main) chat_template.program_ = jinja::parse(*sources.main, sources.main_where);
  if (sources.tool_use) {
    chat_template.tool_program_ = jinja::parse(*sources.tool_use, sources.tool_use_where);
  }
  if (config) collect_tokens(*config, config_path.string(), chat_template.variables_);
  const std::filesystem::path map_path = folder / "special_tokens_map.json";
  if (const auto map = read_object(map_path)) {
    collect_tokens(*map, map_path.string(), chat_template.variables_);
  }
  return chat_template;
}

std::string ChatTemplate::render(const ChatInput& input, const TemplateLimits& limits) const {
  for (std::string_view name : {"messages", "tools", "add_generation_prompt"}) {
    if (input.variables.contains(name)) {
      throw TemplateError("the variable '" + std::string(name) +
                          "' belongs to the conversation and cannot be given besides it");
    }
  }
  const bool uses_tool_program = tool_program_ != nullptr && input.tools.has_value();
  const jinja::Program* program = uses_tool_program ? tool_program_.get() : program_.get();
  if (program == nullptr) {
    throw TemplateError(where_ + " has only a template for conversations with tools");
  }
  jinja::Runtime runtime(limits, input.now ? *input.now : local_time());
  jinja::Interpreter interpreter(*program, runtime);
  interpreter.set_variable("tools", jinja::Value::none());
  interpreter.set_variable("documents", jinja::Value::none());
  for (const auto& member : variables_) {
    interpreter.set_variable(member.key(), jinja::from_json(member.value()));
  }
  for (const auto& member : input.variables) {
    interpreter.set_variable(member.key(), jinja::from_json(member.value()));
  }
  interpreter.set_variable("messages", jinja::from_json(input.messages));
  if (input.tools) interpreter.set_variable("tools", jinja::from_json(*input.tools));
  interpreter.set_variable("add_generation_prompt",
                           jinja::Value::boolean(input.add_generation_prompt));
  return interpreter.run();
}

}  // namespace augur
