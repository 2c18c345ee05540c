// A request of /generate, item by item: most fields may be one value for all prompts or a list
// with one for each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/server/api_call.h"
#include "engine/server/json_fields.h"

namespace augur::server {

/// What is asked for one prompt.
struct GenerateItem {
  Request request;
  std::string rid;  // empty: none was given
  bool has_logprobs = false;
  int64_t first_logprob = -1;  // the first prompt token in input_token_logprobs; -1: none of them
  int top_n = 0;               // alternatives
};

struct GenerateFields {
  std::vector<GenerateItem> items;  // at least one; n is the same in all of them
  bool is_list = false;             // answered with a list, if of one
  bool is_streamed = false;
  bool has_text_in_logprobs = false;
};

/// Throws ApiError. Requests get no id.
GenerateFields read_generate_fields(const JsonFields& fields, const ApiContext& context);

}  // namespace augur::server
