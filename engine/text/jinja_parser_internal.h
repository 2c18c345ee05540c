// The recursive-descent parser: expressions in jinja_expression_parser.cc, statements in
// jinja_parser.cc. Each method reads what it is named for from the current token on.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_lexer.h"

namespace augur::jinja {

class Parser {
 public:
  /// `source` is normalised; both outlive the parser.
  Parser(std::string_view source, const std::string& where);

  Program run();

 private:
  // Brackets, operators and blocks inside each other: what bounds the recursion of this parser.
  static constexpr int kMaxNesting = 100;
  // Levels of an expression tree, which also grows along chains such as a + b + c.
  static constexpr int kMaxExpressionDepth = 250;

  class NestingGuard {
   public:
    explicit NestingGuard(Parser& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxNesting) parser_.fail("nested too deeply");
    }
    ~NestingGuard() { --parser_.nesting_; }
    NestingGuard(const NestingGuard&) = delete;
    NestingGuard& operator=(const NestingGuard&) = delete;

   private:
    Parser& parser_;
  };

  // Tokens.
  const Token& current() const { return tokens_[place_]; }
  const Token& look() const { return tokens_[std::min(place_ + 1, tokens_.size() - 1)]; }
  const Token& advance();
  bool at_operator(std::string_view text) const;
  bool at_name(std::string_view text) const;
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);
  void expect_block_end();
  std::string take_name(std::string_view what);
  [[noreturn]] void fail(const std::string& what) const { fail(what, current()); }
  [[noreturn]] void fail(const std::string& what, const Token& token) const;

  // Names.
  NameId intern(const std::string& name);
  NameId use_name(const std::string& name);
  int num_uses(NameId name) const { return num_uses_[static_cast<size_t>(name)]; }

  // Statements.
  Body parse_body(std::initializer_list<std::string_view> end_names);
  Body parse_block(std::initializer_list<std::string_view> end_names);
  void parse_statement(Body& body);
  void check_supported(const std::string& name) const;
  StatementPointer parse_if();
  StatementPointer parse_for();
  StatementPointer parse_set();
  StatementPointer parse_macro();
  StatementPointer parse_call_block();
  StatementPointer parse_filter_block();
  StatementPointer parse_with();
  StatementPointer parse_generation();
  StatementPointer parse_loop_control();
  Target parse_target(bool allows_attribute);
  Target parse_target_item();
  std::vector<MacroParameter> parse_parameters();
  void parse_macro_body(MacroStatement& macro, std::string_view end_name);
  Body parse_function_body(std::string_view end_name);

  // Expressions.
  ExpressionPointer parse_expression(bool allows_conditional = true);
  ExpressionPointer parse_tuple(bool allows_conditional, std::string_view end_name = {});
  ExpressionPointer parse_conditional();
  ExpressionPointer parse_or();
  ExpressionPointer parse_and();
  ExpressionPointer parse_not();
  ExpressionPointer parse_compare();
  ExpressionPointer parse_sum();
  ExpressionPointer parse_concat();
  ExpressionPointer parse_product();
  ExpressionPointer parse_power();
  ExpressionPointer parse_unary(bool allows_filter = true);
  ExpressionPointer parse_primary();
  ExpressionPointer parse_parenthesized();
  ExpressionPointer parse_list();
  ExpressionPointer parse_dict();
  ExpressionPointer parse_postfix(ExpressionPointer expression);
  ExpressionPointer parse_filters_and_tests(ExpressionPointer expression);
  ExpressionPointer parse_attribute(ExpressionPointer object);
  ExpressionPointer parse_subscript(ExpressionPointer object);
  ExpressionPointer parse_call(ExpressionPointer callee);
  ExpressionPointer parse_filter(ExpressionPointer input);
  ExpressionPointer parse_filter_chain(ExpressionPointer input);
  ExpressionPointer parse_test(ExpressionPointer input);
  CallArguments parse_arguments();
  std::string parse_dotted_name(std::string_view what);
  bool at_tuple_end(std::string_view end_name) const;

  // Takes the depth of `child` into that of `parent`, and refuses trees that grow too deep.
  void adopt(Expression& parent, const ExpressionPointer& child) const;
  void adopt(Expression& parent, const CallArguments& arguments) const;

  const std::string_view source_;
  const std::string& where_;
  std::vector<Token> tokens_;
  size_t place_ = 0;
  int nesting_ = 0;
  int loop_depth_ = 0;  // of the function body being parsed
  // Filters and tests that do not exist, and where; forgotten inside a condition, where they are
  // an error only if they are reached.
  struct Unknown {
    const Token* token = nullptr;
    std::string what;
  };
  std::vector<Unknown> unknown_;
  std::unordered_map<std::string, NameId> name_ids_;
  std::vector<int> num_uses_;
  Program program_;
};

}  // namespace augur::jinja
