// UTF-8: decoding one code point, appending one, and repairing text that is not UTF-8.
//
// Invalid bytes become U+FFFD, one per maximal subpart (the Unicode Standard, section 3.9, table
// 3-8): the longest prefix of a well-formed sequence found at that place, or else one byte. This
// is also what Rust's from_utf8_lossy and the WHATWG decoder do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace augur {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD
inline constexpr char32_t kMaxCodePoint = 0x10FFFF;

/// What stands at the start of some bytes.
struct Utf8Step {
  enum class Kind : uint8_t {
    kCodePoint,   // `code_point` takes `num_bytes`
    kInvalid,     // `num_bytes` bytes form one maximal subpart
    kIncomplete,  // all the bytes are a proper prefix of a well-formed sequence
  };
  Kind kind;
  uint8_t num_bytes;
  char32_t code_point;
};

/// Reads the first code point of `bytes`. Requires: not empty.
Utf8Step read_utf8(std::string_view bytes);

/// Reads the code point at `position` of well-formed UTF-8 and moves past it. Unchecked: meant
/// for text that passed valid_utf8_or_repaired.
inline char32_t next_code_point(std::string_view text, size_t& position) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data()) + position;
  if (p[0] < 0x80) {
    position += 1;
    return p[0];
  }
  if (p[0] < 0xE0) {
    position += 2;
    return static_cast<char32_t>((p[0] & 0x1F) << 6 | (p[1] & 0x3F));
  }
  if (p[0] < 0xF0) {
    position += 3;
    return static_cast<char32_t>((p[0] & 0x0F) << 12 | (p[1] & 0x3F) << 6 | (p[2] & 0x3F));
  }
  position += 4;
  return static_cast<char32_t>((p[0] & 0x07) << 18 | (p[1] & 0x3F) << 12 | (p[2] & 0x3F) << 6 |
                               (p[3] & 0x3F));
}

/// Start of the code point that ends at `position`, in well-formed UTF-8. Requires position > 0.
inline size_t previous_boundary(std::string_view text, size_t position) {
  do {
    --position;
  } while ((static_cast<unsigned char>(text[position]) & 0xC0) == 0x80);
  return position;
}

/// Appends `code_point`, which is at most kMaxCodePoint and no surrogate.
void append_utf8(char32_t code_point, std::string& out);

/// `text` itself when it is well-formed UTF-8, else its repaired copy, kept in `storage`.
std::string_view valid_utf8_or_repaired(std::string_view text, std::string& storage);

/// Repairs a stream of bytes: what push returns is final, and holds no half character.
class Utf8Repairer {
 public:
  /// Appends to `out` what became final with `bytes`. At most 3 bytes are held back.
  void push(std::string_view bytes, std::string& out);
  /// Ends the stream: an incomplete sequence becomes one U+FFFD.
  void finish(std::string& out);

 private:
  std::string held_;
};

}  // namespace augur
