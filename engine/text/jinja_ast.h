// The parsed form of a template.
//
// Every node records the depth of the tree below it; the parser bounds it, so that evaluating and
// freeing a tree may recurse.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_value.h"

namespace augur::jinja {

/// Index into Program::names.
using NameId = int32_t;

struct Expression {
  enum class Kind : uint8_t {
    kLiteral,
    kName,
    kCaptured,
    kCollection,
    kDict,
    kAttribute,
    kItem,
    kSlice,
    kCall,
    kFilter,
    kTest,
    kUnary,
    kBinary,
    kConcat,
    kCompare,
    kLogical,
    kConditional,
  };
  Expression(Kind kind, int line) : kind(kind), line(line) {}
  virtual ~Expression() = default;

  const Kind kind;
  const int line;
  int depth = 1;  // 1 + that of its deepest child
};
using ExpressionPointer = std::unique_ptr<Expression>;

struct LiteralExpression : Expression {
  LiteralExpression(int line, Value value)
      : Expression(Kind::kLiteral, line), value(std::move(value)) {}
  Value value;
};

struct NameExpression : Expression {
  NameExpression(int line, NameId name) : Expression(Kind::kName, line), name(name) {}
  NameId name;
};

/// The body of the filter block or block assignment around it.
struct CapturedExpression : Expression {
  explicit CapturedExpression(int line) : Expression(Kind::kCaptured, line) {}
};

struct CollectionExpression : Expression {
  CollectionExpression(int line, bool is_tuple)
      : Expression(Kind::kCollection, line), is_tuple(is_tuple) {}
  bool is_tuple;
  std::vector<ExpressionPointer> items;
};

struct DictExpression : Expression {
  explicit DictExpression(int line) : Expression(Kind::kDict, line) {}
  std::vector<std::pair<ExpressionPointer, ExpressionPointer>> entries;
};

struct AttributeExpression : Expression {
  explicit AttributeExpression(int line) : Expression(Kind::kAttribute, line) {}
  ExpressionPointer object;
  std::string name;
};

struct ItemExpression : Expression {
  explicit ItemExpression(int line) : Expression(Kind::kItem, line) {}
  ExpressionPointer object;
  ExpressionPointer key;
};

/// object[start:stop:step]; null where left out.
struct SliceExpression : Expression {
  explicit SliceExpression(int line) : Expression(Kind::kSlice, line) {}
  ExpressionPointer object;
  ExpressionPointer start;
  ExpressionPointer stop;
  ExpressionPointer step;
};

/// (a, b=c, *positional_tail, **named_tail); the tails may be null.
struct CallArguments {
  std::vector<ExpressionPointer> positional;
  std::vector<std::pair<std::string, ExpressionPointer>> named;
  ExpressionPointer positional_tail;
  ExpressionPointer named_tail;
};

struct CallExpression : Expression {
  explicit CallExpression(int line) : Expression(Kind::kCall, line) {}
  ExpressionPointer callee;
  CallArguments arguments;
};

struct FilterExpression : Expression {
  explicit FilterExpression(int line) : Expression(Kind::kFilter, line) {}
  ExpressionPointer input;
  std::string name;
  FilterFunction function = nullptr;  // null: unknown, an error if it is reached
  CallArguments arguments;
};

struct TestExpression : Expression {
  explicit TestExpression(int line) : Expression(Kind::kTest, line) {}
  ExpressionPointer input;
  std::string name;
  TestFunction function = nullptr;  // null: unknown, an error if it is reached
  CallArguments arguments;
  bool is_negated = false;
};

struct UnaryExpression : Expression {
  enum class Op : uint8_t { kNot, kNegate, kIdentity };
  UnaryExpression(int line, Op op) : Expression(Kind::kUnary, line), op(op) {}
  Op op;
  ExpressionPointer operand;
};

struct BinaryExpression : Expression {
  BinaryExpression(int line, BinaryOp op) : Expression(Kind::kBinary, line), op(op) {}
  BinaryOp op;
  ExpressionPointer left;
  ExpressionPointer right;
};

/// a ~ b ~ c
struct ConcatExpression : Expression {
  explicit ConcatExpression(int line) : Expression(Kind::kConcat, line) {}
  std::vector<ExpressionPointer> parts;
};

/// a < b <= c
struct CompareExpression : Expression {
  explicit CompareExpression(int line) : Expression(Kind::kCompare, line) {}
  ExpressionPointer first;
  std::vector<std::pair<CompareOp, ExpressionPointer>> rest;
};

struct LogicalExpression : Expression {
  LogicalExpression(int line, bool is_and) : Expression(Kind::kLogical, line), is_and(is_and) {}
  bool is_and;
  ExpressionPointer left;
  ExpressionPointer right;
};

/// if_true if condition else if_false; the last may be null.
struct ConditionalExpression : Expression {
  explicit ConditionalExpression(int line) : Expression(Kind::kConditional, line) {}
  ExpressionPointer condition;
  ExpressionPointer if_true;
  ExpressionPointer if_false;
};

/// What a value is assigned to.
struct Target {
  enum class Kind : uint8_t { kName, kAttribute, kTuple };
  Kind kind = Kind::kName;
  NameId name = 0;        // of kName; the namespace of kAttribute
  std::string attribute;  // of kAttribute
  std::vector<Target> items;
};

struct Statement {
  enum class Kind : uint8_t {
    kText,
    kOutput,
    kIf,
    kFor,
    kSet,
    kSetBlock,
    kMacro,
    kCallBlock,
    kFilterBlock,
    kWith,
    kScope,
    kBreak,
    kContinue,
  };
  Statement(Kind kind, int line) : kind(kind), line(line) {}
  virtual ~Statement() = default;

