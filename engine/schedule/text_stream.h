// How the engine sees a detokenizer: token ids in, final text out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace augur {

/// The text of one completion. What push returns is final and never ends inside a character.
class TextStream {
 public:
  virtual ~TextStream() = default;
  virtual std::string push(int32_t token_id) = 0;
  /// What was held back, at the end of the tokens.
  virtual std::string finish() = 0;
};

using TextStreamFactory = std::function<std::unique_ptr<TextStream>(bool skip_special_tokens)>;

}  // namespace augur
