// From the body of an API request to requests of the engine, and back to the body of its answer.
//
// Three forms: OpenAI's completions and chat completions, and SGLang's /generate. Each parser
// checks every field it knows: its type, its range, and whether we do what it asks for; a field
// that asks for what we do not do is refused, never passed over. Fields nobody knows are ignored,
// or refused where ApiContext::is_strict.
// Threading: parsing is a pure function, run on any thread; an Answer is used by one thread at a
// time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/generation_config.h"
#include "engine/model/step_batch.h"
#include "engine/schedule/request.h"

namespace augur {
class ChatTemplate;
class Tokenizer;
}  // namespace augur

namespace augur::server {

/// Bounds on what one API request may ask for.
struct ApiLimits {
  int64_t max_n = 128;  // completions of a prompt
  int64_t max_prompts = 1024;
  int64_t max_sequences = 2048;  // prompts times n
  int64_t max_stop_strings = 16;
  int64_t max_stop_token_ids = 1024;
  int64_t max_logit_bias = 1024;                   // entries
  int64_t max_logprobs = 20;                       // alternatives beside a token
  int64_t max_json_values = int64_t{4} << 20;      // in a body, lists and objects included
  int64_t max_prompt_logprobs = int64_t{8} << 20;  // log-probabilities of prompts, all alternatives
};

/// What parsing needs to know of the model that is served.
struct ApiContext {
  std::vector<std::string> model_names;         // the first is what answers name; not empty
  std::string fingerprint;                      // of the program and its lossy modes
  bool accepts_any_model = false;               // else an unknown name is 404 model_not_found
  bool is_strict = false;                       // unknown fields are refused
  const Tokenizer* tokenizer = nullptr;         // null: prompts of token ids only
  const ChatTemplate* chat_template = nullptr;  // null: no chat
  GenerationConfig generation;                  // defaults of sampling
  ModelRunner::Limits limits;
  std::vector<int32_t> eos_token_ids;
  ApiLimits bounds;
};

/// Makes what the client reads of what the engine says. Requests are numbered as in
/// ApiCall::requests.
class Answer {
 public:
  virtual ~Answer() = default;

  /// Takes news of a request. Where the answer is a stream, appends its events to `out`, each
  /// "data: ...\n\n".
  virtual void on_update(int request_idx, const RequestUpdate& update, std::string& out) = 0;
  virtual void on_finished(int request_idx, RequestResult&& result, std::string& out) = 0;
  /// Every request has finished. A stream: appends what ends it (usage, "data: [DONE]\n\n").
  /// Else: appends the whole JSON body, or throws ApiError (500) when a request has failed.
  virtual void on_complete(std::string& out) = 0;
};

struct ApiCall {
  bool is_streamed = false;
  std::vector<Request> requests;  // at least one; callbacks empty; each passes validate_request
  // What the client calls each of them: the "rid" of /generate (of a list given one rid: RID_0,
  // RID_1, ...), else Request::id.
  std::vector<std::string> client_ids;
  std::unique_ptr<Answer> answer;  // the context's tokenizer outlives it
};

/// What a request is called: `id` ("cmpl-...", made by the caller) and its Unix time.
struct CallIdentity {
  std::string id;
  int64_t created_s = 0;
};

// All throw ApiError. Requests are called ID-0, ID-1, ...
ApiCall parse_completion_call(std::string_view body,
                              const ApiContext& context,
                              const CallIdentity& identity);
ApiCall parse_chat_call(std::string_view body,
                        const ApiContext& context,
                        const CallIdentity& identity);
ApiCall parse_generate_call(std::string_view body,
                            const ApiContext& context,
                            const CallIdentity& identity);

// Answers that need no engine: the JSON body. Throw ApiError.
std::string tokenize(std::string_view body, const ApiContext& context);
std::string detokenize(std::string_view body, const ApiContext& context);
std::string models_body(const ApiContext& context, int64_t created_s);
/// Of one model; 404 where it is not served.
std::string model_body(std::string_view name, const ApiContext& context, int64_t created_s);

}  // namespace augur::server
