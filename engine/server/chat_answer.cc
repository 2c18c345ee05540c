#include "engine/server/chat_answer.h"

#include <utility>

#include "engine/server/json_text.h"
#include "engine/server/logprob_json.h"

namespace augur::server {

ChatAnswer::ChatAnswer(AnswerSettings settings)
    : OpenAiAnswer(std::move(settings), "chat.completion", "chat.completion.chunk") {}

void ChatAnswer::append_beginning(Choice& choice, std::string& out) {
  begin_chunk(choice, out);
  out += R"(,"delta":{"role":"assistant","content":""},"logprobs":null)";
  out += R"(,"finish_reason":null,"stop_reason":null)";
  std::string prompt_ids;
  append_extra(prompt_ids);
  end_chunk(choice, prompt_ids, out);
}

void ChatAnswer::append_piece(Choice& choice, const ChoicePiece& piece, std::string& out) {
  // A last chunk without text has an empty delta, as OpenAI's.
  if (piece.text.empty() && piece.is_last) {
    out += R"(,"delta":{})";
  } else {
    out += R"(,"delta":{"content":)";
    append_json_string(piece.text, out);
    out.push_back('}');
  }
  append_logprobs(piece.logprobs, out);
  append_token_ids(piece.token_ids, out);
}

void ChatAnswer::append_whole(Choice& choice,
                              const RequestResult& result,
                              const Completion& completion,
                              std::string& out) {
  out += R"(,"message":{"role":"assistant","content":)";
  append_json_string(completion.text, out);
  out += R"(,"refusal":null})";
  append_logprobs(completion.logprobs, out);
  append_token_ids(completion.output_ids, out);
}

void ChatAnswer::append_extra(std::string& out) const {
  if (!settings_.returns_token_ids) return;
  out += R"(,"prompt_token_ids":[)";
  append_json_integers(settings_.prompts.front(), out);
  out.push_back(']');
}

void ChatAnswer::append_logprobs(std::span<const ScoredToken> scored, std::string& out) {
  if (!settings_.has_logprobs) {
    out += R"(,"logprobs":null)";
    return;
  }
  out += R"(,"logprobs":{"content":[)";
  for (size_t i = 0; i < scored.size(); ++i) {
    if (i > 0) out.push_back(',');
    append_chat_logprob(scored[i], texts_, out);
  }
  out += R"(],"refusal":null})";
}

void ChatAnswer::append_token_ids(std::span<const int32_t> ids, std::string& out) const {
  if (!settings_.returns_token_ids) return;
  out += R"(,"token_ids":[)";
  append_json_integers(ids, out);
  out.push_back(']');
}

}  // namespace augur::server
