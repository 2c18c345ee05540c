// Decodes one stream of tokens as they come.
#pragma once

#include <cstdint>
#include <string>

#include "engine/text/decoder_chain.h"
#include "engine/text/tokenizer.h"

namespace augur {

/// The texts that push and finish return, joined, are what Tokenizer::decode makes of all the ids.
/// Each is well-formed UTF-8 by itself: a character whose bytes come in several tokens is held
/// back until it is whole. With byte fallback (Llama 2, Mistral) a run of byte tokens is held back
/// until it ends, since one bad byte changes what the whole run decodes to.
/// One per stream; used by one thread at a time.
class Detokenizer {
 public:
  /// `tokenizer` outlives this, and may be moved meanwhile.
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens = true);

  /// The text that became final with `id`, perhaps none.
  std::string push(int32_t id);
  /// Ends the stream and returns the rest. Nothing may be pushed afterwards.
  std::string finish();

 private:
  const Tokenizer::Impl& tokenizer_;
  bool skip_special_tokens_;
  DecoderChain chain_;
};

}  // namespace augur
