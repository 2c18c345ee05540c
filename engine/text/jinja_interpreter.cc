#include "engine/text/jinja_interpreter.h"

#include <algorithm>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_globals.h"
#include "engine/text/jinja_loop.h"
#include "engine/text/jinja_print.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

class Macro : public Callable {
 public:
  Macro(Interpreter& interpreter, const MacroStatement& macro, Interpreter::Scope& closure)
      : Callable("'" + macro.text + "'", "Macro"),
        interpreter_(interpreter),
        macro_(macro),
        closure_(closure) {}
  Value call(Runtime& runtime, const Arguments& arguments) const override {
    return interpreter_.call_macro(macro_, closure_, arguments);
  }

 private:
  Interpreter& interpreter_;
  const MacroStatement& macro_;
  Interpreter::Scope& closure_;
};

}  // namespace

Interpreter::DepthGuard::DepthGuard(Interpreter& interpreter) : depth_(interpreter.depth_) {
  if (depth_ >= kMaxDepth) throw TemplateError("macro calls are nested too deeply");
  ++depth_;
}

Interpreter::Interpreter(const Program& program, Runtime& runtime)
    : program_(program), runtime_(runtime), scope_(&enter_scope(nullptr)) {}

void Interpreter::set_variable(std::string_view name, Value value) {
  const auto found = std::find(program_.names.begin(), program_.names.end(), name);
  if (found == program_.names.end()) return;
  assign(static_cast<NameId>(found - program_.names.begin()), std::move(value));
}

std::string Interpreter::run() {
  scope_ = &enter_scope(scope_);
  try {
    execute(program_.body);
  } catch (const TemplateError& error) {
    if (error.line() > 0) throw;
    throw TemplateError(program_.where, line_, error.message());
  }
  return std::move(result_);
}

void Interpreter::emit(std::string_view text) {
  if (output_ != &result_) {
    runtime_.charge_bytes(static_cast<int64_t>(text.size()));
  } else if (static_cast<int64_t>(result_.size() + text.size()) >
             runtime_.limits().max_output_bytes) {
    throw TemplateError("the template printed more than " +
                        std::to_string(runtime_.limits().max_output_bytes) + " bytes");
  }
  output_->append(text);
}

Interpreter::Scope& Interpreter::enter_scope(Scope* parent) {
  Scope* scope = nullptr;
  if (free_scopes_.empty()) {
    runtime_.charge_items(2);
    scopes_.push_back(std::make_unique<Scope>());
    scope = scopes_.back().get();
  } else {
    scope = free_scopes_.back();
    free_scopes_.pop_back();
  }
  scope->parent = parent;
  return *scope;
}

void Interpreter::leave_scope(Scope& scope) {
  if (scope.is_captured) return;
  scope.variables.clear();
  free_scopes_.push_back(&scope);
}

const Value& Interpreter::look_up(NameId name) const {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    for (const auto& [known, value] : scope->variables) {
      if (known == name) return value;
    }
  }
  return program_.defaults[static_cast<size_t>(name)];
}

void Interpreter::assign(NameId name, Value value) {
  for (auto& [known, existing] : scope_->variables) {
    if (known == name) {
      existing = std::move(value);
      return;
    }
  }
  scope_->variables.emplace_back(name, std::move(value));
}

