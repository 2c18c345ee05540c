// Runs a Program.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

/// One rendering. Variables live in scopes: a loop makes one for each iteration, a macro one for
/// each call, and what is set inside is gone afterwards, as in Jinja2. One known difference: names
/// are looked up when they are used, where Jinja2 decides from the text that a variable set further
/// down hides one of the input.
///
/// Recursion is bounded by kMaxDepth and needs at most about 1 MB of stack.
class Interpreter {
 public:
  /// Both outlive the interpreter.
  Interpreter(const Program& program, Runtime& runtime);

  /// Sets a variable of the input, if the program names it anywhere.
  void set_variable(std::string_view name, Value value);

  /// Throws TemplateError with the line it happened at. Call once.
  std::string run();

  struct Scope {
    Scope* parent = nullptr;
    std::vector<std::pair<NameId, Value>> variables;
    bool is_captured = false;  // a macro refers to it, so it is not used again
  };

  /// What calling a macro prints.
  Value call_macro(const MacroStatement& macro, Scope& closure, const Arguments& arguments);

 private:
  // Expressions and statements inside each other, macro bodies included.
  static constexpr int kMaxDepth = 1000;
  class DepthGuard;

  enum class Flow : uint8_t { kNormal, kBreak, kContinue };

  // Statements: jinja_interpreter.cc.
  Flow execute(const Body& body);
  Flow execute(const Statement& statement);
  Flow execute_if(const IfStatement& statement);
  Flow execute_for(const ForStatement& statement);
  Flow execute_set_block(const SetBlockStatement& statement);
  void execute_call_block(const CallBlockStatement& statement);
  Flow execute_filter_block(const FilterBlockStatement& statement);
  Flow execute_with(const WithStatement& statement);
  Flow execute_scope(const ScopeStatement& statement);
  Flow execute_captured(const Body& body, std::string& text);
  Value make_macro(const MacroStatement& macro);
  Value filter_captured(const Expression& filters, std::string text);
  void emit(std::string_view text);

  // Variables.
  Scope& enter_scope(Scope* parent);
  void leave_scope(Scope& scope);
  void assign(const Target& target, const Value& value);
  void assign(NameId name, Value value);
  const Value& look_up(NameId name) const;

  // Expressions: jinja_evaluate.cc.
  Value evaluate(const Expression& expression);
  Value evaluate_collection(const CollectionExpression& expression);
  Value evaluate_dict(const DictExpression& expression);
  Value evaluate_attribute(const AttributeExpression& expression);
  Value evaluate_item(const ItemExpression& expression);
  Value evaluate_slice(const SliceExpression& expression);
  Value evaluate_call(const CallExpression& expression, const Value* caller = nullptr);
  Value evaluate_filter(const FilterExpression& expression);
  Value evaluate_test(const TestExpression& expression);
  Value evaluate_unary(const UnaryExpression& expression);
  Value evaluate_binary(const BinaryExpression& expression);
  Value evaluate_concat(const ConcatExpression& expression);
  Value evaluate_compare(const CompareExpression& expression);
  Value evaluate_conditional(const ConditionalExpression& expression);
  Value evaluate_optional(const ExpressionPointer& expression);
  Arguments evaluate_arguments(const CallArguments& arguments);

  const Program& program_;
  Runtime& runtime_;
  std::string result_;
  std::string* output_ = &result_;  // or the text of the block being captured
  Value captured_;                  // of the innermost filter block or block assignment
  int line_ = 0;                    // of the node that runs
  int depth_ = 0;
  std::vector<std::unique_ptr<Scope>> scopes_;
  std::vector<Scope*> free_scopes_;
  Scope* scope_;
};

class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(Interpreter& interpreter);
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int& depth_;
};

}  // namespace augur::jinja
