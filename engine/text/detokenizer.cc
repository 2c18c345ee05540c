#include "engine/text/detokenizer.h"

#include "engine/text/tokenizer_impl.h"

namespace augur {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(*tokenizer.impl_),
      skip_special_tokens_(skip_special_tokens),
      chain_(tokenizer_.decoder) {}

std::string Detokenizer::push(int32_t id) {
  const auto text = tokenizer_.decode_text(id, skip_special_tokens_);
  if (text) chain_.push(*text);
  return chain_.take_text();
}

std::string Detokenizer::finish() {
  chain_.finish();
  return chain_.take_text();
}

}  // namespace augur
