#include "engine/server/completion_answer.h"

#include <algorithm>
#include <utility>

#include "engine/server/json_text.h"

namespace augur::server {

CompletionAnswer::CompletionAnswer(AnswerSettings settings,
                                   std::vector<std::string> echoes,
                                   bool shows_prompt_logprobs)
    : OpenAiAnswer(std::move(settings), "text_completion", "text_completion"),
      echoes_(std::move(echoes)),
      shows_prompt_logprobs_(shows_prompt_logprobs),
      logprobs_(texts_) {}

void CompletionAnswer::append_ids(std::string_view name,
                                  std::span<const int32_t> ids,
                                  std::string& out) const {
  out += ",\"";
  out += name;
  out += "\":[";
  append_json_integers(ids, out);
  out.push_back(']');
}

void CompletionAnswer::append_beginning(Choice& choice, std::string& out) {
  const std::string& echo = echoes_[choice.request_idx];
  choice.text_offset = count_characters(echo);
  if (echo.empty() && !settings_.returns_token_ids) return;
  begin_chunk(choice, out);
  out += R"(,"text":)";
  append_json_string(echo, out);
  out += R"(,"logprobs":null)";
  if (settings_.returns_token_ids) {
    append_ids("prompt_token_ids", settings_.prompts[choice.request_idx], out);
    append_ids("token_ids", {}, out);
  }
  out += R"(,"finish_reason":null,"stop_reason":null)";
  end_chunk(choice, {}, out);
}

void CompletionAnswer::append_piece(Choice& choice, const ChoicePiece& piece, std::string& out) {
  out += R"(,"text":)";
  append_json_string(piece.text, out);
  logprobs_.clear();
  append_logprobs(choice, piece.logprobs, out);
  if (settings_.returns_token_ids) append_ids("token_ids", piece.token_ids, out);
}

// Appends what logprobs_ holds of the choice already, and `scored`.
void CompletionAnswer::append_logprobs(Choice& choice,
                                       std::span<const ScoredToken> scored,
                                       std::string& out) {
  out += R"(,"logprobs":)";
  if (!settings_.has_logprobs) {
    out += "null";
    return;
  }
  for (const ScoredToken& token : scored) {
    logprobs_.add(token, choice.text_offset);
    if (!is_left_out(token.token_id)) {
      choice.text_offset += texts_.of(token.token_id).num_characters;
    }
  }
  logprobs_.append_to(out);
}

// The tokens of the prompt, the first without a log-probability. One that is missing because the
// request was aborted is null too.
void CompletionAnswer::add_prompt_logprobs(Choice& choice, const RequestResult& result) {
  const std::string& echo = echoes_[choice.request_idx];
  const std::vector<int32_t>& ids = settings_.prompts[choice.request_idx];
  size_t echo_position = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool is_scored = i > 0 && i - 1 < result.prompt_logprobs.size();
    logprobs_.add(ids[i], is_scored ? std::optional(result.prompt_logprobs[i - 1]) : std::nullopt,
                  choice.text_offset);
    // Special tokens that the tokenizer put around the text are not in it.
    const TokenTexts::Entry& token = texts_.of(ids[i]);
    const bool is_in_echo =
        !token.is_special || std::string_view(echo).substr(echo_position).starts_with(token.bytes);
    if (!is_in_echo) continue;
    echo_position = std::min(echo_position + token.bytes.size(), echo.size());
    choice.text_offset += token.num_characters;
  }
}

void CompletionAnswer::append_whole(Choice& choice,
                                    const RequestResult& result,
                                    const Completion& completion,
                                    std::string& out) {
  const std::string& echo = echoes_[choice.request_idx];
  out += R"(,"text":")";
  append_json_characters(echo, out);
  append_json_characters(completion.text, out);
  out.push_back('"');
  logprobs_.clear();
  if (shows_prompt_logprobs_) add_prompt_logprobs(choice, result);
  choice.text_offset = count_characters(echo);
  append_logprobs(choice, completion.logprobs, out);
  if (settings_.returns_token_ids) {
    append_ids("prompt_token_ids", settings_.prompts[choice.request_idx], out);
    append_ids("token_ids", completion.output_ids, out);
  }
}

}  // namespace augur::server
