// The tests: what may stand after `is`.
#include <string>
#include <unordered_map>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_print.h"
#include "engine/text/jinja_strings.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

// A test without arguments that only looks at the kind of value.
template <bool (*kHolds)(const Value&)>
bool check(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("test", arguments, {});
  return kHolds(input);
}

bool is_defined(const Value& value) {
  return !value.is_undefined();
}
bool is_undefined(const Value& value) {
  return value.is_undefined();
}
bool is_none(const Value& value) {
  return value.is_none();
}
bool is_boolean(const Value& value) {
  return value.is(Kind::kBool);
}
bool is_true(const Value& value) {
  return value.is(Kind::kBool) && value.as_bool();
}
bool is_false(const Value& value) {
  return value.is(Kind::kBool) && !value.as_bool();
}
bool is_integer(const Value& value) {
  return value.is(Kind::kInteger);
}
bool is_float(const Value& value) {
  return value.is(Kind::kFloat);
}
bool is_number(const Value& value) {
  return value.is_number();
}
bool is_string(const Value& value) {
  return value.is_string();
}
bool is_mapping(const Value& value) {
  return value.is(Kind::kDict);
}
bool is_escaped(const Value& value) {
  return value.is_markup();
}

// Jinja2 takes everything with a length and items by position or key for one, even a dict.
bool is_sequence(const Value& value) {
  if (value.is(Kind::kSequence)) return value.as_sequence().is_indexable();
  return value.is_undefined() || value.is_string() || value.is(Kind::kDict);
}

// An undefined value is callable too: calling it raises its own error.
bool is_callable(const Value& value) {
  return value.is(Kind::kCallable) || value.is_undefined() ||
         (value.is(Kind::kObject) && value.type_name() == "runtime.LoopContext");
}

bool test_lower(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("lower", arguments, {});
  return is_lower_text(to_text(runtime, input));
}

bool test_upper(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("upper", arguments, {});
  return is_upper_text(to_text(runtime, input));
}

bool has_remainder(Runtime& runtime, const Value& input, Integer divisor, Integer rest) {
  const Value remainder = binary(runtime, BinaryOp::kModulo, input, Value::integer(divisor));
  return equal(runtime, remainder, Value::integer(rest));
}

bool test_odd(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("odd", arguments, {});
  return has_remainder(runtime, input, 2, 1);
}

bool test_even(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("even", arguments, {});
  return has_remainder(runtime, input, 2, 0);
}

bool test_divisibleby(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("divisibleby", arguments, {"num"}, 1);
  return equal(runtime, binary(runtime, BinaryOp::kModulo, input, *bound.find(0)),
               Value::integer(0));
}

bool test_sameas(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("sameas", arguments, {"other"}, 1);
  return input.is_same(*bound.find(0));
}

template <CompareOp kOp>
bool test_compare(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("comparison", arguments, {"other"}, 1);
  return compare(runtime, kOp, input, *bound.find(0));
}

bool test_filter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("filter", arguments, {});
  return input.is_string() && find_filter(input.as_string()) != nullptr;
}

bool test_test(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("test", arguments, {});
  return input.is_string() && find_test(input.as_string()) != nullptr;
}

struct TestEntry {
  std::string_view name;
  TestFunction function;
};

constexpr TestEntry kTests[] = {
    {"!=", test_compare<CompareOp::kNotEqual>},
    {"<", test_compare<CompareOp::kLess>},
    {"<=", test_compare<CompareOp::kLessEqual>},
    {"==", test_compare<CompareOp::kEqual>},
    {">", test_compare<CompareOp::kGreater>},
    {">=", test_compare<CompareOp::kGreaterEqual>},
    {"boolean", check<is_boolean>},
    {"callable", check<is_callable>},
    {"defined", check<is_defined>},
    {"divisibleby", test_divisibleby},
    {"eq", test_compare<CompareOp::kEqual>},
    {"equalto", test_compare<CompareOp::kEqual>},
    {"escaped", check<is_escaped>},
    {"even", test_even},
    {"false", check<is_false>},
    {"filter", test_filter},
    {"float", check<is_float>},
    {"ge", test_compare<CompareOp::kGreaterEqual>},
    {"greaterthan", test_compare<CompareOp::kGreater>},
    {"gt", test_compare<CompareOp::kGreater>},
    {"in", test_compare<CompareOp::kIn>},
    {"integer", check<is_integer>},
    {"iterable", check<is_iterable>},
    {"le", test_compare<CompareOp::kLessEqual>},
    {"lessthan", test_compare<CompareOp::kLess>},
    {"lower", test_lower},
    {"lt", test_compare<CompareOp::kLess>},
    {"mapping", check<is_mapping>},
    {"ne", test_compare<CompareOp::kNotEqual>},
    {"none", check<is_none>},
    {"number", check<is_number>},
    {"odd", test_odd},
    {"sameas", test_sameas},
    {"sequence", check<is_sequence>},
    {"string", check<is_string>},
    {"test", test_test},
    {"true", check<is_true>},
    {"undefined", check<is_undefined>},
    {"upper", test_upper},
};

}  // namespace

TestFunction find_test(std::string_view name) {
  static const auto kByName = [] {
    std::unordered_map<std::string_view, TestFunction> tests;
    for (const TestEntry& entry : kTests) tests.emplace(entry.name, entry.function);
    return tests;
  }();
  const auto found = kByName.find(name);
  return found == kByName.end() ? nullptr : found->second;
}

TestFunction require_test(std::string_view name) {
  const TestFunction function = find_test(name);
  if (function == nullptr) throw TemplateError("no test named '" + std::string(name) + "'");
  return function;
}

}  // namespace augur::jinja