void Interpreter::assign(const Target& target, const Value& value) {
  switch (target.kind) {
    case Target::Kind::kName:
      return assign(target.name, value);
    case Target::Kind::kAttribute: {
      const Value& holder = look_up(target.name);
      auto* space =
          holder.is(jinja::Kind::kObject) ? dynamic_cast<Namespace*>(&holder.as_object()) : nullptr;
      if (space == nullptr) {
        throw TemplateError("cannot assign attribute '" + target.attribute + "' of '" +
                            program_.names[static_cast<size_t>(target.name)] +
                            "', which is no namespace");
      }
      return space->set(runtime_, target.attribute, value);
    }
    case Target::Kind::kTuple: {
      const std::vector<Value> items = iterate(runtime_, value);
      if (items.size() != target.items.size()) {
        throw TemplateError("expected " + std::to_string(target.items.size()) +
                            " values to unpack, got " + std::to_string(items.size()));
      }
      for (size_t i = 0; i < items.size(); ++i) assign(target.items[i], items[i]);
      return;
    }
  }
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  for (const StatementPointer& statement : body) {
    const Flow flow = execute(*statement);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute(const Statement& statement) {
  const DepthGuard guard(*this);
  runtime_.charge_steps(1);
  line_ = statement.line;
  switch (statement.kind) {
    case Statement::Kind::kText:
      emit(static_cast<const TextStatement&>(statement).text);
      break;
    case Statement::Kind::kOutput: {
      const Value value = evaluate(*static_cast<const OutputStatement&>(statement).value);
      if (value.is_string()) {
        emit(value.as_string());
      } else {
        emit(to_text(runtime_, value));
      }
      break;
    }
    case Statement::Kind::kIf:
      return execute_if(static_cast<const IfStatement&>(statement));
    case Statement::Kind::kFor:
      return execute_for(static_cast<const ForStatement&>(statement));
    case Statement::Kind::kSet: {
      const auto& set = static_cast<const SetStatement&>(statement);
      assign(set.target, evaluate(*set.value));
      break;
    }
    case Statement::Kind::kSetBlock:
      return execute_set_block(static_cast<const SetBlockStatement&>(statement));
    case Statement::Kind::kMacro: {
      const auto& macro = static_cast<const MacroStatement&>(statement);
      assign(macro.name, make_macro(macro));
      break;
    }
    case Statement::Kind::kCallBlock:
      execute_call_block(static_cast<const CallBlockStatement&>(statement));
      break;
    case Statement::Kind::kFilterBlock:
      return execute_filter_block(static_cast<const FilterBlockStatement&>(statement));
    case Statement::Kind::kWith:
      return execute_with(static_cast<const WithStatement&>(statement));
    case Statement::Kind::kScope:
      return execute_scope(static_cast<const ScopeStatement&>(statement));
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute_if(const IfStatement& statement) {
  for (const auto& [condition, body] : statement.branches) {
    if (evaluate(*condition).truthy()) return execute(body);
  }
  return execute(statement.else_body);
}

Interpreter::Flow Interpreter::execute_for(const ForStatement& statement) {
  std::vector<Value> items = iterate(runtime_, evaluate(*statement.iterable));
  Scope* const outer = scope_;
  if (statement.filter != nullptr) {
    std::vector<Value> chosen;
    for (Value& item : items) {
      scope_ = &enter_scope(outer);
      assign(statement.target, item);
      if (evaluate(*statement.filter).truthy()) chosen.push_back(std::move(item));
      leave_scope(*std::exchange(scope_, outer));
    }
    items = std::move(chosen);
  }
  if (items.empty()) {
    // As in Jinja2, what the else body sets stays inside it.
    scope_ = &enter_scope(outer);
    const Flow flow = execute(statement.else_body);
    leave_scope(*std::exchange(scope_, outer));
    return flow;
  }
  Loop* loop = nullptr;
  if (statement.uses_loop) {
    runtime_.charge_items(items.size());
    loop = &runtime_.own(std::make_unique<Loop>(items));
  }
  for (size_t i = 0; i < items.size(); ++i) {
    runtime_.charge_steps(1);
    scope_ = &enter_scope(outer);
    if (loop != nullptr) {
      loop->move_to(i);
      assign(program_.loop, Value::object(loop));
    }
    assign(statement.target, items[i]);
    const Flow flow = execute(statement.body);
    leave_scope(*std::exchange(scope_, outer));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNormal;
}

// Runs `body` with its output going to `text`.
Interpreter::Flow Interpreter::execute_captured(const Body& body, std::string& text) {
  std::string* const outer_output = std::exchange(output_, &text);
  Scope* const outer = scope_;
  scope_ = &enter_scope(outer);
  const Flow flow = execute(body);
  leave_scope(*std::exchange(scope_, outer));
  output_ = outer_output;
  return flow;
}

Value Interpreter::filter_captured(const Expression& filters, std::string text) {
  const Value outer = std::exchange(captured_, runtime_.text(std::move(text)));
  Value result = evaluate(filters);
  captured_ = outer;
  return result;
}

// A break or continue inside leaves the block without its text being used.
Interpreter::Flow Interpreter::execute_set_block(const SetBlockStatement& statement) {
  std::string text;
  const Flow flow = execute_captured(statement.body, text);
  if (flow != Flow::kNormal) return flow;
  assign(statement.target, filter_captured(*statement.value, std::move(text)));
  return flow;
}

Interpreter::Flow Interpreter::execute_filter_block(const FilterBlockStatement& statement) {
  std::string text;
  const Flow flow = execute_captured(statement.body, text);
  if (flow != Flow::kNormal) return flow;
  emit(to_text(runtime_, filter_captured(*statement.value, std::move(text))));
  return flow;
}

Interpreter::Flow Interpreter::execute_with(const WithStatement& statement) {
  std::vector<Value> values;
  for (const auto& [target, value] : statement.variables) values.push_back(evaluate(*value));
  Scope* const outer = scope_;
  scope_ = &enter_scope(outer);
  for (size_t i = 0; i < values.size(); ++i) assign(statement.variables[i].first, values[i]);
  const Flow flow = execute(statement.body);
  leave_scope(*std::exchange(scope_, outer));
  return flow;
}

Interpreter::Flow Interpreter::execute_scope(const ScopeStatement& statement) {
  Scope* const outer = scope_;
  scope_ = &enter_scope(outer);
  const Flow flow = execute(statement.body);
  leave_scope(*std::exchange(scope_, outer));
  return flow;
}

Value Interpreter::make_macro(const MacroStatement& macro) {
  for (Scope* scope = scope_; scope != nullptr && !scope->is_captured; scope = scope->parent) {
    scope->is_captured = true;
  }
  runtime_.charge_items(4);
  return Value::callable(std::make_shared<Macro>(*this, macro, *scope_));
}

void Interpreter::execute_call_block(const CallBlockStatement& statement) {
  const Value caller = make_macro(*statement.caller);
  const Value result = evaluate_call(static_cast<const CallExpression&>(*statement.call), &caller);
  emit(to_text(runtime_, result));
}

Value Interpreter::call_macro(const MacroStatement& macro,
                              Scope& closure,
                              const Arguments& arguments) {
  const DepthGuard guard(*this);
  const std::string prefix = "macro '" + macro.text + "' ";
  const size_t num_parameters = macro.parameters.size();
  const size_t num_positional = std::min(arguments.positional.size(), num_parameters);
  std::vector<const Value*> given(num_parameters, nullptr);
  for (size_t i = 0; i < num_positional; ++i) given[i] = &arguments.positional[i];
  Value caller = Value::undefined("No caller defined");
  Dict kwargs;
  for (const auto& argument : arguments.named) {
    const std::string& name = argument.first;
    const auto parameter =
        std::find_if(macro.parameters.begin() + static_cast<ptrdiff_t>(num_positional),
                     macro.parameters.end(), [&](const auto& p) { return p.text == name; });
    if (parameter != macro.parameters.end()) {
      given[static_cast<size_t>(parameter - macro.parameters.begin())] = &argument.second;
    } else if (name == "caller" && macro.uses_caller) {
      caller = argument.second;
    } else if (macro.uses_kwargs) {
      kwargs.set(Value::text(name), argument.second);
    } else {
      throw TemplateError(prefix + "takes no keyword argument '" + name + "'");
    }
  }
  if (arguments.positional.size() > num_parameters && !macro.uses_varargs) {
    throw TemplateError(prefix + "takes not more than " + std::to_string(num_parameters) +
                        " argument(s)");
  }

  Scope* const outer = scope_;
  scope_ = &enter_scope(&closure);
  if (macro.uses_caller) assign(program_.caller, std::move(caller));
  if (macro.uses_kwargs) assign(program_.kwargs, Value::dict(std::move(kwargs)));
  if (macro.uses_varargs) {
    assign(program_.varargs,
           runtime_.tuple({arguments.positional.begin() + static_cast<ptrdiff_t>(num_positional),
                           arguments.positional.end()}));
  }
  for (size_t i = 0; i < num_parameters; ++i) {
    const MacroParameter& parameter = macro.parameters[i];
    assign(parameter.name, given[i] != nullptr ? *given[i]
                                               : Value::undefined("parameter '" + parameter.text +
                                                                  "' was not provided"));
  }
  for (size_t i = 0; i < num_parameters; ++i) {
    const MacroParameter& parameter = macro.parameters[i];
    if (given[i] == nullptr && parameter.fallback != nullptr) {
      assign(parameter.name, evaluate(*parameter.fallback));
    }
  }
  std::string text;
  std::string* const outer_output = std::exchange(output_, &text);
  execute(macro.body);
  output_ = outer_output;
  leave_scope(*std::exchange(scope_, outer));
  return runtime_.text(std::move(text));
}

}  // namespace augur::jinja
