// Chat templates from bytes: parsing and rendering end in text or in one of the two errors that
// they document, whatever the bytes are.
//
// Input: the template, then, after the first byte 0xFF (which no UTF-8 text has), a JSON object of
// variables; without one, a conversation with tools.
#include <boost/json.hpp>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "configs/config_error.h"
#include "engine/text/chat_template.h"

namespace {

namespace json = boost::json;

augur::ChatInput make_conversation() {
  augur::ChatInput input;
  input.messages = {
      {{"role", "system"}, {"content", "Be brief."}},
      {{"role", "user"}, {"content", json::array{{{"type", "text"}, {"text", "h\u00e9llo <b>"}}}}},
      {{"role", "assistant"},
       {"content", nullptr},
       {"tool_calls",
        json::array{{{"id", "1"},
                     {"function", {{"name", "f"}, {"arguments", {{"x", 1.5}, {"y", "z"}}}}}}}}},
      {{"role", "tool"}, {"content", "<think>\n7\n</think> 3"}},
  };
  input.tools = json::array{{{"name", "f"}, {"items", {{"type", "object"}}}}};
  input.add_generation_prompt = true;
  return input;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string_view source = bytes.substr(0, bytes.find('\xFF'));

  // Small limits keep one input fast, and are reached often.
  augur::TemplateLimits limits;
  limits.max_steps = 20'000;
  limits.max_output_bytes = 1 << 16;
  limits.max_work_bytes = 4 << 20;
  limits.max_range_length = 1'000;

  augur::ChatInput input;
  input.now.emplace();
  if (source.size() < bytes.size()) {
    boost::system::error_code error;
    const json::value variables = json::parse(bytes.substr(source.size() + 1), error);
    if (error || !variables.is_object()) return 0;
    input.variables = variables.get_object();
  } else {
    input = make_conversation();
    input.now.emplace();
  }
  try {
    const augur::ChatTemplate chat_template(source, "fuzz");
    chat_template.render(input, limits);
  } catch (const augur::ConfigError&) {
  } catch (const augur::TemplateError&) {
  }
  return 0;
}
