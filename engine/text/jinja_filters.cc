// The filters of single values, and the table of all.
#include "engine/text/jinja_filters.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>
#include <unordered_map>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_json.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_print.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

Value filter_abs(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("abs", arguments, {});
  if (input.is_integral()) return input.as_integer() < 0 ? negate(input) : identity(input);
  if (input.is(Kind::kFloat)) return Value::real(std::fabs(input.as_real()));
  if (input.is_undefined()) fail_undefined(input);
  throw TemplateError("abs: bad operand type '" + std::string(input.type_name()) + "'");
}

Value filter_attr(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("attr", arguments, {"name"}, 1);
  const std::string name = bound.text(0, "");
  if (input.is(Kind::kDict) && find_method(input, name) == nullptr) {
    return Value::undefined("'dict object' has no attribute '" + name + "'");
  }
  return get_attribute(runtime, input, name);
}

Value filter_default(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("default", arguments, {"default_value", "boolean"});
  if (!input.is_undefined() && (input.truthy() || !bound.flag(1, false))) return input;
  return bound.find(0) == nullptr ? Value::text("") : *bound.find(0);
}

// The digits of a Python number literal without the underscores between them; nullopt when one is
// misplaced.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      digits += text[i];
    } else if (i == 0 || i + 1 == text.size() || text[i - 1] == '_' || text[i + 1] == '_') {
      return std::nullopt;
    }
  }
  return digits;
}

// int(text, base); nullopt where Python raises ValueError.
std::optional<Integer> parse_integer(std::string_view text, int base) {
  text = strip_left(strip_right(text));
  const bool is_negative = text.starts_with('-');
  if (is_negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.size() > 2 && text[0] == '0') {
    const char prefix = static_cast<char>(text[1] | 0x20);
    const bool is_prefix = (base == 16 && prefix == 'x') || (base == 8 && prefix == 'o') ||
                           (base == 2 && prefix == 'b');
    if (is_prefix) text.remove_prefix(text[2] == '_' ? 3 : 2);
  }
  const std::optional<std::string> digits = without_underscores(text);
  if (!digits || digits->empty()) return std::nullopt;
  Integer value = 0;
  for (char c : *digits) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 10
                      : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                             : 99;
    if (digit >= base) return std::nullopt;
    if (__builtin_mul_overflow(value, Integer{base}, &value) ||
        __builtin_sub_overflow(value, Integer{digit}, &value)) {  // negative, to reach the minimum
      throw TemplateError("an integer does not fit in 128 bits");
    }
  }
  if (is_negative) return value;
  return negate(Value::integer(value)).as_integer();
}

// float(text); nullopt where Python raises ValueError.
std::optional<double> parse_real(std::string_view text) {
  text = strip_left(strip_right(text));
  const bool is_negative = text.starts_with('-');
  if (is_negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || text[0] == '-' || text[0] == '+') return std::nullopt;
  const std::optional<std::string> digits = without_underscores(text);
  if (!digits) return std::nullopt;
  double value = 0;
  const char* end = digits->data() + digits->size();
  const auto result = std::from_chars(digits->data(), end, value);
  if (result.ptr != end || result.ec == std::errc::invalid_argument ||
      digits->find('(') != std::string::npos) {  // from_chars knows "nan(...)"
    return std::nullopt;
  }
  if (result.ec == std::errc::result_out_of_range) {
    value = digits->find("e-") != std::string::npos || digits->find("E-") != std::string::npos
                ? 0
                : HUGE_VAL;
  }
  return is_negative ? -value : value;
}

Integer truncate(double value) {
  if (!std::isfinite(value) || std::fabs(value) > 1e38) {
    throw TemplateError("the float " + format_float(value) + " does not fit in an integer");
  }
  return static_cast<Integer>(value);
}

Value filter_int(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("int", arguments, {"default", "base"});
  if (input.is_undefined()) fail_undefined(input);
  if (input.is_integral()) return Value::integer(input.as_integer());
  if (input.is(Kind::kFloat) && !std::isnan(input.as_real())) {
    return Value::integer(truncate(input.as_real()));
  }
  if (input.is_string()) {
    const Integer base = bound.integer(1, 10);
    if (base < 2 || base > 36) throw TemplateError("int(): the base must be in [2, 36]");
    runtime.charge_bytes(static_cast<int64_t>(input.as_string().size()));
    if (const auto integer = parse_integer(input.as_string(), static_cast<int>(base))) {
      return Value::integer(*integer);
    }
    const std::optional<double> real = parse_real(input.as_string());
    if (real && !std::isnan(*real)) return Value::integer(truncate(*real));
  }
  return bound.find(0) == nullptr ? Value::integer(0) : *bound.find(0);
}

