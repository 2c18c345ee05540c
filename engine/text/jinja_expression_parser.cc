#include <algorithm>

#include "engine/text/jinja_parser_internal.h"

namespace augur::jinja {
namespace {

struct CompareSymbol {
  std::string_view text;
  CompareOp op;
};
constexpr CompareSymbol kCompareSymbols[] = {
    {"==", CompareOp::kEqual},        {"!=", CompareOp::kNotEqual}, {"<=", CompareOp::kLessEqual},
    {">=", CompareOp::kGreaterEqual}, {"<", CompareOp::kLess},      {">", CompareOp::kGreater},
};

std::unique_ptr<LiteralExpression> make_literal(const Token& token, Value value) {
  return std::make_unique<LiteralExpression>(token.line, std::move(value));
}

}  // namespace

void Parser::adopt(Expression& parent, const ExpressionPointer& child) const {
  if (child == nullptr) return;
  parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > kMaxExpressionDepth) {
    fail("the expression is more than " + std::to_string(kMaxExpressionDepth) + " levels deep");
  }
}

void Parser::adopt(Expression& parent, const CallArguments& arguments) const {
  for (const ExpressionPointer& value : arguments.positional) adopt(parent, value);
  for (const auto& [name, value] : arguments.named) adopt(parent, value);
  adopt(parent, arguments.positional_tail);
  adopt(parent, arguments.named_tail);
}

ExpressionPointer Parser::parse_expression(bool allows_conditional) {
  const NestingGuard guard(*this);
  return allows_conditional ? parse_conditional() : parse_or();
}

bool Parser::at_tuple_end(std::string_view end_name) const {
  return current().type == Token::Type::kVariableEnd || current().type == Token::Type::kBlockEnd ||
         at_operator(")") || (!end_name.empty() && at_name(end_name));
}

// One expression, or several with commas between them, which make a tuple.
ExpressionPointer Parser::parse_tuple(bool allows_conditional, std::string_view end_name) {
  if (at_tuple_end(end_name)) fail("expected an expression, got " + describe_token(current()));
  const int line = current().line;
  ExpressionPointer first = parse_expression(allows_conditional);
  if (!at_operator(",")) return first;
  auto tuple = std::make_unique<CollectionExpression>(line, /*is_tuple=*/true);
  adopt(*tuple, first);
  tuple->items.push_back(std::move(first));
  while (skip_operator(",") && !at_tuple_end(end_name)) {
    tuple->items.push_back(parse_expression(allows_conditional));
    adopt(*tuple, tuple->items.back());
  }
  return tuple;
}

ExpressionPointer Parser::parse_conditional() {
  const size_t num_unknown = unknown_.size();
  ExpressionPointer value = parse_or();
  if (!at_name("if")) return value;
  while (at_name("if")) {
    auto conditional = std::make_unique<ConditionalExpression>(advance().line);
    conditional->if_true = std::move(value);
    conditional->condition = parse_or();
    if (skip_name("else")) {
      const NestingGuard guard(*this);
      conditional->if_false = parse_conditional();
    }
    adopt(*conditional, conditional->if_true);
    adopt(*conditional, conditional->condition);
    adopt(*conditional, conditional->if_false);
    value = std::move(conditional);
  }
  unknown_.resize(num_unknown);
  return value;
}

ExpressionPointer Parser::parse_or() {
  ExpressionPointer left = parse_and();
  while (at_name("or")) {
    auto logical = std::make_unique<LogicalExpression>(advance().line, /*is_and=*/false);
    logical->left = std::move(left);
    logical->right = parse_and();
    adopt(*logical, logical->left);
    adopt(*logical, logical->right);
    left = std::move(logical);
  }
  return left;
}

ExpressionPointer Parser::parse_and() {
  ExpressionPointer left = parse_not();
  while (at_name("and")) {
    auto logical = std::make_unique<LogicalExpression>(advance().line, /*is_and=*/true);
    logical->left = std::move(left);
    logical->right = parse_not();
    adopt(*logical, logical->left);
    adopt(*logical, logical->right);
    left = std::move(logical);
  }
  return left;
}

