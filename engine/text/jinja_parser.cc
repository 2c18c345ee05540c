#include "engine/text/jinja_parser.h"

#include "configs/config_error.h"
#include "engine/text/jinja_globals.h"
#include "engine/text/jinja_parser_internal.h"

namespace augur::jinja {

Parser::Parser(std::string_view source, const std::string& where)
    : source_(source), where_(where), tokens_(tokenize(source, where)) {
  program_.where = where;
}

Program Parser::run() {
  program_.loop = intern("loop");
  program_.caller = intern("caller");
  program_.varargs = intern("varargs");
  program_.kwargs = intern("kwargs");
  program_.body = parse_body({});
  if (!unknown_.empty()) fail(unknown_.front().what, *unknown_.front().token);
  for (const std::string& name : program_.names) {
    program_.defaults.push_back(
        find_global(name).value_or(Value::undefined("'" + name + "' is undefined")));
  }
  return std::move(program_);
}

void Parser::fail(const std::string& what, const Token& token) const {
  throw ConfigError(describe_position(source_, token.position, where_), what);
}

const Token& Parser::advance() {
  const Token& token = tokens_[place_];
  if (place_ + 1 < tokens_.size()) ++place_;
  return token;
}

bool Parser::at_operator(std::string_view text) const {
  return current().type == Token::Type::kOperator && current().text == text;
}

bool Parser::at_name(std::string_view text) const {
  return current().type == Token::Type::kName && current().text == text;
}

bool Parser::skip_operator(std::string_view text) {
  const bool is_there = at_operator(text);
  if (is_there) advance();
  return is_there;
}

bool Parser::skip_name(std::string_view text) {
  const bool is_there = at_name(text);
  if (is_there) advance();
  return is_there;
}

void Parser::expect_operator(std::string_view text) {
  if (!skip_operator(text)) {
    fail("expected '" + std::string(text) + "', got " + describe_token(current()));
  }
}

void Parser::expect_name(std::string_view text) {
  if (!skip_name(text)) {
    fail("expected '" + std::string(text) + "', got " + describe_token(current()));
  }
}

void Parser::expect_block_end() {
  if (current().type != Token::Type::kBlockEnd) {
    fail("expected '%}', got " + describe_token(current()));
  }
  advance();
}

std::string Parser::take_name(std::string_view what) {
  if (current().type != Token::Type::kName) {
    fail("expected " + std::string(what) + ", got " + describe_token(current()));
  }
  return advance().text;
}

NameId Parser::intern(const std::string& name) {
  const auto [place, is_new] = name_ids_.emplace(name, static_cast<NameId>(name_ids_.size()));
  if (is_new) {
    program_.names.push_back(name);
    num_uses_.push_back(0);
  }
  return place->second;
}

NameId Parser::use_name(const std::string& name) {
  const NameId id = intern(name);
  ++num_uses_[static_cast<size_t>(id)];
  return id;
}

// Up to {% followed by one of `end_names`, which is left as the current token, or, if there are
// none, to the end of the template.
Body Parser::parse_body(std::initializer_list<std::string_view> end_names) {
  const NestingGuard guard(*this);
  Body body;
  for (;;) {
    const Token& token = current();
    switch (token.type) {
      case Token::Type::kData:
        body.push_back(std::make_unique<TextStatement>(token.line, advance().text));
        break;
      case Token::Type::kVariableBegin: {
        auto output = std::make_unique<OutputStatement>(advance().line);
        output->value = parse_tuple(/*allows_conditional=*/true);
        if (current().type != Token::Type::kVariableEnd) {
          fail("expected '}}', got " + describe_token(current()));
        }
        advance();
        body.push_back(std::move(output));
        break;
      }
      case Token::Type::kBlockBegin:
        advance();
        for (std::string_view end : end_names) {
          if (at_name(end)) return body;
        }
        parse_statement(body);
        expect_block_end();
        break;
      default: {
        if (end_names.size() == 0) return body;
        std::string what = "the template ends where ";
        for (std::string_view end : end_names) {
          what += (end == *end_names.begin() ? "'" : " or '") + std::string(end) + "'";
        }
        fail(what + " was expected");
      }
    }
  }
}

// The end of a tag, which may have a colon before it, and a body.
Body Parser::parse_block(std::initializer_list<std::string_view> end_names) {
  skip_operator(":");
  expect_block_end();
  return parse_body(end_names);
}

void Parser::parse_statement(Body& body) {
  if (current().type != Token::Type::kName) {
    fail("expected the name of a tag, got " + describe_token(current()));
  }
  const std::string& name = current().text;
  if (name == "if") return body.push_back(parse_if());
  if (name == "for") return body.push_back(parse_for());
  if (name == "set") return body.push_back(parse_set());
  if (name == "macro") return body.push_back(parse_macro());
  if (name == "call") return body.push_back(parse_call_block());
  if (name == "filter") return body.push_back(parse_filter_block());
  if (name == "with") return body.push_back(parse_with());
  if (name == "generation") return body.push_back(parse_generation());
  if (name == "break" || name == "continue") return body.push_back(parse_loop_control());
  if (name == "print") {
    advance();
    while (current().type != Token::Type::kBlockEnd) {
      auto output = std::make_unique<OutputStatement>(current().line);
      output->value = parse_expression();
      body.push_back(std::move(output));
      if (!skip_operator(",")) break;
    }
    return;
  }
  check_supported(name);
}

// Throws, saying whether the tag is unknown, out of place or left out of this engine.
void Parser::check_supported(const std::string& name) const {
  for (std::string_view refused :
       {"extends", "block", "include", "import", "from", "autoescape", "trans", "do", "debug"}) {
    if (name == refused) fail("the tag '" + name + "' is not supported in chat templates");
  }
  for (std::string_view end : {"elif", "else", "endif", "endfor", "endset", "endmacro", "endcall",
                               "endfilter", "endwith", "endgeneration"}) {
    if (name == end) fail("'" + name + "' without the tag that it belongs to");
  }
  fail("unknown tag '" + name + "'");
}

StatementPointer Parser::parse_if() {
  const size_t num_unknown = unknown_.size();
  auto statement = std::make_unique<IfStatement>(current().line);
  do {
    advance();  // if, or elif
    ExpressionPointer condition = parse_tuple(/*allows_conditional=*/false);
    Body body = parse_block({"elif", "else", "endif"});
    statement->branches.emplace_back(std::move(condition), std::move(body));
  } while (at_name("elif"));
  if (skip_name("else")) statement->else_body = parse_block({"endif"});
  expect_name("endif");
  unknown_.resize(num_unknown);
  return statement;
}

StatementPointer Parser::parse_for() {
  auto statement = std::make_unique<ForStatement>(advance().line);
  ++loop_depth_;  // `loop` is taken in the target already
  statement->target = parse_target(/*allows_attribute=*/false);
  --loop_depth_;
  expect_name("in");
  statement->iterable = parse_tuple(/*allows_conditional=*/false, /*end_name=*/"recursive");
  if (skip_name("if")) statement->filter = parse_expression();
  if (at_name("recursive")) fail("recursive loops are not supported");
  const int num_loop_uses = num_uses(program_.loop);
  ++loop_depth_;
  statement->body = parse_block({"endfor", "else"});
  --loop_depth_;
  statement->uses_loop = num_uses(program_.loop) > num_loop_uses;
  if (skip_name("else")) statement->else_body = parse_block({"endfor"});
  expect_name("endfor");
  return statement;
}

StatementPointer Parser::parse_set() {
  const int line = advance().line;
  Target target = parse_target(/*allows_attribute=*/true);
  if (skip_operator("=")) {
    auto statement = std::make_unique<SetStatement>(line);
    statement->target = std::move(target);
    statement->value = parse_tuple(/*allows_conditional=*/true);
    return statement;
  }
  auto statement = std::make_unique<SetBlockStatement>(line);
  statement->target = std::move(target);
  statement->value = parse_filter_chain(std::make_unique<CapturedExpression>(line));
  statement->body = parse_block({"endset"});
  expect_name("endset");
  return statement;
}

// A name, names with commas between them, or (where allowed) an attribute of a namespace.
Target Parser::parse_target(bool allows_attribute) {
  if (allows_attribute && current().type == Token::Type::kName &&
      look().type == Token::Type::kOperator && look().text == ".") {
    Target target;
    target.kind = Target::Kind::kAttribute;
    target.name = use_name(advance().text);
    advance();
    target.attribute = take_name("the name of an attribute");
    return target;
  }
  Target first = parse_target_item();
  if (!at_operator(",")) return first;
  Target tuple;
  tuple.kind = Target::Kind::kTuple;
  tuple.items.push_back(std::move(first));
  while (skip_operator(",")) {
    if (at_name("in") || at_operator("=") || at_operator(")")) break;
    tuple.items.push_back(parse_target_item());
  }
  return tuple;
}

Target Parser::parse_target_item() {
  if (at_operator("(")) {
    const NestingGuard guard(*this);
    advance();
    Target inside = parse_target(/*allows_attribute=*/false);
    expect_operator(")");
    return inside;
  }
  const Token& token = current();
  Target target;
  const std::string name = take_name("a name to assign to");
  for (std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) fail("cannot assign to '" + name + "'", token);
  }
  if (name == "loop" && loop_depth_ > 0) fail("cannot assign to 'loop' inside a loop", token);
  target.name = intern(name);
  return target;
}

