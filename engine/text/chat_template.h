// Chat templates: from a conversation to the text of a prompt, as the model was trained on it.
//
// A template is a program in a subset of Jinja2, published with the model. It runs in a sandbox:
// it reaches only the values it is given, and its steps, memory, output and recursion are bounded.
// Results are those of transformers' apply_chat_template (Jinja2's immutable sandbox with
// trim_blocks and lstrip_blocks, break and continue, generation blocks, tojson without HTML
// escapes, raise_exception and strftime_now).
// Left out: inheritance, includes, recursive loops, and the filters that make HTML pages.
// Threading: immutable; any number of threads may render at the same time.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/text/template_error.h"
#include "engine/text/template_limits.h"

namespace augur {

namespace jinja {
struct Program;
}  // namespace jinja

/// What a conversation is rendered from.
struct ChatInput {
  /// Objects with "role", "content" and whatever else the template reads.
  boost::json::array messages;
  /// Descriptions of functions the model may call; the template sees None without them.
  std::optional<boost::json::array> tools;
  /// End with the header of the assistant's next message.
  bool add_generation_prompt = false;
  /// Further variables, such as enable_thinking or documents. They replace special tokens of the
  /// same name.
  boost::json::object variables;
  /// Local time for strftime_now(); that of the clock when absent.
  std::optional<std::tm> now;
};

class ChatTemplate {
 public:
  /// Parses `source`. `variables` are there in every rendering: bos_token, eos_token, ...
  /// Throws ConfigError with `where`, line and column for a syntax error, an unsupported construct,
  /// or an unknown filter or test.
  ChatTemplate(std::string_view source,
               const std::string& where,
               boost::json::object variables = {});

  /// Reads the template of a Hugging Face folder: chat_template.jinja, or else "chat_template" of
  /// tokenizer_config.json, a string or a list of named ones; "default" is taken, and "tool_use"
  /// for conversations with tools (also additional_chat_templates/tool_use.jinja). Special tokens
  /// come from tokenizer_config.json and, those absent there, from special_tokens_map.json.
  /// nullopt when the folder has no template. Throws ConfigError for files it cannot read.
  static std::optional<ChatTemplate> from_folder(const std::filesystem::path& folder);

  /// The text of the prompt. Throws TemplateError; see there.
  std::string render(const ChatInput& input, const TemplateLimits& limits = {}) const;

 private:
  ChatTemplate() = default;

  std::shared_ptr<const jinja::Program> program_;       // null: only for conversations with tools
  std::shared_ptr<const jinja::Program> tool_program_;  // null: tools are for program_ too
  boost::json::object variables_;
  std::string where_;
};

}  // namespace augur
