// From a document to the token ids the model gets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tools/score/document.h"

namespace augur::score {

/// The text side of a model: its tokenizer and chat template, or a stand-in in tests.
/// Threading: used by one thread at a time, another one than the engine's.
class TextCodec {
 public:
  virtual ~TextCodec() = default;
  /// Throws BadLine when there is no tokenizer.
  virtual std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const = 0;
  /// Throws BadLine when there is no template, and std::runtime_error for what the template says
  /// of the messages.
  virtual std::string render_chat(const MessagesInput& chat, bool add_generation_prompt) const = 0;
};

struct EncodeSettings {
  Mode mode = Mode::kScore;
  int64_t max_tokens_per_document = 0;  // 0: whole documents
};

struct EncodedDocument {
  std::vector<int32_t> ids;  // at least one
  int64_t score_from = 1;    // the first token that is scored, at least 1
  bool has_prompt = false;   // prompt and completion: tokens before score_from are context

  int64_t num_scored() const { return static_cast<int64_t>(ids.size()) - score_from; }
};

/// Encodes a document. Texts get the special tokens that the tokenizer adds; chats only those
/// that the template writes. A prompt and its completion are encoded as one text, and the scored
/// tokens begin with the first one that differs from the prompt's own: a token that holds
/// characters of both counts.
/// Throws BadLine.
EncodedDocument encode_document(const Document& document,
                                const TextCodec& codec,
                                const EncodeSettings& settings);

}  // namespace augur::score