// A body that runs as a function of its own, so that loops around it cannot be left from inside.
Body Parser::parse_function_body(std::string_view end_name) {
  const int outer_loop_depth = std::exchange(loop_depth_, 0);
  Body body = parse_block({end_name});
  loop_depth_ = outer_loop_depth;
  expect_name(end_name);
  return body;
}

// (a, b=1)
std::vector<MacroParameter> Parser::parse_parameters() {
  std::vector<MacroParameter> parameters;
  expect_operator("(");
  while (!at_operator(")")) {
    const Token& token = current();
    MacroParameter parameter;
    parameter.text = take_name("the name of a parameter");
    parameter.name = intern(parameter.text);
    if (skip_operator("=")) {
      parameter.fallback = parse_expression();
    } else if (!parameters.empty() && parameters.back().fallback != nullptr) {
      fail("a parameter without default follows one with a default", token);
    }
    parameters.push_back(std::move(parameter));
    if (!skip_operator(",")) break;
  }
  expect_operator(")");
  return parameters;
}

void Parser::parse_macro_body(MacroStatement& macro, std::string_view end_name) {
  const int num_caller_uses = num_uses(program_.caller);
  const int num_varargs_uses = num_uses(program_.varargs);
  const int num_kwargs_uses = num_uses(program_.kwargs);
  macro.body = parse_function_body(end_name);
  macro.uses_caller = num_uses(program_.caller) > num_caller_uses;
  macro.uses_varargs = num_uses(program_.varargs) > num_varargs_uses;
  macro.uses_kwargs = num_uses(program_.kwargs) > num_kwargs_uses;
}

