#include "engine/text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "configs/config_error.h"
#include "engine/text/jinja_unicode.h"

namespace augur::jinja {
namespace {

// Longest first, so that "**" is not read as two "*".
constexpr std::array<std::string_view, 25> kOperators = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",",
};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& where) : source_(source), where_(where) {}

  std::vector<Token> run() {
    const size_t invalid = find_invalid_utf8(source_);
    if (invalid != std::string_view::npos) fail(invalid, "the template is not valid UTF-8 here");
    while (position_ < source_.size()) read_data();
    add(Token::Type::kEnd, position_, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(size_t position, const std::string& what) const {
    throw ConfigError(describe_position(source_, position, where_), what);
  }

  // Positions only ever grow, so the line is counted on from the last one.
  int line_at(size_t position) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(line_position_),
                                         source_.begin() + static_cast<ptrdiff_t>(position), '\n'));
    line_position_ = position;
    return line_;
  }

  void add(Token::Type type, size_t position, std::string text, Value number = {}) {
    tokens_.push_back({type, line_at(position), position, std::move(text), std::move(number)});
  }

  bool starts_with(std::string_view text) const {
    return source_.substr(position_, text.size()) == text;
  }

  void skip_space() { position_ = source_.size() - strip_left(source_.substr(position_)).size(); }

  // Text up to the next tag, then the tag.
  void read_data() {
    const size_t begin = position_;
    size_t tag = begin;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= source_.size()) {
        add(Token::Type::kData, begin, std::string(source_.substr(begin)));
        position_ = source_.size();
        return;
      }
      const char kind = source_[tag + 1];
      if (kind == '{' || kind == '%' || kind == '#') break;
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    add_data(begin, source_.substr(begin, tag - begin), sign, /*is_variable=*/kind == '{');
    position_ = tag + 2 + (sign == '-' || sign == '+' ? 1 : 0);
    if (kind == '#') {
      read_comment(tag);
    } else if (kind == '{') {
      add(Token::Type::kVariableBegin, tag, "{{");
      read_tag(tag, Token::Type::kVariableEnd);
    } else if (!read_raw(tag)) {
      add(Token::Type::kBlockBegin, tag, "{%");
      read_tag(tag, Token::Type::kBlockEnd);
    }
    at_line_start_ = position_ > 0 && source_[position_ - 1] == '\n';
  }

  // `sign` is the whitespace control of the tag that follows.
  void add_data(size_t begin, std::string_view data, char sign, bool is_variable) {
    if (sign == '-') {
      data = strip_right(data);
    } else if (sign != '+' && !is_variable) {
      const size_t last_newline = data.rfind('\n');
      const size_t line_begin = last_newline == std::string_view::npos ? 0 : last_newline + 1;
      if ((line_begin > 0 || at_line_start_) && strip_left(data.substr(line_begin)).empty()) {
        data = data.substr(0, line_begin);
      }
    }
    if (!data.empty()) add(Token::Type::kData, begin, std::string(data));
  }

  // Consumes "-END" and the space after it, "+END", or "END" and one newline (trim_blocks).
  bool skip_end(std::string_view end, bool is_variable) {
    if (starts_with("-") && source_.substr(position_ + 1, end.size()) == end) {
      position_ += 1 + end.size();
      skip_space();
      return true;
    }
    if (!is_variable && starts_with("+") && source_.substr(position_ + 1, end.size()) == end) {
      position_ += 1 + end.size();
      return true;
    }
    if (!starts_with(end)) return false;
    position_ += end.size();
    if (!is_variable && starts_with("\n")) ++position_;
    return true;
  }

  void read_comment(size_t tag) {
    const size_t end = source_.find("#}", position_);
    if (end == std::string_view::npos) fail(tag, "the comment that begins here has no closing #}");
    const bool is_signed = end > position_ && (source_[end - 1] == '-' || source_[end - 1] == '+');
    position_ = is_signed ? end - 1 : end;
    skip_end("#}", /*is_variable=*/false);
  }

  // After "{%": a raw block with its text, or false with the position untouched.
  bool read_raw(size_t tag) {
    const size_t saved = position_;
    skip_space();
    if (!starts_with("raw")) return position_ = saved, false;
    position_ += 3;
    skip_space();
    if (starts_with("-%}")) {
      position_ += 3;
      skip_space();
    } else if (starts_with("%}")) {
      position_ += 2;
    } else {
      return position_ = saved, false;
    }
    at_line_start_ = position_ > 0 && source_[position_ - 1] == '\n';
    const size_t begin = position_;
    for (size_t end = source_.find("{%", begin); end != std::string_view::npos;
         end = source_.find("{%", end + 2)) {
      position_ = end + 2;
      const char sign = position_ < source_.size() ? source_[position_] : '\0';
      if (sign == '-' || sign == '+') ++position_;
      skip_space();
      if (!starts_with("endraw")) continue;
      position_ += 6;
      skip_space();
      if (!skip_end("%}", /*is_variable=*/false)) continue;
      add_data(begin, source_.substr(begin, end - begin), sign, /*is_variable=*/false);
      return true;
    }
    fail(tag, "the raw block that begins here has no {% endraw %}");
  }

  // The inside of {{ }} or {% %} and its end.
  void read_tag(size_t tag, Token::Type end_type) {
    const bool is_variable = end_type == Token::Type::kVariableEnd;
    std::vector<std::pair<char, size_t>> open;  // brackets not closed yet, and where they are
    for (;;) {
      skip_space();
      if (position_ >= source_.size()) {
        if (!open.empty()) {
          fail(open.back().second, std::string("'") + open.back().first + "' is never closed");
        }
        fail(tag,
             std::string("the tag that begins here has no closing ") + (is_variable ? "}}" : "%}"));
      }
      const size_t begin = position_;
      if (open.empty() && skip_end(is_variable ? "}}" : "%}", is_variable)) {
        add(end_type, begin, is_variable ? "}}" : "%}");
        return;
      }
      const char c = source_[position_];
      if (is_digit(c)) {
        read_number();
      } else if (c == '\'' || c == '"') {
        read_string(c);
      } else if (!read_name() && !read_operator(open)) {
        size_t end = position_;
        next_code_point(source_, end);
        fail(position_,
             "unexpected character '" + std::string(source_.substr(begin, end - begin)) + "'");
      }
    }
  }

  bool read_name() {
    const size_t begin = position_;
    size_t position = begin;
    while (position < source_.size()) {
      size_t next = position;
      const char32_t c = next_code_point(source_, next);
      if (c != '_' && !(position == begin ? is_letter(c) : is_alphanumeric(c))) break;
      position = next;
    }
    if (position == begin) return false;
    position_ = position;
    add(Token::Type::kName, begin, std::string(source_.substr(begin, position - begin)));
    return true;
  }

  bool read_operator(std::vector<std::pair<char, size_t>>& open) {
    const auto* found = std::find_if(kOperators.begin(), kOperators.end(),
                                     [&](std::string_view op) { return starts_with(op); });
    if (found == kOperators.end()) return false;
    const char c = found->front();
    if (found->size() == 1 && (c == '(' || c == '[' || c == '{')) open.push_back({c, position_});
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) fail(position_, std::string("unexpected '") + c + "'");
      const char opened = open.back().first;
      const char expected = opened == '(' ? ')' : opened == '[' ? ']' : '}';
      if (c != expected) {
        fail(position_, std::string("unexpected '") + c + "', expected '" + expected + "'");
      }
      open.pop_back();
    }
    add(Token::Type::kOperator, position_, std::string(*found));
    position_ += found->size();
    return true;
  }

  // Digits with single underscores between them, appended to `digits`.
  size_t scan_digits(size_t position, std::string& digits) const {
    while (position < source_.size()) {
      if (is_digit(source_[position])) {
        digits += source_[position++];
      } else if (source_[position] == '_' && position + 1 < source_.size() && !digits.empty() &&
                 is_digit(digits.back()) && is_digit(source_[position + 1])) {
        ++position;
      } else {
        break;
      }
    }
    return position;
  }

  void read_number() {
    const size_t begin = position_;
    const char prefix = begin + 1 < source_.size() ? source_[begin + 1] : '\0';
    if (source_[begin] == '0' &&
        std::string_view("bBoOxX").find(prefix) != std::string_view::npos) {
      return read_based_integer(prefix == 'b' || prefix == 'B'   ? 2
                                : prefix == 'o' || prefix == 'O' ? 8
                                                                 : 16);
    }
    std::string digits;
    size_t end = scan_digits(begin, digits);
    bool is_float = false;
    // "x.0.1" is two item accesses, not an access with 0.1.
    const bool after_dot = begin > 0 && source_[begin - 1] == '.';
    if (!after_dot && end + 1 < source_.size() && source_[end] == '.' &&
        is_digit(source_[end + 1])) {
      is_float = true;
      digits += '.';
      end = scan_digits(end + 1, digits);
    }
    if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t exponent = end + 1;
      std::string exponent_digits = "e";
      if (exponent < source_.size() && (source_[exponent] == '-' || source_[exponent] == '+')) {
        if (source_[exponent] == '-') exponent_digits += '-';
        ++exponent;
      }
      if (exponent < source_.size() && is_digit(source_[exponent])) {
        is_float = true;
        end = scan_digits(exponent, exponent_digits);
        digits += exponent_digits;
      }
    }
    position_ = end;
    if (is_float) {
      double value = 0;
      const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (result.ec == std::errc::result_out_of_range) fail(begin, "the number is out of range");
      return add(Token::Type::kFloat, begin, "", Value::real(value));
    }
    if (digits.size() > 1 && digits[0] == '0' &&
        digits.find_first_not_of('0') != std::string::npos) {
      fail(begin, "an integer may not begin with 0");
    }
    Integer value = 0;
    for (char digit : digits) {
      if (__builtin_mul_overflow(value, Integer{10}, &value) ||
          __builtin_add_overflow(value, Integer{digit - '0'}, &value)) {
        fail(begin, "the integer does not fit in 128 bits");
      }
    }
    add(Token::Type::kInteger, begin, "", Value::integer(value));
  }

  void read_based_integer(int base) {
    const size_t begin = position_;
    position_ += 2;
    Integer value = 0;
    size_t num_digits = 0;
    for (; position_ < source_.size(); ++position_) {
      const char c = source_[position_];
      if (c == '_') continue;
      const int digit = is_digit(c)            ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : 99;
      if (digit >= base) break;
      if (__builtin_mul_overflow(value, Integer{base}, &value) ||
          __builtin_add_overflow(value, Integer{digit}, &value)) {
        fail(begin, "the integer does not fit in 128 bits");
      }
      ++num_digits;
    }
    if (num_digits == 0) fail(begin, "a number with a base prefix needs digits");
    add(Token::Type::kInteger, begin, "", Value::integer(value));
  }

  void read_string(char quote) {
    const size_t begin = position_;
    std::string text;
    for (++position_; position_ < source_.size() && source_[position_] != quote;) {
      if (source_[position_] != '\\') {
        text += source_[position_++];
      } else {
        read_escape(text);
      }
    }
    if (position_ >= source_.size()) fail(begin, "the string that begins here is never closed");
    ++position_;
    add(Token::Type::kString, begin, std::move(text));
  }

  void read_escape(std::string& text) {
    const size_t begin = position_++;
    if (position_ >= source_.size()) return;  // the caller reports the open string
    const char c = source_[position_++];
    switch (c) {
      case 'n':
        text += '\n';
        return;
      case 't':
        text += '\t';
        return;
      case 'r':
        text += '\r';
        return;
      case 'b':
        text += '\b';
        return;
      case 'f':
        text += '\f';
        return;
      case 'v':
        text += '\v';
        return;
      case 'a':
        text += '\a';
        return;
      case '\\':
      case '\'':
      case '"':
        text += c;
        return;
      case '\n':
        return;  // a line continued
      case 'x':
        return append_code_point(text, read_hex(begin, 2));
      case 'u':
        return append_code_point(text, read_hex(begin, 4));
      case 'U':
        return append_code_point(text, read_hex(begin, 8));
      case 'N':
        fail(begin, "\\N{...} escapes are not supported; write \\u with the code point");
      default:
        break;
    }
    if (c >= '0' && c <= '7') {
      char32_t value = static_cast<char32_t>(c - '0');
      for (int i = 0; i < 2 && position_ < source_.size(); ++i) {
        if (source_[position_] < '0' || source_[position_] > '7') break;
        value = value * 8 + static_cast<char32_t>(source_[position_++] - '0');
      }
      return append_code_point(text, value);
    }
    text += '\\';  // as Python: an unknown escape stays as it is
    text += c;
  }

  char32_t read_hex(size_t begin, size_t num_digits) {
    uint32_t value = 0;
    const std::string_view digits = source_.substr(position_, num_digits);
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() != num_digits || result.ptr != digits.data() + digits.size()) {
      fail(begin, "the escape needs " + std::to_string(num_digits) + " hexadecimal digits");
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
      fail(begin, "the escape is no Unicode code point");
    }
    position_ += num_digits;
    return value;
  }

  const std::string_view source_;
  const std::string& where_;
  size_t position_ = 0;
  bool at_line_start_ = true;  // whether the text that follows begins a line
  int line_ = 1;
  size_t line_position_ = 0;
  std::vector<Token> tokens_;
};

}  // namespace

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

std::vector<Token> tokenize(std::string_view source, const std::string& where) {
  return Lexer(source, where).run();
}

std::string describe_position(std::string_view source, size_t position, const std::string& where) {
  const std::string_view before = source.substr(0, position);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t last_newline = before.rfind('\n');
  const size_t line_begin = last_newline == std::string_view::npos ? 0 : last_newline + 1;
  return where + ":" + std::to_string(line) + ":" +
         std::to_string(1 + count_code_points(before.substr(line_begin)));
}

std::string describe_token(const Token& token) {
  switch (token.type) {
    case Token::Type::kData:
      return "text";
    case Token::Type::kString:
      return "a string";
    case Token::Type::kInteger:
    case Token::Type::kFloat:
      return "a number";
    case Token::Type::kEnd:
      return "the end of the template";
    default:
      return "'" + token.text + "'";
  }
}

}  // namespace augur::jinja
