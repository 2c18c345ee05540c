// The text side of a loaded model, as this program and the engine see it.
#pragma once

#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "tools/score/encode.h"

namespace augur::score {

class ModelTextCodec final : public TextCodec {
 public:
  /// Both outlive the codec, and either may be null: then texts or chats are refused, line by line.
  ModelTextCodec(const Tokenizer* tokenizer, const ChatTemplate* chat_template)
      : tokenizer_(tokenizer), chat_template_(chat_template) {}

  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const override;
  std::string render_chat(const MessagesInput& chat, bool add_generation_prompt) const override;

 private:
  const Tokenizer* const tokenizer_;
  const ChatTemplate* const chat_template_;
};

}  // namespace augur::score
