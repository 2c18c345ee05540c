#include "engine/text/jinja_format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_print.h"
#include "engine/text/jinja_strings.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

// Far more than any text needs, and small enough that no buffer grows large.
constexpr int kMaxPrecision = 1000;
constexpr int64_t kMaxWidth = 1'000'000'000;  // the budget stops well before

// What a conversion asks for, in either syntax.
struct Spec {
  std::string fill = " ";
  char align = '\0';  // < > ^ = or none
  char sign = '-';    // '+' or ' ' show something for positive numbers too
  bool is_alternate = false;
  bool has_comma = false;
  int64_t width = 0;
  int precision = -1;
  char type = '\0';
};

[[noreturn]] void fail_pattern(const std::string& what) {
  throw TemplateError("format string: " + what);
}

int64_t read_number(std::string_view pattern, size_t& position) {
  int64_t value = 0;
  for (; position < pattern.size() && pattern[position] >= '0' && pattern[position] <= '9';
       ++position) {
    value = std::min(value * 10 + (pattern[position] - '0'), kMaxWidth);
  }
  return value;
}

int checked_precision(int64_t precision) {
  if (precision > kMaxPrecision) {
    fail_pattern("the precision is above " + std::to_string(kMaxPrecision));
  }
  return static_cast<int>(precision);
}

