#include "engine/text/jinja_print.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "engine/text/jinja_unicode.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

void append_quoted(const std::string& text, TextBuilder& out) {
  const bool use_double =
      text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = use_double ? '"' : '\'';
  std::string quoted(1, quote);
  for (size_t position = 0; position < text.size();) {
    const char32_t c = next_code_point(text, position);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      quoted += '\\';
      quoted += static_cast<char>(c);
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\r') {
      quoted += "\\r";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (c >= kInvalidByte || is_printable(c)) {
      append_code_point(quoted, c);
    } else {
      char escape[11];
      const char* format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
      std::snprintf(escape, sizeof escape, format, static_cast<unsigned>(c));
      quoted += escape;
    }
  }
  quoted += quote;
  out << quoted;
}

void append_items(Runtime& runtime,
                  const Sequence& sequence,
                  std::string_view open,
                  std::string_view close,
                  TextBuilder& out) {
  out << open;
  for (size_t i = 0; i < sequence.items.size(); ++i) {
    if (i > 0) out << ", ";
    append_repr(runtime, sequence.items[i], out);
  }
  if (sequence.is_tuple() && sequence.items.size() == 1) out << ",";
  out << close;
}

void append_sequence(Runtime& runtime, const Sequence& sequence, TextBuilder& out) {
  switch (sequence.form) {
    case Sequence::Form::kList:
      return append_items(runtime, sequence, "[", "]", out);
    case Sequence::Form::kTuple:
    case Sequence::Form::kGroup:
      return append_items(runtime, sequence, "(", ")", out);
    case Sequence::Form::kDictKeys:
      return append_items(runtime, sequence, "dict_keys([", "])", out);
    case Sequence::Form::kDictValues:
      return append_items(runtime, sequence, "dict_values([", "])", out);
    case Sequence::Form::kDictItems:
      return append_items(runtime, sequence, "dict_items([", "])", out);
    case Sequence::Form::kRange:
      out << sequence.range_text;
      return;
    case Sequence::Form::kGenerator:
      out << "<generator object>";
      return;
  }
}

// Objects may hold each other in a circle, so their nesting is counted while printing.
std::string print_object(Runtime& runtime, Object& object) {
  if (runtime.print_depth() >= kMaxValueDepth) {
    throw TemplateError("a namespace that contains itself cannot be printed");
  }
  ++runtime.print_depth();
  std::string text = object.print(runtime);
  --runtime.print_depth();
  return text;
}

}  // namespace

void append_repr(Runtime& runtime, const Value& value, TextBuilder& out) {
  runtime.charge_steps(1);
  switch (value.kind()) {
    case Kind::kUndefined:
      out << "Undefined";
      return;
    case Kind::kNone:
      out << "None";
      return;
    case Kind::kBool:
      out << (value.as_bool() ? "True" : "False");
      return;
    case Kind::kInteger:
      out << format_integer(value.as_integer());
      return;
    case Kind::kFloat:
      out << format_float(value.as_real());
      return;
    case Kind::kString:
      if (value.is_markup()) out << "Markup(";
      append_quoted(value.as_string(), out);
      if (value.is_markup()) out << ")";
      return;
    case Kind::kSequence:
      return append_sequence(runtime, value.as_sequence(), out);
    case Kind::kDict: {
      out << "{";
      bool is_first = true;
      for (const auto& [key, item] : value.as_dict().entries()) {
        if (!is_first) out << ", ";
        is_first = false;
        append_repr(runtime, key, out);
        out << ": ";
        append_repr(runtime, item, out);
      }
      out << "}";
      return;
    }
    case Kind::kCallable:
      out << "<" << value.type_name() << " " << value.as_callable().name() << ">";
      return;
    case Kind::kObject:
      out << print_object(runtime, value.as_object());
      return;
  }
}

std::string to_text(Runtime& runtime, const Value& value) {
  if (value.is_string()) return value.as_string();
  if (value.is_undefined()) return "";
  return to_repr(runtime, value);
}

std::string to_repr(Runtime& runtime, const Value& value) {
  TextBuilder out(runtime);
  append_repr(runtime, value, out);
  return out.take();
}

std::string format_integer(Integer value) {
  if (value == 0) return "0";
  std::string digits;
  unsigned __int128 rest = static_cast<unsigned __int128>(value);
  if (value < 0) rest = -rest;
  for (; rest > 0; rest /= 10) digits += static_cast<char>('0' + static_cast<int>(rest % 10));
  if (value < 0) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string format_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto result =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string_view scientific(buffer, static_cast<size_t>(result.ptr - buffer));
  const size_t e = scientific.find('e');
  int exponent = 0;
  const size_t exponent_begin = scientific[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(buffer + exponent_begin, result.ptr, exponent);
  if (exponent < -4 || exponent >= 16) return std::string(scientific);  // 1e-05, 1.5e+16

  std::string sign;
  std::string digits;
  for (char c : scientific.substr(0, e)) {
    if (c == '-') sign = "-";
    if (c >= '0' && c <= '9') digits += c;
  }
  if (exponent < 0)
    return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t num_whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() < num_whole) digits.append(num_whole - digits.size(), '0');
  const std::string fraction = digits.substr(num_whole);
  return sign + digits.substr(0, num_whole) + "." + (fraction.empty() ? "0" : fraction);
}

}  // namespace augur::jinja
