// Answers of /v1/completions.
#pragma once

#include <string>
#include <vector>

#include "engine/server/logprob_json.h"
#include "engine/server/openai_answer.h"

namespace augur::server {

class CompletionAnswer final : public OpenAiAnswer {
 public:
  /// `echoes`: by request, the text of the prompt that each choice begins with; empty where none
  /// is wanted. `shows_prompt_logprobs`: with the log-probabilities of its tokens, which a stream
  /// cannot have.
  CompletionAnswer(AnswerSettings settings,
                   std::vector<std::string> echoes,
                   bool shows_prompt_logprobs);

 protected:
  void append_beginning(Choice& choice, std::string& out) override;
  void append_piece(Choice& choice, const ChoicePiece& piece, std::string& out) override;
  void append_whole(Choice& choice,
                    const RequestResult& result,
                    const Completion& completion,
                    std::string& out) override;

 private:
  void append_logprobs(Choice& choice, std::span<const ScoredToken> scored, std::string& out);
  void add_prompt_logprobs(Choice& choice, const RequestResult& result);
  void append_ids(std::string_view name, std::span<const int32_t> ids, std::string& out) const;

  const std::vector<std::string> echoes_;
  const bool shows_prompt_logprobs_;
  CompletionLogprobs logprobs_;
};

}  // namespace augur::server
