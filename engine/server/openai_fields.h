// What requests of OpenAI's two forms share besides their prompt.
#pragma once

#include "engine/server/api_call.h"
#include "engine/server/json_fields.h"
#include "engine/server/openai_answer.h"

namespace augur::server {

/// What each request of a call has in common.
struct OpenAiFields {
  Request request;  // sampling, priority, cache_salt; no prompt yet
  AnswerSettings settings;
};

/// Reads model, stream, stream_options, the settings of sampling and the extensions. Throws
/// ApiError.
OpenAiFields read_openai_fields(const JsonFields& fields,
                                const ApiContext& context,
                                const CallIdentity& identity);

/// Reads priority and cache_salt, which the three forms share.
void read_scheduling(const JsonFields& fields, Request& request);

}  // namespace augur::server
