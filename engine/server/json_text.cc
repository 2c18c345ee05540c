#include "engine/server/json_text.h"

#include <array>
#include <charconv>

#include "engine/text/utf8.h"

namespace augur::server {
namespace {

// What a byte becomes inside a JSON string: 0: itself; 'u': \u00XX; '8': part of a longer
// character, which may be malformed; else a backslash and this letter.
constexpr std::array<char, 256> make_escapes() {
  std::array<char, 256> escapes{};
  for (int byte = 0; byte < 0x20; ++byte) escapes[byte] = 'u';
  for (int byte = 0x80; byte < 0x100; ++byte) escapes[byte] = '8';
  escapes['\b'] = 'b';
  escapes['\f'] = 'f';
  escapes['\n'] = 'n';
  escapes['\r'] = 'r';
  escapes['\t'] = 't';
  escapes['"'] = '"';
  escapes['\\'] = '\\';
  return escapes;
}
constexpr std::array<char, 256> kEscapes = make_escapes();

constexpr float kLowestLogprob = -9999;

template <typename T>
void append_number(T value, std::string& out) {
  char digits[32];
  const std::to_chars_result end = std::to_chars(digits, digits + sizeof(digits), value);
  out.append(digits, end.ptr);
}

}  // namespace

void append_json_characters(std::string_view text, std::string& out) {
  size_t copied = 0;  // bytes of `text` that are in `out`
  size_t position = 0;
  while (position < text.size()) {
    const auto byte = static_cast<unsigned char>(text[position]);
    const char escape = kEscapes[byte];
    if (escape == 0) {
      ++position;
      continue;
    }
    if (escape == '8') {
      const Utf8Step step = read_utf8(text.substr(position));
      if (step.kind == Utf8Step::Kind::kCodePoint) {
        position += step.num_bytes;
        continue;
      }
      out.append(text, copied, position - copied).append(kReplacementCharacter);
      position += step.num_bytes;
      copied = position;
      continue;
    }
    out.append(text, copied, position - copied);
    out.push_back('\\');
    out.push_back(escape);
    if (escape == 'u') {
      constexpr char kHex[] = "0123456789abcdef";
      out.append("00").push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
    copied = ++position;
  }
  out.append(text, copied, position - copied);
}

void append_json_string(std::string_view text, std::string& out) {
  out.push_back('"');
  append_json_characters(text, out);
  out.push_back('"');
}

void append_json_integer(int64_t value, std::string& out) {
  append_number(value, out);
}

void append_json_logprob(float value, std::string& out) {
  // Written so that NaN is caught too.
  append_number(value >= kLowestLogprob && value <= -kLowestLogprob ? value : kLowestLogprob, out);
}

void append_json_integers(std::span<const int32_t> values, std::string& out) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out.push_back(',');
    append_number(values[i], out);
  }
}

}  // namespace augur::server