Value filter_float(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("float", arguments, {"default"});
  if (input.is_undefined()) fail_undefined(input);
  if (input.is_number()) return Value::real(input.as_real());
  if (input.is_string()) {
    runtime.charge_bytes(static_cast<int64_t>(input.as_string().size()));
    if (const auto real = parse_real(input.as_string())) return Value::real(*real);
  }
  return bound.find(0) == nullptr ? Value::real(0.0) : *bound.find(0);
}

// To a multiple of 10**num_digits, ties to the even one.
Integer round_integer(Integer value, Integer num_digits) {
  if (num_digits > 38) return 0;
  Integer unit = 1;
  for (Integer i = 0; i < num_digits; ++i) unit *= 10;
  Integer quotient = value / unit;
  const Integer rest = value % unit;
  const Integer distance = rest < 0 ? -rest : rest;
  if (distance * 2 > unit || (distance * 2 == unit && quotient % 2 != 0)) {
    quotient += value < 0 ? -1 : 1;
  }
  return quotient * unit;
}

double round_real(double value, Integer precision) {
  if (!std::isfinite(value) || precision > 323) return value;
  if (precision < -308) return std::copysign(0.0, value);
  if (precision < 0) {
    const double unit = std::pow(10.0, static_cast<double>(-precision));
    return std::nearbyint(value / unit) * unit;
  }
  // Printing rounds the exact binary value correctly, as Python's round() does.
  char digits[700];
  std::snprintf(digits, sizeof digits, "%.*f", static_cast<int>(precision), value);
  return parse_real(digits).value();
}

Value filter_round(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("round", arguments, {"precision", "method"});
  const Integer precision = bound.integer(0, 0);
  const std::string method = bound.text(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") {
    throw TemplateError("round: method must be common, ceil or floor");
  }
  if (input.is_undefined()) fail_undefined(input);
  if (!input.is_number()) {
    throw TemplateError("round: a number is needed, not " + std::string(input.type_name()));
  }
  if (method == "common") {
    if (!input.is_integral()) return Value::real(round_real(input.as_real(), precision));
    return Value::integer(precision >= 0 ? input.as_integer()
                                         : round_integer(input.as_integer(), -precision));
  }
  const double unit = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.as_real() * unit;
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

Value filter_string(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("string", arguments, {});
  return input.is_string() ? input : runtime.text(to_text(runtime, input));
}

Value filter_safe(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("safe", arguments, {});
  return runtime.text(to_text(runtime, input), /*is_markup=*/true);
}

Value filter_escape(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("escape", arguments, {});
  if (input.is_markup()) return input;
  return runtime.text(escape_html(runtime, to_text(runtime, input)), /*is_markup=*/true);
}

Value filter_forceescape(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("forceescape", arguments, {});
  return runtime.text(escape_html(runtime, to_text(runtime, input)), /*is_markup=*/true);
}

Value filter_tojson(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("tojson", arguments,
                             {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonFormat format;
  format.ensure_ascii = bound.flag(0, false);
  format.sort_keys = bound.flag(3, false);
  const Value indent = bound.value(1);
  if (!indent.is_none()) {
    TextBuilder level(runtime);
    if (indent.is_string()) {
      level << indent.as_string();
    } else {
      level.repeat(" ", bound.integer(1, 0));
    }
    format.indent = level.take();
    format.item_separator = ",";
  }
  const Value separators = bound.value(2);
  if (!separators.is_none()) {
    const std::vector<Value> pair = iterate(runtime, separators);
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      throw TemplateError("tojson: separators must be two strings, one for items and one for keys");
    }
    format.item_separator = pair[0].as_string();
    format.key_separator = pair[1].as_string();
  }
  return Value::text(to_json(runtime, input, format));
}

constexpr FilterEntry kFilters[] = {
    {"abs", filter_abs},       {"attr", filter_attr},
    {"d", filter_default},     {"default", filter_default},
    {"e", filter_escape},      {"escape", filter_escape},
    {"float", filter_float},   {"forceescape", filter_forceescape},
    {"int", filter_int},       {"round", filter_round},
    {"safe", filter_safe},     {"string", filter_string},
    {"tojson", filter_tojson},
};

}  // namespace

std::span<const FilterEntry> value_filters() {
  return kFilters;
}

FilterFunction find_filter(std::string_view name) {
  static const auto kByName = [] {
    std::unordered_map<std::string_view, FilterFunction> filters;
    for (const auto& table : {value_filters(), text_filters(), sequence_filters()}) {
      for (const FilterEntry& entry : table) filters.emplace(entry.name, entry.function);
    }
    return filters;
  }();
  const auto found = kByName.find(name);
  return found == kByName.end() ? nullptr : found->second;
}

FilterFunction require_filter(std::string_view name) {
  const FilterFunction function = find_filter(name);
  if (function == nullptr) throw TemplateError("no filter named '" + std::string(name) + "'");
  return function;
}

}  // namespace augur::jinja