ExpressionPointer Parser::parse_not() {
  if (!at_name("not")) return parse_compare();
  const NestingGuard guard(*this);
  auto negation = std::make_unique<UnaryExpression>(advance().line, UnaryExpression::Op::kNot);
  negation->operand = parse_not();
  adopt(*negation, negation->operand);
  return negation;
}

ExpressionPointer Parser::parse_compare() {
  const int line = current().line;
  ExpressionPointer first = parse_sum();
  std::unique_ptr<CompareExpression> comparison;
  for (;;) {
    const auto* symbol = std::find_if(std::begin(kCompareSymbols), std::end(kCompareSymbols),
                                      [&](const auto& s) { return at_operator(s.text); });
    CompareOp op = CompareOp::kIn;
    if (symbol != std::end(kCompareSymbols)) {
      advance();
      op = symbol->op;
    } else if (at_name("not") && look().type == Token::Type::kName && look().text == "in") {
      advance();
      advance();
      op = CompareOp::kNotIn;
    } else if (!skip_name("in")) {
      break;
    }
    if (comparison == nullptr) {
      comparison = std::make_unique<CompareExpression>(line);
      comparison->first = std::move(first);
      adopt(*comparison, comparison->first);
    }
    comparison->rest.emplace_back(op, parse_sum());
    adopt(*comparison, comparison->rest.back().second);
  }
  if (comparison == nullptr) return first;
  return comparison;
}

ExpressionPointer Parser::parse_sum() {
  ExpressionPointer left = parse_concat();
  while (at_operator("+") || at_operator("-")) {
    const BinaryOp op = at_operator("+") ? BinaryOp::kAdd : BinaryOp::kSubtract;
    auto sum = std::make_unique<BinaryExpression>(advance().line, op);
    sum->left = std::move(left);
    sum->right = parse_concat();
    adopt(*sum, sum->left);
    adopt(*sum, sum->right);
    left = std::move(sum);
  }
  return left;
}

ExpressionPointer Parser::parse_concat() {
  ExpressionPointer first = parse_product();
  if (!at_operator("~")) return first;
  auto concat = std::make_unique<ConcatExpression>(current().line);
  adopt(*concat, first);
  concat->parts.push_back(std::move(first));
  while (skip_operator("~")) {
    concat->parts.push_back(parse_product());
    adopt(*concat, concat->parts.back());
  }
  return concat;
}

ExpressionPointer Parser::parse_product() {
  ExpressionPointer left = parse_power();
  for (;;) {
    BinaryOp op;
    if (at_operator("*")) {
      op = BinaryOp::kMultiply;
    } else if (at_operator("/")) {
      op = BinaryOp::kDivide;
    } else if (at_operator("//")) {
      op = BinaryOp::kFloorDivide;
    } else if (at_operator("%")) {
      op = BinaryOp::kModulo;
    } else {
      return left;
    }
    auto product = std::make_unique<BinaryExpression>(advance().line, op);
    product->left = std::move(left);
    product->right = parse_power();
    adopt(*product, product->left);
    adopt(*product, product->right);
    left = std::move(product);
  }
}

// As in Jinja2, and unlike Python: from the left, and a sign binds tighter.
ExpressionPointer Parser::parse_power() {
  ExpressionPointer left = parse_unary();
  while (at_operator("**")) {
    auto power = std::make_unique<BinaryExpression>(advance().line, BinaryOp::kPower);
    power->left = std::move(left);
    power->right = parse_unary();
    adopt(*power, power->left);
    adopt(*power, power->right);
    left = std::move(power);
  }
  return left;
}

ExpressionPointer Parser::parse_unary(bool allows_filter) {
  ExpressionPointer expression;
  if (at_operator("-") || at_operator("+")) {
    const NestingGuard guard(*this);
    const auto op =
        at_operator("-") ? UnaryExpression::Op::kNegate : UnaryExpression::Op::kIdentity;
    auto unary = std::make_unique<UnaryExpression>(advance().line, op);
    unary->operand = parse_unary(/*allows_filter=*/false);
    adopt(*unary, unary->operand);
    expression = std::move(unary);
  } else {
    expression = parse_primary();
  }
  expression = parse_postfix(std::move(expression));
  return allows_filter ? parse_filters_and_tests(std::move(expression)) : std::move(expression);
}

