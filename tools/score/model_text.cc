#include "tools/score/model_text.h"

namespace augur::score {
std::vector<int32_t> ModelTextCodec::encode(std::string_view text, bool add_special_tokens) const {
  if (tokenizer_ == nullptr)
    throw BadLine("the model has no tokenizer.json, accepted: \"input_ids\"");
  return tokenizer_->encode(text, add_special_tokens);
}

std::string ModelTextCodec::render_chat(const MessagesInput& chat,
                                        bool add_generation_prompt) const {
  if (chat_template_ == nullptr) throw BadLine("the model has no chat template");
  return chat_template_->render({.messages = chat.messages,
                                 .tools = chat.tools,
                                 .add_generation_prompt = add_generation_prompt});
}

}  // namespace augur::score
