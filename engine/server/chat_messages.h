// The conversation of a chat request, checked and made ready for the template.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/server/api_call.h"
#include "engine/server/json_fields.h"

namespace augur::server {

/// Reads messages, tools, tool_choice, add_generation_prompt, chat_template_kwargs,
/// reasoning_effort and add_special_tokens, renders the template and encodes what it printed.
///
/// Content is a string or a list of text parts, which are joined with line breaks, since templates
/// expect a string; null is empty text. Arguments of tool calls, JSON in a string, become the
/// object that templates expect. The role "developer" is told to the template as "system". Tools
/// are described to the model unless tool_choice is "none"; its calls are not parsed, so that no
/// call can be required.
/// Throws ApiError; what the template refuses is 400 too, with its own words.
std::vector<int32_t> read_chat_prompt(const JsonFields& fields, const ApiContext& context);

}  // namespace augur::server
