// The expressions of the interpreter.
#include <utility>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_print.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

Value call_value(Runtime& runtime, const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) fail_undefined(callee);
  if (!callee.is(Kind::kCallable)) {
    throw TemplateError("'" + std::string(callee.type_name()) + "' object is not callable");
  }
  return callee.as_callable().call(runtime, arguments);
}

}  // namespace

Value Interpreter::evaluate(const Expression& expression) {
  const DepthGuard guard(*this);
  runtime_.charge_steps(1);
  switch (expression.kind) {
    case Expression::Kind::kLiteral:
      return static_cast<const LiteralExpression&>(expression).value;
    case Expression::Kind::kName:
      return look_up(static_cast<const NameExpression&>(expression).name);
    case Expression::Kind::kCaptured:
      return captured_;
    case Expression::Kind::kCollection:
      return evaluate_collection(static_cast<const CollectionExpression&>(expression));
    case Expression::Kind::kDict:
      return evaluate_dict(static_cast<const DictExpression&>(expression));
    case Expression::Kind::kAttribute:
      return evaluate_attribute(static_cast<const AttributeExpression&>(expression));
    case Expression::Kind::kItem:
      return evaluate_item(static_cast<const ItemExpression&>(expression));
    case Expression::Kind::kSlice:
      return evaluate_slice(static_cast<const SliceExpression&>(expression));
    case Expression::Kind::kCall:
      return evaluate_call(static_cast<const CallExpression&>(expression));
    case Expression::Kind::kFilter:
      return evaluate_filter(static_cast<const FilterExpression&>(expression));
    case Expression::Kind::kTest:
      return evaluate_test(static_cast<const TestExpression&>(expression));
    case Expression::Kind::kUnary:
      return evaluate_unary(static_cast<const UnaryExpression&>(expression));
    case Expression::Kind::kBinary:
      return evaluate_binary(static_cast<const BinaryExpression&>(expression));
    case Expression::Kind::kConcat:
      return evaluate_concat(static_cast<const ConcatExpression&>(expression));
    case Expression::Kind::kCompare:
      return evaluate_compare(static_cast<const CompareExpression&>(expression));
    case Expression::Kind::kLogical: {
      const auto& logical = static_cast<const LogicalExpression&>(expression);
      Value left = evaluate(*logical.left);
      return left.truthy() == logical.is_and ? evaluate(*logical.right) : left;
    }
    case Expression::Kind::kConditional:
      return evaluate_conditional(static_cast<const ConditionalExpression&>(expression));
  }
  return Value();
}

Value Interpreter::evaluate_collection(const CollectionExpression& expression) {
  std::vector<Value> items;
  items.reserve(expression.items.size());
  for (const ExpressionPointer& item : expression.items) items.push_back(evaluate(*item));
  return expression.is_tuple ? runtime_.tuple(std::move(items)) : runtime_.list(std::move(items));
}

Value Interpreter::evaluate_dict(const DictExpression& expression) {
  Dict dict;
  runtime_.charge_items(2 * expression.entries.size());
  for (const auto& [key, value] : expression.entries) {
    Value key_value = evaluate(*key);
    dict.set(std::move(key_value), evaluate(*value));
  }
  return Value::dict(std::move(dict));
}

Value Interpreter::evaluate_attribute(const AttributeExpression& expression) {
  const Value object = evaluate(*expression.object);
  line_ = expression.line;
  return get_attribute(runtime_, object, expression.name);
}

Value Interpreter::evaluate_item(const ItemExpression& expression) {
  const Value object = evaluate(*expression.object);
  const Value key = evaluate(*expression.key);
  line_ = expression.line;
  return get_item(runtime_, object, key);
}

Value Interpreter::evaluate_slice(const SliceExpression& expression) {
  const Value object = evaluate(*expression.object);
  const Value start = evaluate_optional(expression.start);
  const Value stop = evaluate_optional(expression.stop);
  const Value step = evaluate_optional(expression.step);
  line_ = expression.line;
  return get_slice(runtime_, object, start, stop, step);
}

Value Interpreter::evaluate_optional(const ExpressionPointer& expression) {
  return expression == nullptr ? Value::none() : evaluate(*expression);
}

