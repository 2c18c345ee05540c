#include "tools/score/model_text.h"

#include <memory>

#include "engine/text/detokenizer.h"

namespace augur::score {
namespace {

class DetokenizerStream final : public TextStream {
 public:
  DetokenizerStream(const Tokenizer& tokenizer, bool skip_special_tokens)
      : detokenizer_(tokenizer, skip_special_tokens) {}
  std::string push(int32_t token_id) override { return detokenizer_.push(token_id); }
  std::string finish() override { return detokenizer_.finish(); }

 private:
  Detokenizer detokenizer_;
};

}  // namespace

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

TextStreamFactory make_text_streams(const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) return {};
  return [tokenizer](bool skip_special_tokens) {
    return std::make_unique<DetokenizerStream>(*tokenizer, skip_special_tokens);
  };
}

}  // namespace augur::score
