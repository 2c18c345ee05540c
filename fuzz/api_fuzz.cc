// Bodies of API requests from bytes: each parser ends in requests that the engine would take, or in
// an ApiError, whatever the bytes are; and what the answer then says of invented results is JSON.
//
// Input: a byte that chooses the form and whether unknown fields are refused, then the body.
#include <boost/json/parse.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "engine/schedule/validation.h"
#include "engine/server/api_call.h"
#include "engine/server/api_error.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace {

using augur::server::ApiCall;
using augur::server::ApiContext;
using augur::server::ApiError;

constexpr char kFolder[] = AUGUR_SOURCE_DIR "/models/tiny-glm4-moe";

const ApiContext& base_context() {
  static const augur::Tokenizer tokenizer =
      augur::Tokenizer::from_file(std::string(kFolder) + "/tokenizer.json");
  static const augur::ChatTemplate chat_template = *augur::ChatTemplate::from_folder(kFolder);
  static const ApiContext context = [] {
    ApiContext made;
    made.model_names = {"demo"};
    made.tokenizer = &tokenizer;
    made.chat_template = &chat_template;
    made.limits = {.max_tokens = 64,
                   .max_seqs = 8,
                   .max_context = 64,
                   .num_kv_blocks = 4,
                   .block_size = 16,
                   .vocab_size = 8192};
    made.eos_token_ids = {8182};
    made.bounds.max_n = 4;
    made.bounds.max_sequences = 16;
    return made;
  }();
  return context;
}

void require(bool cond) {
  if (!cond) std::abort();
}

void require_json(std::string_view text) {
  boost::system::error_code error;
  boost::json::parse(text, error);
  require(!error);
}

augur::ScoredToken scored_token(int32_t id, int top_n) {
  augur::ScoredToken token{id, -0.5f, {}};
  for (int i = 0; i < top_n; ++i) token.top.push_back({8000 + i, -1.0f - static_cast<float>(i)});
  return token;
}

/// Tells the answer of tokens, some of them parts of characters, and of the end.
void answer_request(ApiCall& call, int request_idx, std::string& out) {
  const augur::Request& request = call.requests[request_idx];
  const augur::SamplingParams& sampling = request.sampling;
  augur::RequestResult result;
  result.num_prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
  for (size_t i = request.score_from; request.score_prompt && i < request.prompt_ids.size(); ++i) {
    result.prompt_logprobs.push_back(
        scored_token(request.prompt_ids[i], request.prompt_top_logprobs));
  }
  for (int i = 0; i < sampling.n && sampling.max_tokens > 0; ++i) {
    augur::Completion completion;
    for (const int32_t id : {130, 8182, 200}) {
      augur::RequestUpdate update;
      update.completion_idx = i;
      update.text = "\"\n\u00e9";
      update.token_ids = {id};
      if (sampling.logprobs >= 0) update.logprobs = {scored_token(id, sampling.logprobs)};
      completion.text += update.text;
      completion.output_ids.push_back(id);
      for (const auto& token : update.logprobs) completion.logprobs.push_back(token);
      call.answer->on_update(request_idx, update, out);
    }
    completion.finish_reason = augur::FinishReason::kAborted;
    result.completions.push_back(completion);
  }
  call.answer->on_finished(request_idx, std::move(result), out);
}

void check_call(ApiCall call, const ApiContext& context) {
  require(!call.requests.empty() && call.client_ids.size() == call.requests.size());
  std::string out;
  for (size_t i = 0; i < call.requests.size(); ++i) {
    require(augur::validate_request(call.requests[i], context.limits, context.eos_token_ids,
                                    /*has_text=*/true)
                .empty());
    answer_request(call, static_cast<int>(i), out);
  }
  call.answer->on_complete(out);
  if (!call.is_streamed) {
    require_json(out);
    return;
  }
  std::string_view rest = out;
  while (rest != "data: [DONE]\n\n") {
    require(rest.starts_with("data: "));
    const size_t end = rest.find("\n\n");
    require(end != std::string_view::npos);
    require_json(rest.substr(6, end - 6));
    rest.remove_prefix(end + 2);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  ApiContext context = base_context();
  context.is_strict = (data[0] & 8) != 0;
  const augur::server::CallIdentity identity{"fuzz", 0};
  try {
    switch (data[0] & 7) {
      case 0:
        check_call(parse_completion_call(body, context, identity), context);
        break;
      case 1:
        check_call(parse_chat_call(body, context, identity), context);
        break;
      case 2:
        check_call(parse_generate_call(body, context, identity), context);
        break;
      case 3:
        require_json(tokenize(body, context));
        break;
      default:
        require_json(detokenize(body, context));
    }
  } catch (const ApiError& error) {
    require(error.status == 400 || error.status == 404);
    require_json(error_body(error));
  }
  return 0;
}