ExpressionPointer Parser::parse_primary() {
  const Token& token = current();
  switch (token.type) {
    case Token::Type::kName: {
      advance();
      const std::string& name = token.text;
      if (name == "true" || name == "True") return make_literal(token, Value::boolean(true));
      if (name == "false" || name == "False") return make_literal(token, Value::boolean(false));
      if (name == "none" || name == "None") return make_literal(token, Value::none());
      return std::make_unique<NameExpression>(token.line, use_name(name));
    }
    case Token::Type::kString: {
      std::string text;
      while (current().type == Token::Type::kString) text += advance().text;
      return make_literal(token, Value::text(std::move(text)));
    }
    case Token::Type::kInteger:
    case Token::Type::kFloat:
      return make_literal(token, advance().number);
    default:
      break;
  }
  if (at_operator("(")) return parse_parenthesized();
  if (at_operator("[")) return parse_list();
  if (at_operator("{")) return parse_dict();
  fail("expected an expression, got " + describe_token(token));
}

ExpressionPointer Parser::parse_parenthesized() {
  const int line = advance().line;
  if (skip_operator(")")) {
    return std::make_unique<CollectionExpression>(line, /*is_tuple=*/true);
  }
  ExpressionPointer inside = parse_tuple(/*allows_conditional=*/true);
  expect_operator(")");
  return inside;
}

ExpressionPointer Parser::parse_list() {
  auto list = std::make_unique<CollectionExpression>(advance().line, /*is_tuple=*/false);
  while (!at_operator("]")) {
    list->items.push_back(parse_expression());
    adopt(*list, list->items.back());
    if (!skip_operator(",")) break;
  }
  expect_operator("]");
  return list;
}

ExpressionPointer Parser::parse_dict() {
  auto dict = std::make_unique<DictExpression>(advance().line);
  while (!at_operator("}")) {
    ExpressionPointer key = parse_expression();
    expect_operator(":");
    ExpressionPointer value = parse_expression();
    adopt(*dict, key);
    adopt(*dict, value);
    dict->entries.emplace_back(std::move(key), std::move(value));
    if (!skip_operator(",")) break;
  }
  expect_operator("}");
  return dict;
}

ExpressionPointer Parser::parse_postfix(ExpressionPointer expression) {
  for (;;) {
    if (at_operator(".")) {
      expression = parse_attribute(std::move(expression));
    } else if (at_operator("[")) {
      expression = parse_subscript(std::move(expression));
    } else if (at_operator("(")) {
      expression = parse_call(std::move(expression));
    } else {
      return expression;
    }
  }
}

ExpressionPointer Parser::parse_filters_and_tests(ExpressionPointer expression) {
  for (;;) {
    if (at_operator("|")) {
      advance();
      expression = parse_filter(std::move(expression));
    } else if (at_name("is")) {
      expression = parse_test(std::move(expression));
    } else if (at_operator("(")) {
      expression = parse_call(std::move(expression));
    } else {
      return expression;
    }
  }
}

ExpressionPointer Parser::parse_attribute(ExpressionPointer object) {
  const int line = advance().line;
  if (current().type == Token::Type::kInteger) {
    auto item = std::make_unique<ItemExpression>(line);
    item->object = std::move(object);
    const Token& token = advance();
    item->key = make_literal(token, token.number);
    adopt(*item, item->object);
    return item;
  }
  auto attribute = std::make_unique<AttributeExpression>(line);
  attribute->object = std::move(object);
  attribute->name = take_name("the name of an attribute or a number");
  adopt(*attribute, attribute->object);
  return attribute;
}

