#include "tools/score/encode.h"

#include <algorithm>

namespace augur::score {
namespace {

EncodedDocument encode_completion(const CompletionInput& input, const TextCodec& codec) {
  const std::vector<int32_t> prompt = codec.encode(input.prompt, /*add_special_tokens=*/true);
  EncodedDocument encoded{
      .ids = codec.encode(input.prompt + input.completion, /*add_special_tokens=*/true),
      .has_prompt = true};
  const auto differs =
      std::mismatch(encoded.ids.begin(), encoded.ids.end(), prompt.begin(), prompt.end());
  // The first token of all has nothing before it to be predicted from.
  encoded.score_from = std::max<int64_t>(1, differs.first - encoded.ids.begin());
  return encoded;
}

std::vector<int32_t> encode_chat(const MessagesInput& input,
                                 const TextCodec& codec,
                                 bool add_generation_prompt) {
  std::string text;
  try {
    text = codec.render_chat(input, add_generation_prompt);
  } catch (const BadLine&) {
    throw;
  } catch (const std::runtime_error& error) {
    throw BadLine(std::string("the chat template refuses the messages: ") + error.what());
  }
  return codec.encode(text, /*add_special_tokens=*/false);
}

}  // namespace

EncodedDocument encode_document(const Document& document,
                                const TextCodec& codec,
                                const EncodeSettings& settings) {
  EncodedDocument encoded;
  if (const auto* text = std::get_if<TextInput>(&document.input))
    encoded.ids = codec.encode(text->text, /*add_special_tokens=*/true);
  else if (const auto* completion = std::get_if<CompletionInput>(&document.input))
    encoded = encode_completion(*completion, codec);
  else if (const auto* chat = std::get_if<MessagesInput>(&document.input))
    encoded.ids = encode_chat(*chat, codec, settings.mode == Mode::kGenerate);
  else
    encoded.ids = std::get<IdsInput>(document.input).ids;

  if (encoded.ids.empty()) throw BadLine("encodes to no token at all");
  const int64_t limit = settings.max_tokens_per_document;
  if (limit > 0 && static_cast<int64_t>(encoded.ids.size()) > limit)
    encoded.ids.resize(static_cast<size_t>(limit));
  if (encoded.has_prompt && encoded.num_scored() < 1)
    throw BadLine("no token of the completion is left to score: the prompt is " +
                  std::to_string(encoded.score_from) + " tokens, the document was cut at " +
                  std::to_string(encoded.ids.size()));
  return encoded;
}

}  // namespace augur::score
