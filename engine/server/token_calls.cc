// Requests that the tokenizer alone answers.
#include <fmt/format.h>

#include "engine/server/api_call.h"
#include "engine/server/api_error.h"
#include "engine/server/chat_messages.h"
#include "engine/server/json_fields.h"
#include "engine/server/json_text.h"
#include "engine/server/prompt_fields.h"
#include "engine/server/sampling_fields.h"
#include "engine/text/tokenizer.h"

namespace augur::server {
namespace {

namespace json = boost::json;

std::vector<int32_t> read_tokens(const JsonFields& fields, const ApiContext& context) {
  const json::value* prompt = fields.find("prompt");
  if (prompt == nullptr && fields.find("messages") != nullptr) {
    return read_chat_prompt(fields, context);
  }
  if (prompt == nullptr) {
    throw bad_request("prompt", "prompt is missing; accepted: prompt, a string, or messages");
  }
  const std::string_view text = to_string(*prompt, "prompt", 0, std::string::npos);
  const bool add_special_tokens = fields.boolean_or("add_special_tokens", true);
  return encode_text(text, add_special_tokens, context, "prompt");
}

}  // namespace

std::string tokenize(std::string_view body, const ApiContext& context) {
  const json::value parsed = parse_json_object(body, context.bounds.max_json_values);
  const JsonFields fields(parsed.get_object());
  check_model(fields, context);
  const bool returns_strings = fields.boolean_or("return_token_strs", false);
  const std::vector<int32_t> ids = read_tokens(fields, context);
  if (context.is_strict) fields.refuse_unknown();

  std::string out = fmt::format(R"({{"count":{},"max_model_len":{},"tokens":[)", ids.size(),
                                context.limits.max_context);
  append_json_integers(ids, out);
  out += R"(],"token_strs":)";
  if (!returns_strings) {
    out += "null}";
    return out;
  }
  out.push_back('[');
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out.push_back(',');
    append_json_string(context.tokenizer->id_to_token(ids[i]), out);
  }
  out += "]}";
  return out;
}

std::string detokenize(std::string_view body, const ApiContext& context) {
  const json::value parsed = parse_json_object(body, context.bounds.max_json_values);
  const JsonFields fields(parsed.get_object());
  check_model(fields, context);
  const json::value* tokens = fields.find("tokens");
  if (context.is_strict) fields.refuse_unknown();
  if (tokens == nullptr) {
    throw bad_request("tokens", "tokens is missing; accepted: a list of token ids");
  }
  if (context.tokenizer == nullptr) {
    throw bad_request("tokens", "this model has no tokenizer; its tokens have no text");
  }
  const std::vector<int32_t> ids =
      read_token_ids(*tokens, "tokens", context.bounds.max_json_values, context.limits.vocab_size);
  std::string out = R"({"prompt":)";
  append_json_string(context.tokenizer->decode(ids, /*skip_special_tokens=*/false), out);
  out.push_back('}');
  return out;
}

}  // namespace augur::server