std::string digits_in_base(Integer value, int base, bool is_upper) {
  unsigned __int128 rest = static_cast<unsigned __int128>(value);
  if (value < 0) rest = -rest;
  std::string digits;
  do {
    const int digit = static_cast<int>(rest % static_cast<unsigned>(base));
    digits += static_cast<char>(digit < 10 ? '0' + digit : (is_upper ? 'A' : 'a') + digit - 10);
    rest /= static_cast<unsigned>(base);
  } while (rest > 0);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

// The digits of a number without its sign.
std::string format_real(double value, char type, int precision, bool is_alternate) {
  const bool is_upper = type == 'F' || type == 'E' || type == 'G';
  if (!std::isfinite(value)) {
    const std::string name = std::isnan(value) ? "nan" : "inf";
    return is_upper ? to_upper(name) : name;
  }
  const std::string pattern = std::string("%") + (is_alternate ? "#" : "") + ".*" + type;
  const int count =
      std::snprintf(nullptr, 0, pattern.c_str(), precision < 0 ? 6 : precision, std::fabs(value));
  std::string digits(static_cast<size_t>(count) + 1, '\0');
  std::snprintf(digits.data(), digits.size(), pattern.c_str(), precision < 0 ? 6 : precision,
                std::fabs(value));
  digits.pop_back();
  return digits;
}

void insert_commas(std::string& digits) {
  size_t end = digits.find_first_of(".e");
  if (end == std::string::npos) end = digits.size();
  for (size_t place = end; place > 3; place -= 3) digits.insert(place - 3, ",");
}

// Sign, prefix and digits, filled to the width: zeros of '=' go between sign and digits.
void append_number(TextBuilder& out,
                   bool is_negative,
                   std::string_view prefix,
                   std::string digits,
                   const Spec& spec) {
  if (spec.has_comma) insert_commas(digits);
  std::string head = is_negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  head += prefix;
  const Integer missing = Integer{spec.width} - static_cast<Integer>(head.size() + digits.size());
  if (spec.align == '=') {
    out << head;
    out.repeat(spec.fill, missing) << digits;
    return;
  }
  const Integer left = spec.align == '<' ? 0 : spec.align == '^' ? missing / 2 : missing;
  out.repeat(spec.fill, left) << head << digits;
  out.repeat(spec.fill, missing - std::max<Integer>(left, 0));
}

void append_text(Runtime& runtime,
                 TextBuilder& out,
                 std::string_view text,
                 const Spec& spec,
                 char default_align) {
  if (spec.precision >= 0) {
    text = text.substr(0, byte_position(text, static_cast<size_t>(spec.precision)));
  }
  const char align = spec.align == '\0' ? default_align : spec.align;
  const Integer missing = Integer{spec.width} - static_cast<Integer>(count_code_points(text));
  const Integer left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  out.repeat(spec.fill, left) << text;
  out.repeat(spec.fill, missing - std::max<Integer>(left, 0));
}

void append_integer(TextBuilder& out, Integer value, const Spec& spec) {
  std::string_view prefix;
  std::string digits;
  switch (spec.type) {
    case 'x':
      digits = digits_in_base(value, 16, false);
      prefix = "0x";
      break;
    case 'X':
      digits = digits_in_base(value, 16, true);
      prefix = "0X";
      break;
    case 'o':
      digits = digits_in_base(value, 8, false);
      prefix = "0o";
      break;
    case 'b':
      digits = digits_in_base(value, 2, false);
      prefix = "0b";
      break;
    default:
      digits = digits_in_base(value, 10, false);
      break;
  }
  append_number(out, value < 0, spec.is_alternate ? prefix : "", std::move(digits), spec);
}

std::string ascii_repr(Runtime& runtime, const Value& value) {
  std::string out;
  const std::string repr = to_repr(runtime, value);
  for (size_t position = 0; position < repr.size();) {
    const char32_t c = next_code_point(repr, position);
    if (c < 0x80) {
      out += static_cast<char>(c);
      continue;
    }
    char escape[11];
    const char* format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
    std::snprintf(escape, sizeof escape, format, static_cast<unsigned>(c));
    out += escape;
  }
  return out;
}

Integer truncate(double value) {
  if (!std::isfinite(value) || std::fabs(value) > 1e38) {
    throw TemplateError("the float does not fit in an integer");
  }
  return static_cast<Integer>(value);
}

// The values of a % operation, handed out one by one.
class PrintfValues {
 public:
  explicit PrintfValues(const Value& values) : values_(values) {}

  const Value& next() {
    if (is_tuple()) {
      const auto& items = values_.as_sequence().items;
      if (num_taken_ >= items.size()) throw TemplateError("not enough arguments for format string");
      return items[num_taken_++];
    }
    if (num_taken_++ > 0) throw TemplateError("not enough arguments for format string");
    return values_;
  }

  const Value& named(const std::string& name) {
    if (!values_.is(Kind::kDict)) throw TemplateError("format requires a mapping");
    const Value* found = values_.as_dict().find(name);
    if (found == nullptr) throw TemplateError("format: no key '" + name + "'");
    return *found;
  }

  // Python lets everything with items pass as a mapping that need not be used up.
  void check_all_taken() const {
    const bool is_left = is_tuple() ? num_taken_ < values_.as_sequence().items.size()
                                    : num_taken_ == 0 && (values_.is_string() ||
                                                          values_.is_number() || values_.is_none());
    if (is_left) throw TemplateError("not all arguments converted during string formatting");
  }

 private:
  bool is_tuple() const { return values_.is(Kind::kSequence) && values_.as_sequence().is_tuple(); }

  const Value& values_;
  size_t num_taken_ = 0;
};

void append_printf(Runtime& runtime, TextBuilder& out, const Value& value, Spec spec) {
  if (spec.align == '=') spec.fill = "0";
  const char type = spec.type;
  if (type == 's' || type == 'r' || type == 'a') {
    const std::string text = type == 's'   ? to_text(runtime, value)
                             : type == 'r' ? to_repr(runtime, value)
                                           : ascii_repr(runtime, value);
    spec.fill = " ";
    return append_text(runtime, out, text, spec, '>');
  }
  if (type == 'c') {
    std::string text;
    if (value.is_string() && count_code_points(value.as_string()) == 1) {
      text = value.as_string();
    } else if (value.is_integral() && value.as_integer() >= 0 && value.as_integer() < 0x110000) {
      append_code_point(text, static_cast<char32_t>(value.as_integer()));
    } else {
      throw TemplateError("%c requires an int or a character");
    }
    spec.fill = " ";
    return append_text(runtime, out, text, spec, '>');
  }
  if (value.is_undefined()) fail_undefined(value);
  const bool takes_real = std::string_view("feEgFG").find(type) != std::string_view::npos;
  const bool takes_integer = std::string_view("diuxXo").find(type) != std::string_view::npos;
  if (!takes_real && !takes_integer) {
    fail_pattern(std::string("unsupported conversion '%") + type + "'");
  }
  const bool must_be_integral = type == 'x' || type == 'X' || type == 'o';
  if (!value.is_number() || (must_be_integral && !value.is_integral())) {
    throw TemplateError(std::string("%") + type + " requires a number, not " +
                        std::string(value.type_name()));
  }
  if (takes_integer) {
    const Integer integer = value.is_integral() ? value.as_integer() : truncate(value.as_real());
    if (spec.precision >= 0 && spec.width == 0) {
      spec.align = '=';  // %.3d: at least so many digits
      spec.fill = "0";
      spec.width = spec.precision + (integer < 0 || spec.sign != '-' ? 1 : 0);
    }
    return append_integer(out, integer, spec);
  }
  append_number(out, std::signbit(value.as_real()), "",
                format_real(value.as_real(), type, spec.precision, spec.is_alternate), spec);
}

// One {...} of a str.format pattern: what to show, how, and where it ends.
class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, std::string_view pattern, const Arguments& arguments)
      : runtime_(runtime), pattern_(pattern), arguments_(arguments), out_(runtime) {}

  Value run() {
    while (position_ < pattern_.size()) {
      const size_t brace = std::min(pattern_.find_first_of("{}", position_), pattern_.size());
      out_ << pattern_.substr(position_, brace - position_);
      position_ = brace;
      if (brace == pattern_.size()) break;
      if (pattern_.substr(brace, 2) == "{{" || pattern_.substr(brace, 2) == "}}") {
        out_ << pattern_.substr(brace, 1);
        position_ += 2;
      } else if (pattern_[brace] == '}') {
        fail_pattern("single '}' encountered");
      } else {
        ++position_;
        format_field();
      }
    }
    return out_.finish();
  }

 private:
  void format_field() {
    const size_t end = pattern_.find('}', position_);
    if (end == std::string_view::npos) fail_pattern("expected '}' before the end");
    std::string_view field = pattern_.substr(position_, end - position_);
    if (field.find('{') != std::string_view::npos) {
      fail_pattern("nested replacement fields are not supported");
    }
    position_ = end + 1;
    const size_t colon = field.find(':');
    const std::string_view spec_text =
        colon == std::string_view::npos ? std::string_view() : field.substr(colon + 1);
    field = field.substr(0, colon);
    char conversion = '\0';
    if (field.size() >= 2 && field[field.size() - 2] == '!') {
      conversion = field.back();
      field.remove_suffix(2);
    }
    Value value = look_up(field);
    if (conversion == 'r') value = runtime_.text(to_repr(runtime_, value));
    if (conversion == 's') value = runtime_.text(to_text(runtime_, value));
    if (conversion == 'a') value = runtime_.text(ascii_repr(runtime_, value));
    if (conversion != '\0' && std::string_view("rsa").find(conversion) == std::string_view::npos) {
      fail_pattern(std::string("unknown conversion '!") + conversion + "'");
    }
    append(value, read_spec(spec_text));
  }

  Value look_up(std::string_view field) {
    const size_t name_end = std::min(field.find_first_of(".["), field.size());
    const std::string name(field.substr(0, name_end));
    Value value = name.empty() ? positional(next_++)
                  : name.find_first_not_of("0123456789") == std::string::npos
                      ? positional(to_index(name))
                      : named(name);
    for (size_t position = name_end; position < field.size();) {
      if (field[position] == '.') {
        const size_t end = std::min(field.find_first_of(".[", position + 1), field.size());
        value = get_attribute(runtime_, value, field.substr(position + 1, end - position - 1));
        position = end;
      } else {
        const size_t end = field.find(']', position);
        if (field[position] != '[' || end == std::string_view::npos) {
          fail_pattern("expected '.' or '[...]' after the name of a field");
        }
        const std::string key(field.substr(position + 1, end - position - 1));
        const bool is_index =
            !key.empty() && key.find_first_not_of("0123456789") == std::string::npos;
        value = get_item(
            runtime_, value,
            is_index ? Value::integer(static_cast<Integer>(to_index(key))) : Value::text(key));
        position = end + 1;
      }
    }
    return value;
  }

  static size_t to_index(const std::string& digits) {
    if (digits.size() > 9) fail_pattern("index " + digits + " is out of range");
    return std::stoul(digits);
  }

  Value positional(size_t index) const {
    if (index >= arguments_.positional.size()) {
      fail_pattern("index " + std::to_string(index) + " is out of range");
    }
    return arguments_.positional[index];
  }

  Value named(const std::string& name) const {
    for (const auto& [key, value] : arguments_.named) {
      if (key == name) return value;
    }
    throw TemplateError("format: no argument '" + name + "'");
  }

  static Spec read_spec(std::string_view text) {
    Spec spec;
    size_t position = 0;
    const auto is_align = [](char c) {
      return std::string_view("<>=^").find(c) != std::string::npos;
    };
    const size_t after_fill = byte_position(text, 1);
    if (after_fill < text.size() && is_align(text[after_fill])) {
      spec.fill = text.substr(0, after_fill);
      spec.align = text[after_fill];
      position = after_fill + 1;
    } else if (!text.empty() && is_align(text[0])) {
      spec.align = text[0];
      position = 1;
    }
    const auto take = [&](std::string_view choices) {
      if (position >= text.size() || choices.find(text[position]) == std::string::npos) return '\0';
      return text[position++];
    };
    if (const char sign = take("+- ")) spec.sign = sign;
    spec.is_alternate = take("#") != '\0';
    if (take("0") != '\0' && spec.align == '\0') {
      spec.fill = "0";
      spec.align = '=';
    }
    spec.width = read_number(text, position);
    spec.has_comma = take(",") != '\0';
    if (take(".") != '\0') spec.precision = checked_precision(read_number(text, position));
    if (position < text.size()) spec.type = text[position++];
    if (position < text.size())
      fail_pattern("invalid format specifier '" + std::string(text) + "'");
    return spec;
  }

  void append(const Value& value, Spec spec) {
    if (!value.is_number() || spec.type == 's' || (value.is(Kind::kBool) && spec.type == '\0')) {
      if (spec.type != '\0' && spec.type != 's') {
        fail_pattern(std::string("type '") + spec.type + "' needs a number, not " +
                     std::string(value.type_name()));
      }
      if (spec.align == '=') spec.align = '<';
      return append_text(runtime_, out_, to_text(runtime_, value), spec, '<');
    }
    const std::string_view integer_types("dxXob");
    const bool is_integer_type = integer_types.find(spec.type) != std::string_view::npos;
    if (value.is_integral() && (spec.type == '\0' || is_integer_type)) {
      if (spec.precision >= 0) fail_pattern("precision is not allowed for an integer");
      return append_integer(out_, value.as_integer(), spec);
    }
    double number = value.as_real();
    if (spec.type == '\0') {
      std::string digits = format_float(std::fabs(number));
      if (spec.precision >= 0) digits = format_real(number, 'g', spec.precision, false);
      return append_number(out_, std::signbit(number), "", digits, spec);
    }
    if (std::string_view("fFeEgG%").find(spec.type) == std::string_view::npos) {
      fail_pattern(std::string("unknown type '") + spec.type + "' for a number");
    }
    const bool is_percent = spec.type == '%';
    if (is_percent) number *= 100;
    append_number(
        out_, std::signbit(number), "",
        format_real(number, is_percent ? 'f' : spec.type, spec.precision, spec.is_alternate) +
            (is_percent ? "%" : ""),
        spec);
  }

  Runtime& runtime_;
  const std::string_view pattern_;
  const Arguments& arguments_;
  TextBuilder out_;
  size_t position_ = 0;
  size_t next_ = 0;  // the argument of the next {}
};

}  // namespace

