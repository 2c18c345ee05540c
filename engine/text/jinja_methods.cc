#include "engine/text/jinja_methods.h"

#include <algorithm>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_print.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

Value dict_get(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("dict.get", arguments, {"key", "default"}, 1);
  check_hashable(*bound.find(0));
  const Value* found = receiver.as_dict().find(*bound.find(0));
  return found == nullptr ? bound.value(1) : *found;
}

Value dict_view(Runtime& runtime, const Value& receiver, Sequence::Form form) {
  const Dict& dict = receiver.as_dict();
  runtime.charge_items(dict.size());
  std::vector<Value> items;
  items.reserve(dict.size());
  for (const auto& [key, value] : dict.entries()) {
    switch (form) {
      case Sequence::Form::kDictKeys:
        items.push_back(key);
        break;
      case Sequence::Form::kDictValues:
        items.push_back(value);
        break;
      default:
        items.push_back(runtime.tuple({key, value}));
        break;
    }
  }
  return Value::sequence({form, std::move(items)});
}

Value dict_keys(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("dict.keys", arguments, {});
  return dict_view(runtime, receiver, Sequence::Form::kDictKeys);
}

Value dict_values(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("dict.values", arguments, {});
  return dict_view(runtime, receiver, Sequence::Form::kDictValues);
}

Value dict_items(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("dict.items", arguments, {});
  return dict_view(runtime, receiver, Sequence::Form::kDictItems);
}

// Values never change, so a copy is the value itself.
Value copy(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("copy", arguments, {});
  return receiver;
}

Value sequence_count(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("count", arguments, {"value"}, 1);
  Integer count = 0;
  for (const Value& item : receiver.as_sequence().items) {
    if (equal(runtime, item, *bound.find(0))) ++count;
  }
  return Value::integer(count);
}

Value sequence_index(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("index", arguments, {"value", "start", "stop"}, 1);
  const std::vector<Value>& items = receiver.as_sequence().items;
  const Integer size = static_cast<Integer>(items.size());
  const Integer stop = clamp_index(bound.integer(2, size), size);
  for (Integer i = clamp_index(bound.integer(1, 0), size); i < stop; ++i) {
    if (equal(runtime, items[static_cast<size_t>(i)], *bound.find(0))) return Value::integer(i);
  }
  throw TemplateError(to_repr(runtime, *bound.find(0)) + " is not in the list");
}

constexpr Method unsafe(std::string_view name) {
  return {name, nullptr, Method::Markup::kPlain, /*is_unsafe=*/true};
}

constexpr Method kDictMethods[] = {
    {"get", dict_get},    {"items", dict_items}, {"keys", dict_keys}, {"values", dict_values},
    {"copy", copy},       unsafe("clear"),       unsafe("pop"),       unsafe("popitem"),
    unsafe("setdefault"), unsafe("update"),
};
constexpr Method kListMethods[] = {
    {"count", sequence_count}, {"index", sequence_index}, {"copy", copy},   unsafe("append"),
    unsafe("clear"),           unsafe("extend"),          unsafe("insert"), unsafe("pop"),
    unsafe("remove"),          unsafe("reverse"),         unsafe("sort"),
};
constexpr Method kTupleMethods[] = {{"count", sequence_count}, {"index", sequence_index}};

template <size_t kSize>
const Method* find_in(const Method (&methods)[kSize], std::string_view name) {
  const Method* found = std::find_if(std::begin(methods), std::end(methods),
                                     [&](const Method& method) { return method.name == name; });
  return found == std::end(methods) ? nullptr : found;
}

class BoundMethod : public Callable {
 public:
  BoundMethod(Value receiver, const Method& method)
      : Callable(std::string(method.name), "builtin_function_or_method"),
        receiver_(std::move(receiver)),
        method_(method) {}
  Value call(Runtime& runtime, const Arguments& arguments) const override {
    return call_method(runtime, receiver_, method_, arguments);
  }

 private:
  const Value receiver_;
  const Method& method_;
};

Value escape_argument(Runtime& runtime, const Value& value) {
  if (value.is_string() && !value.is_markup()) {
    return Value::text(escape_html(runtime, value.as_string()), /*is_markup=*/true);
  }
  if (value.is(Kind::kSequence) && value.as_sequence().is_indexable()) {  // of str.join
    std::vector<Value> items = value.as_sequence().items;
    for (Value& item : items) {
      if (item.is_string()) item = escape_argument(runtime, item);
    }
    return runtime.list(std::move(items));
  }
  return value;
}

Value call_on_markup(Runtime& runtime,
                     const Value& receiver,
                     const Method& method,
                     const Arguments& arguments) {
  if (method.markup == Method::Markup::kEscape) {
    Arguments escaped = arguments;
    for (Value& value : escaped.positional) value = escape_argument(runtime, value);
    for (auto& [name, value] : escaped.named) value = escape_argument(runtime, value);
    const Value result = method.function(runtime, receiver, escaped);
    return result.is_string() ? runtime.text(result.as_string(), /*is_markup=*/true) : result;
  }
  const Value result = method.function(runtime, receiver, arguments);
  std::vector<Value> parts = result.as_sequence().items;
  for (Value& part : parts) part = runtime.text(part.as_string(), /*is_markup=*/true);
  return result.as_sequence().is_tuple() ? runtime.tuple(std::move(parts))
                                         : runtime.list(std::move(parts));
}

}  // namespace

const Method* find_method(const Value& receiver, std::string_view name) {
  if (receiver.is_string()) return find_string_method(name);
  if (receiver.is(Kind::kDict)) return find_in(kDictMethods, name);
  if (!receiver.is(Kind::kSequence)) return nullptr;
  if (receiver.as_sequence().is_list()) return find_in(kListMethods, name);
  const bool has_tuple_methods =
      receiver.as_sequence().is_tuple() || receiver.as_sequence().form == Sequence::Form::kRange;
  return has_tuple_methods ? find_in(kTupleMethods, name) : nullptr;
}

Value bind_method(const Value& receiver, const Method& method) {
  return Value::callable(std::make_shared<const BoundMethod>(receiver, method));
}

Value call_method(Runtime& runtime,
                  const Value& receiver,
                  const Method& method,
                  const Arguments& arguments) {
  if (receiver.is_markup() && method.markup != Method::Markup::kPlain) {
    return call_on_markup(runtime, receiver, method, arguments);
  }
  return method.function(runtime, receiver, arguments);
}

}  // namespace augur::jinja
