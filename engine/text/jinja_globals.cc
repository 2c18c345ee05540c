#include "engine/text/jinja_globals.h"

#include <limits>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_print.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

class GlobalFunction : public Callable {
 public:
  using Function = Value (*)(Runtime& runtime, const Arguments& arguments);
  GlobalFunction(const std::string& name, Function function)
      : Callable(name, "function"), function_(function) {}
  Value call(Runtime& runtime, const Arguments& arguments) const override {
    return function_(runtime, arguments);
  }

 private:
  const Function function_;
};

Value make_range(Runtime& runtime, const Arguments& arguments) {
  const BoundArguments bound("range", arguments, {"start", "stop", "step"}, 1);
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    if (bound.find(i)->is_none()) throw TemplateError("range(): an integer is needed, not None");
  }
  const bool has_stop = bound.find(1) != nullptr;
  const Integer start = has_stop ? bound.integer(0, 0) : 0;
  const Integer stop = has_stop ? bound.integer(1, 0) : bound.integer(0, 0);
  const Integer step = bound.integer(2, 1);
  if (step == 0) throw TemplateError("range(): step must not be zero");
  // Far beyond any allowed range, and small enough that no sum overflows.
  constexpr Integer kMaxBound = Integer{1} << 100;
  for (Integer value : {start, stop, step}) {
    if (value > kMaxBound || value < -kMaxBound) throw TemplateError("range(): out of range");
  }
  Integer count = 0;
  if (step > 0 && start < stop) count = (stop - start - 1) / step + 1;
  if (step < 0 && start > stop) count = (start - stop - 1) / -step + 1;
  if (count > runtime.limits().max_range_length) {
    throw TemplateError("range() of more than " +
                        std::to_string(runtime.limits().max_range_length) + " items");
  }
  runtime.charge_items(static_cast<size_t>(count));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(count));
  for (Integer i = 0; i < count; ++i) items.push_back(Value::integer(start + i * step));
  std::string text = "range(" + format_integer(start) + ", " + format_integer(stop);
  if (step != 1) text += ", " + format_integer(step);
  return Value::sequence({Sequence::Form::kRange, std::move(items), text + ")"});
}

// dict(pairs or a dict, name=value, ...), also what namespace() takes.
Dict collect(Runtime& runtime, std::string_view function, const Arguments& arguments) {
  if (arguments.positional.size() > 1) {
    throw TemplateError(std::string(function) + "() takes at most 1 positional argument, got " +
                        std::to_string(arguments.positional.size()));
  }
  Dict dict;
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Kind::kDict)) {
      runtime.charge_items(2 * source.as_dict().size());
      dict = source.as_dict();
    } else {
      for (const Value& item : iterate(runtime, source)) {
        const std::vector<Value> pair = iterate(runtime, item);
        if (pair.size() != 2) {
          throw TemplateError(std::string(function) + "(): expected pairs, found " +
                              std::to_string(pair.size()) + " items");
        }
        runtime.charge_items(2);
        dict.set(pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) {
    runtime.charge_items(2);
    dict.set(Value::text(name), value);
  }
  return dict;
}

Value make_dict(Runtime& runtime, const Arguments& arguments) {
  return Value::dict(collect(runtime, "dict", arguments));
}

Value make_namespace(Runtime& runtime, const Arguments& arguments) {
  return Value::object(
      &runtime.own(std::make_unique<Namespace>(collect(runtime, "namespace", arguments))));
}

Value raise_exception(Runtime& runtime, const Arguments& arguments) {
  const BoundArguments bound("raise_exception", arguments, {"message"}, 1);
  throw TemplateError(to_text(runtime, *bound.find(0)));
}

// Python's strftime of a time without a zone: %z and %Z give nothing, %f has no microseconds.
Value strftime_now(Runtime& runtime, const Arguments& arguments) {
  const BoundArguments bound("strftime_now", arguments, {"format"}, 1);
  constexpr size_t kMaxFormatBytes = 1000;
  constexpr size_t kMaxBytesPerByte = 64;  // a directive such as %c makes 24 bytes of two
  const std::string pattern = bound.text(0, "");
  if (pattern.size() > kMaxFormatBytes) {
    throw TemplateError("strftime_now(): the format is longer than " +
                        std::to_string(kMaxFormatBytes) + " bytes");
  }
  std::string format;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\0') throw TemplateError("strftime_now(): a NUL in the format");
    if (pattern[i] != '%' || i + 1 == pattern.size()) {
      format += pattern[i];
      continue;
    }
    const char directive = pattern[++i];
    if (directive == 'f') {
      format += "000000";
    } else if (directive != 'z' && directive != 'Z') {
      format += '%';
      format += directive;
    }
  }
  if (format.empty()) return Value::text("");
  std::string text(format.size() * kMaxBytesPerByte, '\0');
  text.resize(std::strftime(text.data(), text.size(), format.c_str(), &runtime.now()));
  return runtime.text(std::move(text));
}

}  // namespace

std::optional<Value> find_global(std::string_view name) {
  static const std::pair<std::string_view, GlobalFunction::Function> kFunctions[] = {
      {"range", make_range},          {"dict", make_dict},
      {"namespace", make_namespace},  {"raise_exception", raise_exception},
      {"strftime_now", strftime_now},
  };
  for (const auto& [known, function] : kFunctions) {
    if (known == name) {
      return Value::callable(std::make_shared<GlobalFunction>(std::string(name), function));
    }
  }
  return std::nullopt;
}

void Namespace::set(Runtime& runtime, const std::string& name, Value value) {
  runtime.charge_items(2);
  values_.set(Value::text(name), std::move(value));
}

std::optional<Value> Namespace::attribute(Runtime& runtime, std::string_view name) {
  if (const Value* found = values_.find(name)) return *found;
  return std::nullopt;
}

std::string Namespace::print(Runtime& runtime) {
  TextBuilder out(runtime);
  out << "<Namespace ";
  append_repr(runtime, Value::dict(values_), out);
  out << ">";
  return out.take();
}

}  // namespace augur::jinja