Value format_printf(Runtime& runtime, const Value& pattern, const Value& values) {
  const std::string& text = pattern.as_string();
  TextBuilder out(runtime);
  PrintfValues arguments(values);
  for (size_t position = 0; position < text.size();) {
    const size_t percent = std::min(text.find('%', position), text.size());
    out << std::string_view(text).substr(position, percent - position);
    position = percent + 1;
    if (percent == text.size()) break;
    runtime.charge_steps(1);
    Spec spec;
    std::string name;
    if (position < text.size() && text[position] == '(') {
      const size_t end = text.find(')', position);
      if (end == std::string::npos) fail_pattern("incomplete format key");
      name = text.substr(position + 1, end - position - 1);
      position = end + 1;
      arguments.named(name);
    }
    const bool is_named = position > percent + 1;
    bool has_zero = false;
    for (; position < text.size(); ++position) {
      const char flag = text[position];
      if (flag == '-')
        spec.align = '<';
      else if (flag == '0')
        has_zero = true;
      else if (flag == '#')
        spec.is_alternate = true;
      else if (flag == '+' || (flag == ' ' && spec.sign != '+'))
        spec.sign = flag;
      else if (flag != ' ')
        break;
    }
    if (has_zero && spec.align == '\0') spec.align = '=';
    spec.width = read_number(text, position);
    if (position < text.size() && text[position] == '.') {
      spec.precision = checked_precision(read_number(text, ++position));
    }
    if (position >= text.size()) fail_pattern("incomplete format");
    spec.type = text[position++];
    if (spec.type == '%') {
      out << "%";
      continue;
    }
    append_printf(runtime, out, is_named ? arguments.named(name) : arguments.next(), spec);
  }
  arguments.check_all_taken();
  return out.finish(pattern.is_markup());
}

Value format_braces(Runtime& runtime, const std::string& pattern, const Arguments& arguments) {
  return BraceFormatter(runtime, pattern, arguments).run();
}

}  // namespace augur::jinja
