#include "engine/text/jinja_operators.h"

#include <algorithm>
#include <cmath>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_print.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

std::string_view symbol(BinaryOp op) {
  switch (op) {
    case BinaryOp::kAdd:
      return "+";
    case BinaryOp::kSubtract:
      return "-";
    case BinaryOp::kMultiply:
      return "*";
    case BinaryOp::kDivide:
      return "/";
    case BinaryOp::kFloorDivide:
      return "//";
    case BinaryOp::kModulo:
      return "%";
    case BinaryOp::kPower:
      return "**";
  }
  return "";
}

[[noreturn]] void fail_types(std::string_view op, const Value& left, const Value& right) {
  throw TemplateError("unsupported operand types for " + std::string(op) + ": '" +
                      std::string(left.type_name()) + "' and '" + std::string(right.type_name()) +
                      "'");
}

Integer checked(bool overflowed, Integer value) {
  if (overflowed) throw TemplateError("an integer does not fit in 128 bits");
  return value;
}

Integer multiply(Integer a, Integer b) {
  Integer result = 0;
  const bool overflowed = __builtin_mul_overflow(a, b, &result);
  return checked(overflowed, result);
}

// Rounds towards minus infinity, as Python does. The one overflow is -2**127 // -1.
Integer floor_divide(Integer a, Integer b) {
  if (b == -1) return multiply(a, -1);
  const Integer quotient = a / b;
  return (a % b != 0 && ((a < 0) != (b < 0))) ? quotient - 1 : quotient;
}

Integer floor_modulo(Integer a, Integer b) {
  if (b == -1) return 0;
  const Integer rest = a % b;
  return (rest != 0 && ((rest < 0) != (b < 0))) ? rest + b : rest;
}

double float_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest != 0 && ((rest < 0) != (b < 0))) rest += b;
  return rest == 0 ? std::copysign(0.0, b) : rest;
}

Value power(const Value& left, const Value& right) {
  if (left.is_integral() && right.is_integral() && right.as_integer() >= 0) {
    Integer base = left.as_integer();
    Integer exponent = right.as_integer();
    if (base == 0 || base == 1) return Value::integer(exponent == 0 ? 1 : base);
    if (base == -1) return Value::integer(exponent % 2 == 0 ? 1 : -1);
    if (exponent > 127) checked(true, 0);
    Integer result = 1;
    for (; exponent > 0; --exponent) result = multiply(result, base);
    return Value::integer(result);
  }
  const double base = left.as_real();
  const double exponent = right.as_real();
  if (base == 0 && exponent < 0) throw TemplateError("0.0 cannot be raised to a negative power");
  const double result = std::pow(base, exponent);
  if (std::isnan(result) && !std::isnan(base) && !std::isnan(exponent)) {
    throw TemplateError("a negative number cannot be raised to a fractional power");
  }
  if (std::isinf(result) && std::isfinite(base) && std::isfinite(exponent)) {
    throw TemplateError("the power is out of range");
  }
  return Value::real(result);
}

Value arithmetic(BinaryOp op, const Value& left, const Value& right) {
  if (op == BinaryOp::kPower) return power(left, right);
  if (op == BinaryOp::kDivide || !left.is_integral() || !right.is_integral()) {
    const double a = left.as_real();
    const double b = right.as_real();
    if (b == 0 &&
        (op == BinaryOp::kDivide || op == BinaryOp::kFloorDivide || op == BinaryOp::kModulo)) {
      throw TemplateError("division by zero");
    }
    switch (op) {
      case BinaryOp::kAdd:
        return Value::real(a + b);
      case BinaryOp::kSubtract:
        return Value::real(a - b);
      case BinaryOp::kMultiply:
        return Value::real(a * b);
      case BinaryOp::kDivide:
        return Value::real(a / b);
      case BinaryOp::kFloorDivide:
        return Value::real(std::floor(a / b));
      default:
        return Value::real(float_modulo(a, b));
    }
  }
  const Integer a = left.as_integer();
  const Integer b = right.as_integer();
  Integer result = 0;
  switch (op) {
    case BinaryOp::kAdd: {
      const bool overflowed = __builtin_add_overflow(a, b, &result);
      return Value::integer(checked(overflowed, result));
    }
    case BinaryOp::kSubtract: {
      const bool overflowed = __builtin_sub_overflow(a, b, &result);
      return Value::integer(checked(overflowed, result));
    }
    case BinaryOp::kMultiply:
      return Value::integer(multiply(a, b));
    default:
      break;
  }
  if (b == 0) throw TemplateError("integer division or modulo by zero");
  return Value::integer(op == BinaryOp::kFloorDivide ? floor_divide(a, b) : floor_modulo(a, b));
}

