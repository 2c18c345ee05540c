// Python's operators on template values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

enum class BinaryOp : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
};

enum class CompareOp : uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

/// Each throws TemplateError where Python would raise: an undefined operand, types that do not go
/// together, division by zero; and where an integer leaves 128 bits.
Value binary(Runtime& runtime, BinaryOp op, const Value& left, const Value& right);
Value negate(const Value& value);
/// Unary plus.
Value identity(const Value& value);

bool compare(Runtime& runtime, CompareOp op, const Value& left, const Value& right);
bool equal(Runtime& runtime, const Value& left, const Value& right);
/// `item in container`.
bool contains(Runtime& runtime, const Value& container, const Value& item);

/// Throws the error of using an undefined value.
[[noreturn]] void fail_undefined(const Value& value);

/// A string with & < > ' " as HTML entities.
std::string escape_html(Runtime& runtime, std::string_view text);

}  // namespace augur::jinja
