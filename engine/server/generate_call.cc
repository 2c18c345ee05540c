// Requests of /generate.
#include <fmt/format.h>

#include <utility>

#include "engine/server/api_call.h"
#include "engine/server/generate_answer.h"
#include "engine/server/generate_fields.h"
#include "engine/server/json_fields.h"

namespace augur::server {

ApiCall parse_generate_call(std::string_view body,
                            const ApiContext& context,
                            const CallIdentity& identity) {
  const boost::json::value parsed = parse_json_object(body, context.bounds.max_json_values);
  GenerateFields asked = read_generate_fields(JsonFields(parsed.get_object()), context);
  GenerateSettings settings{.tokenizer = context.tokenizer,
                            .fingerprint = context.fingerprint,
                            .is_streamed = asked.is_streamed,
                            .is_list = asked.is_list,
                            .has_text_in_logprobs = asked.has_text_in_logprobs,
                            .n = asked.items.front().request.sampling.n};
  ApiCall call;
  call.is_streamed = asked.is_streamed;
  for (GenerateItem& item : asked.items) {
    Request& request = item.request;
    request.id = fmt::format("{}-{}", identity.id, call.requests.size());
    const std::vector<int32_t>& ids = request.prompt_ids;
    GenerateRequest& told = settings.requests.emplace_back();
    told.id = item.rid.empty() ? request.id : item.rid;
    told.num_prompt_tokens = static_cast<int64_t>(ids.size());
    told.has_logprobs = item.has_logprobs;
    told.first_logprob = item.first_logprob;
    told.top_n = item.top_n;
    if (item.has_logprobs && item.first_logprob >= 0) {
      told.scored_ids.assign(ids.begin() + item.first_logprob, ids.end());
    }
    call.client_ids.push_back(told.id);
    call.requests.push_back(std::move(request));
  }
  call.answer = std::make_unique<GenerateAnswer>(std::move(settings));
  return call;
}

}  // namespace augur::server