Arguments Interpreter::evaluate_arguments(const CallArguments& arguments) {
  Arguments values;
  values.positional.reserve(arguments.positional.size());
  for (const ExpressionPointer& value : arguments.positional) {
    values.positional.push_back(evaluate(*value));
  }
  for (const auto& [name, value] : arguments.named) {
    values.named.emplace_back(name, evaluate(*value));
  }
  if (arguments.positional_tail != nullptr) {
    for (Value& value : iterate(runtime_, evaluate(*arguments.positional_tail))) {
      values.positional.push_back(std::move(value));
    }
  }
  if (arguments.named_tail != nullptr) {
    const Value tail = evaluate(*arguments.named_tail);
    if (!tail.is(Kind::kDict)) {
      throw TemplateError("the argument after ** must be a mapping, not " +
                          std::string(tail.type_name()));
    }
    for (const auto& [key, value] : tail.as_dict().entries()) {
      if (!key.is_string()) throw TemplateError("keywords must be strings");
      values.named.emplace_back(key.as_string(), value);
    }
  }
  return values;
}

Value Interpreter::evaluate_call(const CallExpression& expression, const Value* caller) {
  Value callee;
  Value receiver;
  const Method* method = nullptr;
  if (expression.callee->kind == Expression::Kind::kAttribute) {
    // A method is called on its receiver without being made a value first.
    const auto& attribute = static_cast<const AttributeExpression&>(*expression.callee);
    runtime_.charge_steps(1);
    receiver = evaluate(*attribute.object);
    line_ = attribute.line;
    method = find_method(receiver, attribute.name);
    if (method == nullptr || method->is_unsafe) {
      callee = get_attribute(runtime_, receiver, attribute.name);
      method = nullptr;
    }
  } else {
    callee = evaluate(*expression.callee);
  }
  Arguments arguments = evaluate_arguments(expression.arguments);
  if (caller != nullptr) arguments.named.emplace_back("caller", *caller);
  line_ = expression.line;
  return method != nullptr ? call_method(runtime_, receiver, *method, arguments)
                           : call_value(runtime_, callee, arguments);
}

Value Interpreter::evaluate_filter(const FilterExpression& expression) {
  const Value input = evaluate(*expression.input);
  const Arguments arguments = evaluate_arguments(expression.arguments);
  line_ = expression.line;
  if (expression.function == nullptr) return require_filter(expression.name)(runtime_, input, {});
  return expression.function(runtime_, input, arguments);
}

Value Interpreter::evaluate_test(const TestExpression& expression) {
  const Value input = evaluate(*expression.input);
  const Arguments arguments = evaluate_arguments(expression.arguments);
  line_ = expression.line;
  if (expression.function == nullptr) require_test(expression.name);
  return Value::boolean(expression.function(runtime_, input, arguments) != expression.is_negated);
}

Value Interpreter::evaluate_unary(const UnaryExpression& expression) {
  const Value operand = evaluate(*expression.operand);
  line_ = expression.line;
  switch (expression.op) {
    case UnaryExpression::Op::kNot:
      return Value::boolean(!operand.truthy());
    case UnaryExpression::Op::kNegate:
      return negate(operand);
    case UnaryExpression::Op::kIdentity:
      return identity(operand);
  }
  return Value();
}

Value Interpreter::evaluate_binary(const BinaryExpression& expression) {
  const Value left = evaluate(*expression.left);
  const Value right = evaluate(*expression.right);
  line_ = expression.line;
  return binary(runtime_, expression.op, left, right);
}

Value Interpreter::evaluate_concat(const ConcatExpression& expression) {
  TextBuilder out(runtime_);
  for (const ExpressionPointer& part : expression.parts) {
    const Value value = evaluate(*part);
    if (value.is_string()) {
      out << value.as_string();
    } else {
      out << to_text(runtime_, value);
    }
  }
  return out.finish();
}

Value Interpreter::evaluate_compare(const CompareExpression& expression) {
  Value left = evaluate(*expression.first);
  for (const auto& [op, operand] : expression.rest) {
    Value right = evaluate(*operand);
    line_ = expression.line;
    if (!compare(runtime_, op, left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::evaluate_conditional(const ConditionalExpression& expression) {
  if (evaluate(*expression.condition).truthy()) return evaluate(*expression.if_true);
  if (expression.if_false != nullptr) return evaluate(*expression.if_false);
  return Value::undefined("the inline if-expression on line " + std::to_string(expression.line) +
                          " evaluated to false and no else section was defined.");
}

}  // namespace augur::jinja
