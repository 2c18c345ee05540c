#include "engine/text/in_quotes.h"

#include <fmt/format.h>

namespace augur {

std::string in_quotes(std::string_view text) {
  constexpr size_t kMaxShownBytes = 100;
  size_t num_shown = text.size();
  if (num_shown > kMaxShownBytes) {
    num_shown = kMaxShownBytes;
    // Not in the middle of a UTF-8 character.
    while (num_shown > 0 && (static_cast<unsigned char>(text[num_shown]) & 0xc0u) == 0x80u) {
      --num_shown;
    }
  }
  std::string shown = "'";
  for (const char c : text.substr(0, num_shown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      shown += fmt::format("\\x{:02x}", byte);
    } else {
      shown += c;
    }
  }
  shown += num_shown < text.size() ? "...'" : "'";
  return shown;
}

}  // namespace augur