Value add_strings(Runtime& runtime, const Value& left, const Value& right) {
  const bool is_markup = left.is_markup() || right.is_markup();
  TextBuilder out(runtime);
  for (const Value* part : {&left, &right}) {
    if (is_markup && !part->is_markup()) {
      out << escape_html(runtime, part->as_string());
    } else {
      out << part->as_string();
    }
  }
  return out.finish(is_markup);
}

Value add_sequences(Runtime& runtime, const Value& left, const Value& right) {
  const Sequence& a = left.as_sequence();
  const Sequence& b = right.as_sequence();
  if (!(a.is_list() && b.is_list()) && !(a.is_tuple() && b.is_tuple())) {
    fail_types("+", left, right);
  }
  runtime.charge_items(a.items.size() + b.items.size());
  std::vector<Value> items = a.items;
  items.insert(items.end(), b.items.begin(), b.items.end());
  return a.is_list() ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

bool is_repeatable(const Value& value) {
  return value.is_string() || (value.is(Kind::kSequence) &&
                               (value.as_sequence().is_list() || value.as_sequence().is_tuple()));
}

Value repeat(Runtime& runtime, const Value& value, Integer count) {
  if (value.is_string()) {
    TextBuilder out(runtime);
    out.repeat(value.as_string(), count);
    return out.finish(value.is_markup());
  }
  const Sequence& sequence = value.as_sequence();
  std::vector<Value> items;
  for (Integer i = 0; i < count && !sequence.items.empty(); ++i) {
    runtime.charge_items(sequence.items.size());
    runtime.charge_steps(1);
    items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  }
  return sequence.is_list() ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

// -1, 0 or 1; 2 when one of them is NaN.
int order_numbers(const Value& left, const Value& right) {
  if (left.is_integral() && right.is_integral()) {
    const Integer a = left.as_integer();
    const Integer b = right.as_integer();
    return a < b ? -1 : a > b ? 1 : 0;
  }
  const double a = left.as_real();
  const double b = right.as_real();
  return a < b ? -1 : a > b ? 1 : a == b ? 0 : 2;
}

bool holds(CompareOp op, int order) {
  switch (op) {
    case CompareOp::kLess:
      return order == -1;
    case CompareOp::kLessEqual:
      return order == -1 || order == 0;
    case CompareOp::kGreater:
      return order == 1;
    default:
      return order == 0 || order == 1;  // kGreaterEqual
  }
}

bool compare_order(Runtime& runtime, CompareOp op, const Value& left, const Value& right) {
  runtime.charge_steps(1);
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  if (left.is_number() && right.is_number()) return holds(op, order_numbers(left, right));
  if (left.is_string() && right.is_string()) {
    runtime.charge_scan(left.as_string().size());
    // UTF-8 orders as its code points do.
    const int order = left.as_string().compare(right.as_string());
    return holds(op, order < 0 ? -1 : order > 0 ? 1 : 0);
  }
  if (left.is(Kind::kSequence) && right.is(Kind::kSequence)) {
    const Sequence& a = left.as_sequence();
    const Sequence& b = right.as_sequence();
    if ((a.is_list() && b.is_list()) || (a.is_tuple() && b.is_tuple())) {
      const size_t num_common = std::min(a.items.size(), b.items.size());
      for (size_t i = 0; i < num_common; ++i) {
        if (!equal(runtime, a.items[i], b.items[i])) {
          return compare_order(runtime, op, a.items[i], b.items[i]);
        }
      }
      return holds(op, a.items.size() < b.items.size() ? -1 : a.items.size() > b.items.size());
    }
  }
  static constexpr std::string_view kSymbols[] = {"==", "!=", "<", "<=", ">", ">="};
  throw TemplateError("'" + std::string(kSymbols[static_cast<int>(op)]) +
                      "' is not supported between '" + std::string(left.type_name()) + "' and '" +
                      std::string(right.type_name()) + "'");
}

bool equal_items(Runtime& runtime, const std::vector<Value>& a, const std::vector<Value>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](const Value& x, const Value& y) { return equal(runtime, x, y); });
}

}  // namespace

void fail_undefined(const Value& value) {
  throw TemplateError(value.undefined_message());
}

