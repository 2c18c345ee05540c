#include "engine/text/jinja_unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>

namespace augur::jinja {
namespace {

// Letters whose upper case is longer than one code point (Unicode's SpecialCasing.txt, without the
// Greek iota subscripts). `title` is empty where it equals `upper`.
struct CaseExpansion {
  char32_t letter;
  std::u32string_view upper;
  std::u32string_view title;
};
constexpr CaseExpansion kExpansions[] = {
    {0x00DF, U"SS", U"Ss"},
    {0x0149, U"\u02BCN", {}},
    {0x01F0, U"J\u030C", {}},
    {0x0390, U"\u0399\u0308\u0301", {}},
    {0x03B0, U"\u03A5\u0308\u0301", {}},
    {0x0587, U"\u0535\u0552", U"\u0535\u0582"},
    {0x1E96, U"H\u0331", {}},
    {0x1E97, U"T\u0308", {}},
    {0x1E98, U"W\u030A", {}},
    {0x1E99, U"Y\u030A", {}},
    {0x1E9A, U"A\u02BE", {}},
    {0xFB00, U"FF", U"Ff"},
    {0xFB01, U"FI", U"Fi"},
    {0xFB02, U"FL", U"Fl"},
    {0xFB03, U"FFI", U"Ffi"},
    {0xFB04, U"FFL", U"Ffl"},
    {0xFB05, U"ST", U"St"},
    {0xFB06, U"ST", U"St"},
};
constexpr char32_t kCapitalSigma = 0x03A3;

utf8proc_category_t category(char32_t code_point) {
  if (code_point >= kInvalidByte) return UTF8PROC_CATEGORY_CN;
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

bool is_cased(char32_t code_point) {
  const utf8proc_category_t c = category(code_point);
  return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT;
}

const CaseExpansion* find_expansion(char32_t code_point) {
  if (code_point < 0xDF) return nullptr;
  const auto* found = std::find_if(std::begin(kExpansions), std::end(kExpansions),
                                   [&](const auto& e) { return e.letter == code_point; });
  return found == std::end(kExpansions) ? nullptr : found;
}

void append_all(std::string& out, std::u32string_view code_points) {
  for (char32_t code_point : code_points) append_code_point(out, code_point);
}

void append_upper(std::string& out, char32_t code_point) {
  if (const CaseExpansion* expansion = find_expansion(code_point)) {
    append_all(out, expansion->upper);
  } else if (code_point >= kInvalidByte) {
    append_code_point(out, code_point);
  } else {
    append_code_point(
        out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code_point))));
  }
}

void append_title(std::string& out, char32_t code_point) {
  if (const CaseExpansion* expansion = find_expansion(code_point)) {
    append_all(out, expansion->title.empty() ? expansion->upper : expansion->title);
  } else if (code_point >= kInvalidByte) {
    append_code_point(out, code_point);
  } else {
    append_code_point(
        out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code_point))));
  }
}

// `after_letter`: whether the code point before is a letter; `end`: where the next one begins.
// A capital sigma that closes a word has a small form of its own.
void append_lower(
    std::string& out, std::string_view text, size_t end, bool after_letter, char32_t code_point) {
  if (code_point == kCapitalSigma) {
    const bool before_letter = end < text.size() && is_cased(next_code_point(text, end));
    append_code_point(out, after_letter && !before_letter ? 0x03C2 : 0x03C3);
  } else if (code_point == 0x0130) {
    append_all(out, U"i\u0307");
  } else if (code_point >= kInvalidByte) {
    append_code_point(out, code_point);
  } else {
    append_code_point(
        out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point))));
  }
}

}  // namespace

char32_t next_code_point(std::string_view text, size_t& position) {
  const unsigned char first = static_cast<unsigned char>(text[position]);
  if (first < 0x80) {
    ++position;
    return first;
  }
  utf8proc_int32_t code_point = -1;
  const utf8proc_ssize_t num_bytes =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + position,
                       static_cast<utf8proc_ssize_t>(text.size() - position), &code_point);
  if (num_bytes <= 0 || code_point < 0) {
    ++position;
    return kInvalidByte + first;
  }
  position += static_cast<size_t>(num_bytes);
  return static_cast<char32_t>(code_point);
}

