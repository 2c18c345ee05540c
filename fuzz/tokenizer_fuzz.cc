// Feeds arbitrary bytes to the tokenizer.json reader, and text to what it accepts.
//
// An input is a tokenizer.json, optionally followed by a NUL byte and a text. A file that is
// accepted must encode and decode that text, and the ids that text's bytes happen to be, and the
// stream must say what decode says. Useful seeds: the small tokenizers in
// tests/text/data/tokenizer_cases.json.
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "configs/config_error.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"

namespace {

void check_stream(const augur::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (const bool skip : {false, true}) {
    augur::Detokenizer detokenizer(tokenizer, skip);
    std::string streamed;
    for (const int32_t id : ids) streamed += detokenizer.push(id);
    streamed += detokenizer.finish();
    if (streamed != tokenizer.decode(ids, skip)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t separator = input.find('\0');
  const std::string_view json = input.substr(0, separator);
  const std::string_view text = separator == std::string_view::npos ? "It's 12 \xE4\xBD\xA0 \xFF"
                                                                    : input.substr(separator + 1);
  try {
    const augur::Tokenizer tokenizer = augur::Tokenizer::from_json(json, "fuzz");
    check_stream(tokenizer, tokenizer.encode(text));
    std::vector<int32_t> ids;
    for (const char byte : text) ids.push_back(byte);
    check_stream(tokenizer, ids);
  } catch (const augur::ConfigError&) {
    // Refused: fine.
  } catch (const std::runtime_error&) {
    // A regular expression ran out of backtracking memory on this text: a stated limit.
  }
  return 0;
}
