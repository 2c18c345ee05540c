// Answers of /v1/chat/completions.
#pragma once

#include "engine/server/openai_answer.h"

namespace augur::server {

class ChatAnswer final : public OpenAiAnswer {
 public:
  explicit ChatAnswer(AnswerSettings settings);

 protected:
  void append_beginning(Choice& choice, std::string& out) override;
  void append_piece(Choice& choice, const ChoicePiece& piece, std::string& out) override;
  void append_whole(Choice& choice,
                    const RequestResult& result,
                    const Completion& completion,
                    std::string& out) override;
  void append_extra(std::string& out) const override;

 private:
  void append_logprobs(std::span<const ScoredToken> scored, std::string& out);
  void append_token_ids(std::span<const int32_t> ids, std::string& out) const;
};

}  // namespace augur::server