ExpressionPointer Parser::parse_subscript(ExpressionPointer object) {
  const int line = advance().line;
  if (at_operator("]")) fail("expected an index or a slice, got ']'");
  ExpressionPointer start;
  if (!at_operator(":")) start = parse_expression();
  if (!at_operator(":")) {
    if (at_operator(",")) {  // x[1, 2] has the tuple as its key
      auto tuple = std::make_unique<CollectionExpression>(line, /*is_tuple=*/true);
      adopt(*tuple, start);
      tuple->items.push_back(std::move(start));
      while (skip_operator(",")) {
        tuple->items.push_back(parse_expression());
        adopt(*tuple, tuple->items.back());
      }
      start = std::move(tuple);
    }
    expect_operator("]");
    auto item = std::make_unique<ItemExpression>(line);
    item->object = std::move(object);
    item->key = std::move(start);
    adopt(*item, item->object);
    adopt(*item, item->key);
    return item;
  }
  auto slice = std::make_unique<SliceExpression>(line);
  slice->object = std::move(object);
  slice->start = std::move(start);
  expect_operator(":");
  if (!at_operator(":") && !at_operator("]")) slice->stop = parse_expression();
  if (skip_operator(":") && !at_operator("]")) slice->step = parse_expression();
  expect_operator("]");
  adopt(*slice, slice->object);
  adopt(*slice, slice->start);
  adopt(*slice, slice->stop);
  adopt(*slice, slice->step);
  return slice;
}

ExpressionPointer Parser::parse_call(ExpressionPointer callee) {
  auto call = std::make_unique<CallExpression>(current().line);
  call->callee = std::move(callee);
  call->arguments = parse_arguments();
  adopt(*call, call->callee);
  adopt(*call, call->arguments);
  return call;
}

CallArguments Parser::parse_arguments() {
  CallArguments arguments;
  expect_operator("(");
  while (!at_operator(")")) {
    const Token& begin = current();
    bool is_misplaced = arguments.named_tail != nullptr;
    if (skip_operator("*")) {
      is_misplaced = is_misplaced || arguments.positional_tail != nullptr;
      arguments.positional_tail = parse_expression();
    } else if (skip_operator("**")) {
      arguments.named_tail = parse_expression();
    } else if (begin.type == Token::Type::kName && look().type == Token::Type::kOperator &&
               look().text == "=") {
      advance();
      advance();
      arguments.named.emplace_back(begin.text, parse_expression());
    } else {
      is_misplaced =
          is_misplaced || arguments.positional_tail != nullptr || !arguments.named.empty();
      arguments.positional.push_back(parse_expression());
    }
    if (is_misplaced) fail("this argument may not follow the ones before it", begin);
    if (!skip_operator(",")) break;
  }
  expect_operator(")");
  return arguments;
}

std::string Parser::parse_dotted_name(std::string_view what) {
  std::string name = take_name(what);
  while (skip_operator(".")) name += "." + take_name(what);
  return name;
}

// After the bar.
ExpressionPointer Parser::parse_filter(ExpressionPointer input) {
  const Token& begin = current();
  auto filter = std::make_unique<FilterExpression>(begin.line);
  filter->name = parse_dotted_name("the name of a filter");
  filter->function = find_filter(filter->name);
  if (filter->function == nullptr) {
    unknown_.push_back({&begin, "no filter named '" + filter->name + "'"});
  }
  filter->input = std::move(input);
  if (at_operator("(")) filter->arguments = parse_arguments();
  adopt(*filter, filter->input);
  adopt(*filter, filter->arguments);
  return filter;
}

ExpressionPointer Parser::parse_filter_chain(ExpressionPointer input) {
  while (skip_operator("|")) input = parse_filter(std::move(input));
  return input;
}

ExpressionPointer Parser::parse_test(ExpressionPointer input) {
  auto test = std::make_unique<TestExpression>(advance().line);
  test->is_negated = skip_name("not");
  const Token& begin = current();
  test->name = parse_dotted_name("the name of a test");
  test->function = find_test(test->name);
  if (test->function == nullptr) {
    unknown_.push_back({&begin, "no test named '" + test->name + "'"});
  }
  test->input = std::move(input);
  const Token& next = current();
  const bool has_operand = next.type == Token::Type::kString ||
                           next.type == Token::Type::kInteger || next.type == Token::Type::kFloat ||
                           at_operator("[") || at_operator("{") ||
                           (next.type == Token::Type::kName && next.text != "else" &&
                            next.text != "or" && next.text != "and");
  if (at_operator("(")) {
    test->arguments = parse_arguments();
  } else if (has_operand) {
    if (at_name("is")) fail("tests cannot be chained with is");
    const NestingGuard guard(*this);
    test->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  adopt(*test, test->input);
  adopt(*test, test->arguments);
  return test;
}

}  // namespace augur::jinja