  const Kind kind;
  const int line;
};
using StatementPointer = std::unique_ptr<Statement>;
using Body = std::vector<StatementPointer>;

struct TextStatement : Statement {
  TextStatement(int line, std::string text) : Statement(Kind::kText, line), text(std::move(text)) {}
  std::string text;
};

struct OutputStatement : Statement {
  explicit OutputStatement(int line) : Statement(Kind::kOutput, line) {}
  ExpressionPointer value;
};

struct IfStatement : Statement {
  explicit IfStatement(int line) : Statement(Kind::kIf, line) {}
  std::vector<std::pair<ExpressionPointer, Body>> branches;  // if and elif
  Body else_body;
};

struct ForStatement : Statement {
  explicit ForStatement(int line) : Statement(Kind::kFor, line) {}
  Target target;
  ExpressionPointer iterable;
  ExpressionPointer filter;  // null when there is none
  Body body;
  Body else_body;
  bool uses_loop = false;  // the body names `loop`
};

struct SetStatement : Statement {
  explicit SetStatement(int line) : Statement(Kind::kSet, line) {}
  Target target;
  ExpressionPointer value;
};

struct SetBlockStatement : Statement {
  explicit SetBlockStatement(int line) : Statement(Kind::kSetBlock, line) {}
  Target target;
  ExpressionPointer value;  // filters around a CapturedExpression
  Body body;
};

struct MacroParameter {
  NameId name;
  std::string text;
  ExpressionPointer fallback;  // null: required, or undefined if not given
};

struct MacroStatement : Statement {
  explicit MacroStatement(int line) : Statement(Kind::kMacro, line) {}
  NameId name = 0;
  std::string text;
  std::vector<MacroParameter> parameters;
  Body body;
  // The special variables that the body names.
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

/// {% call(x) callee(...) %}: the body is the macro `caller` of the call.
struct CallBlockStatement : Statement {
  explicit CallBlockStatement(int line) : Statement(Kind::kCallBlock, line) {}
  ExpressionPointer call;  // a CallExpression
  std::unique_ptr<MacroStatement> caller;
};

struct FilterBlockStatement : Statement {
  explicit FilterBlockStatement(int line) : Statement(Kind::kFilterBlock, line) {}
  ExpressionPointer value;  // filters around a CapturedExpression
  Body body;
};

struct WithStatement : Statement {
  explicit WithStatement(int line) : Statement(Kind::kWith, line) {}
  std::vector<std::pair<Target, ExpressionPointer>> variables;
  Body body;
};

/// A body with variables of its own: {% generation %}.
struct ScopeStatement : Statement {
  explicit ScopeStatement(int line) : Statement(Kind::kScope, line) {}
  Body body;
};

struct BreakStatement : Statement {
  explicit BreakStatement(int line) : Statement(Kind::kBreak, line) {}
};

struct ContinueStatement : Statement {
  explicit ContinueStatement(int line) : Statement(Kind::kContinue, line) {}
};

/// A parsed template. Never changes, so that threads may render it at the same time.
struct Program {
  std::string where;
  Body body;
  std::vector<std::string> names;
  // For each name, its value when nothing assigned it: a built-in function, or undefined.
  std::vector<Value> defaults;
  NameId loop = 0;
  NameId caller = 0;
  NameId varargs = 0;
  NameId kwargs = 0;
};

}  // namespace augur::jinja