std::string escape_html(Runtime& runtime, std::string_view text) {
  TextBuilder out(runtime);
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    std::string_view entity;
    switch (text[i]) {
      case '&':
        entity = "&amp;";
        break;
      case '<':
        entity = "&lt;";
        break;
      case '>':
        entity = "&gt;";
        break;
      case '\'':
        entity = "&#39;";
        break;
      case '"':
        entity = "&#34;";
        break;
      default:
        continue;
    }
    out << text.substr(begin, i - begin) << entity;
    begin = i + 1;
  }
  out << text.substr(begin);
  return out.take();
}

Value binary(Runtime& runtime, BinaryOp op, const Value& left, const Value& right) {
  if (op == BinaryOp::kModulo && left.is_string()) return format_printf(runtime, left, right);
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  if (left.is_number() && right.is_number()) return arithmetic(op, left, right);
  if (op == BinaryOp::kAdd) {
    if (left.is_string() && right.is_string()) return add_strings(runtime, left, right);
    if (left.is(Kind::kSequence) && right.is(Kind::kSequence)) {
      return add_sequences(runtime, left, right);
    }
  }
  if (op == BinaryOp::kMultiply) {
    if (is_repeatable(left) && right.is_integral()) {
      return repeat(runtime, left, right.as_integer());
    }
    if (left.is_integral() && is_repeatable(right)) {
      return repeat(runtime, right, left.as_integer());
    }
  }
  fail_types(symbol(op), left, right);
}

Value negate(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_integral()) return Value::integer(multiply(value.as_integer(), -1));
  if (value.is(Kind::kFloat)) return Value::real(-value.as_real());
  throw TemplateError("bad operand type for unary -: '" + std::string(value.type_name()) + "'");
}

Value identity(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_integral()) return Value::integer(value.as_integer());
  if (value.is(Kind::kFloat)) return value;
  throw TemplateError("bad operand type for unary +: '" + std::string(value.type_name()) + "'");
}

bool compare(Runtime& runtime, CompareOp op, const Value& left, const Value& right) {
  switch (op) {
    case CompareOp::kEqual:
      return equal(runtime, left, right);
    case CompareOp::kNotEqual:
      return !equal(runtime, left, right);
    case CompareOp::kIn:
      return contains(runtime, right, left);
    case CompareOp::kNotIn:
      return !contains(runtime, right, left);
    default:
      return compare_order(runtime, op, left, right);
  }
}

bool equal(Runtime& runtime, const Value& left, const Value& right) {
  runtime.charge_steps(1);
  if (left.is_number() && right.is_number()) return order_numbers(left, right) == 0;
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::kString: {
      const std::string& a = left.as_string();
      const std::string& b = right.as_string();
      if (a.size() != b.size()) return false;
      runtime.charge_scan(a.size());
      return a == b;
    }
    case Kind::kSequence: {
      const Sequence& a = left.as_sequence();
      const Sequence& b = right.as_sequence();
      if (&a == &b) return true;
      if (a.is_generator() || a.form == Sequence::Form::kDictValues) return false;
      if (a.form != b.form && !(a.is_tuple() && b.is_tuple())) return false;
      return equal_items(runtime, a.items, b.items);
    }
    case Kind::kDict: {
      const Dict& a = left.as_dict();
      const Dict& b = right.as_dict();
      if (&a == &b) return true;
      if (a.size() != b.size()) return false;
      return std::all_of(a.entries().begin(), a.entries().end(), [&](const Dict::Entry& entry) {
        const Value* other = b.find(entry.first);
        return other != nullptr && equal(runtime, entry.second, *other);
      });
    }
    default:
      return left.is_same(right);
  }
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  runtime.charge_steps(1);
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.is_string()) {
        if (item.is_undefined()) fail_undefined(item);
        throw TemplateError("'in <string>' requires a string on its left, not " +
                            std::string(item.type_name()));
      }
      runtime.charge_scan(container.as_string().size());
      return find_bytes(container.as_string(), item.as_string(), 0) != std::string_view::npos;
    case Kind::kDict:
      check_hashable(item);
      return container.as_dict().find(item) != nullptr;
    case Kind::kSequence: {
      const std::vector<Value> taken = container.as_sequence().is_generator()
                                           ? iterate(runtime, container)
                                           : std::vector<Value>();
      const std::vector<Value>& items =
          container.as_sequence().is_generator() ? taken : container.as_sequence().items;
      return std::any_of(items.begin(), items.end(),
                         [&](const Value& other) { return equal(runtime, other, item); });
    }
    default:
      break;
  }
  throw TemplateError("argument of type '" + std::string(container.type_name()) +
                      "' is not iterable");
}

}  // namespace augur::jinja