StatementPointer Parser::parse_macro() {
  auto macro = std::make_unique<MacroStatement>(advance().line);
  macro->text = take_name("the name of the macro");
  macro->name = intern(macro->text);
  macro->parameters = parse_parameters();
  parse_macro_body(*macro, "endmacro");
  return macro;
}

StatementPointer Parser::parse_call_block() {
  auto statement = std::make_unique<CallBlockStatement>(advance().line);
  statement->caller = std::make_unique<MacroStatement>(statement->line);
  statement->caller->text = "caller";
  statement->caller->name = program_.caller;
  if (at_operator("(")) statement->caller->parameters = parse_parameters();
  const Token& begin = current();
  statement->call = parse_expression();
  if (statement->call->kind != Expression::Kind::kCall) fail("expected the call of a macro", begin);
  parse_macro_body(*statement->caller, "endcall");
  return statement;
}

StatementPointer Parser::parse_filter_block() {
  auto statement = std::make_unique<FilterBlockStatement>(advance().line);
  statement->value =
      parse_filter_chain(parse_filter(std::make_unique<CapturedExpression>(statement->line)));
  statement->body = parse_block({"endfilter"});
  expect_name("endfilter");
  return statement;
}

StatementPointer Parser::parse_with() {
  auto statement = std::make_unique<WithStatement>(advance().line);
  while (current().type != Token::Type::kBlockEnd) {
    if (!statement->variables.empty()) expect_operator(",");
    Target target = parse_target_item();
    expect_operator("=");
    ExpressionPointer value = parse_expression();
    statement->variables.emplace_back(std::move(target), std::move(value));
  }
  statement->body = parse_block({"endwith"});
  expect_name("endwith");
  return statement;
}

// What transformers adds to mark the tokens of the assistant; here only its body counts.
StatementPointer Parser::parse_generation() {
  auto statement = std::make_unique<ScopeStatement>(advance().line);
  statement->body = parse_function_body("endgeneration");
  return statement;
}

StatementPointer Parser::parse_loop_control() {
  const Token& token = advance();
  if (loop_depth_ == 0) fail("'" + token.text + "' outside of a loop", token);
  if (token.text == "break") return std::make_unique<BreakStatement>(token.line);
  return std::make_unique<ContinueStatement>(token.line);
}

std::shared_ptr<const Program> parse(std::string_view source, const std::string& where) {
  const std::string normalized = normalize_newlines(source);
  return std::make_shared<const Program>(Parser(normalized, where).run());
}

}  // namespace augur::jinja