void append_code_point(std::string& out, char32_t code_point) {
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else if (code_point >= kInvalidByte) {
    out += static_cast<char>(code_point - kInvalidByte);
  } else {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t num_bytes =
        utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(num_bytes));
  }
}

size_t find_invalid_utf8(std::string_view text) {
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    if (next_code_point(text, position) >= kInvalidByte) return begin;
  }
  return std::string_view::npos;
}

size_t count_code_points(std::string_view text) {
  const bool is_ascii = std::all_of(text.begin(), text.end(),
                                    [](char c) { return static_cast<signed char>(c) >= 0; });
  if (is_ascii) return text.size();
  size_t count = 0;
  for (size_t position = 0; position < text.size(); ++count) next_code_point(text, position);
  return count;
}

size_t byte_position(std::string_view text, size_t index) {
  size_t position = 0;
  for (; index > 0 && position < text.size(); --index) next_code_point(text, position);
  return position;
}

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_letter(char32_t code_point) {
  const utf8proc_category_t c = category(code_point);
  return is_cased(code_point) || c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t code_point) {
  return category(code_point) == UTF8PROC_CATEGORY_ND;
}

bool is_digit(char32_t c) {
  if (is_decimal(c)) return true;
  return c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
         (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468);
}

bool is_numeric(char32_t code_point) {
  const utf8proc_category_t c = category(code_point);
  return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool is_alphanumeric(char32_t code_point) {
  return is_letter(code_point) || is_numeric(code_point);
}

bool is_upper(char32_t code_point) {
  return category(code_point) == UTF8PROC_CATEGORY_LU;
}
bool is_lower(char32_t code_point) {
  return category(code_point) == UTF8PROC_CATEGORY_LL || code_point == 0xAA || code_point == 0xBA;
}

bool is_printable(char32_t code_point) {
  if (code_point == ' ') return true;
  switch (category(code_point)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::string_view strip_left(std::string_view text) {
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    if (!is_space(next_code_point(text, position))) return text.substr(begin);
  }
  return text.substr(text.size());
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    size_t begin = text.size() - 1;  // back to the lead byte of the last code point
    while (begin > 0 && text.size() - begin < 4 && (text[begin] & 0xC0) == 0x80) --begin;
    size_t position = begin;
    const char32_t code_point = next_code_point(text, position);
    if (position != text.size() || !is_space(code_point)) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool after_letter = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t code_point = next_code_point(text, position);
    append_lower(out, text, position, after_letter, code_point);
    after_letter = is_cased(code_point);
  }
  return out;
}

std::string to_upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    append_upper(out, next_code_point(text, position));
  }
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool after_letter = false;
  for (size_t position = 0; position < text.size();) {
    const bool is_first = position == 0;
    const char32_t code_point = next_code_point(text, position);
    if (is_first) {
      append_title(out, code_point);
    } else {
      append_lower(out, text, position, after_letter, code_point);
    }
    after_letter = is_cased(code_point);
  }
  return out;
}

std::string title_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool after_letter = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t code_point = next_code_point(text, position);
    if (after_letter) {
      append_lower(out, text, position, after_letter, code_point);
    } else {
      append_title(out, code_point);
    }
    after_letter = is_cased(code_point);
  }
  return out;
}

std::string swap_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool after_letter = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t code_point = next_code_point(text, position);
    if (is_upper(code_point)) {
      append_lower(out, text, position, after_letter, code_point);
    } else {
      append_upper(out, code_point);
    }
    after_letter = is_cased(code_point);
  }
  return out;
}

std::string fold_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const char32_t code_point = next_code_point(text, position);
    if (code_point == 0x00DF || code_point == 0x1E9E) {
      out += "ss";
    } else {  // never a final sigma: folding gives all of them one form
      append_lower(out, text, position, /*after_letter=*/false,
                   code_point == 0x03C2 ? kCapitalSigma : code_point);
    }
  }
  return out;
}

}  // namespace augur::jinja
