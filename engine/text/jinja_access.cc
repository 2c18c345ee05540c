#include "engine/text/jinja_access.h"

#include <string.h>  // memmem

#include <algorithm>

#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_print.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

// As Jinja2 names it in "'X' has no attribute 'y'".
std::string object_name(const Value& object) {
  if (object.is_none()) return "None";
  const std::string type(object.type_name());
  return (object.is(Kind::kObject) ? "jinja2." + type : type) + " object";
}

Value missing_attribute(const Value& object, std::string_view name) {
  return Value::undefined("'" + object_name(object) + "' has no attribute '" + std::string(name) +
                          "'");
}

// A method or attribute of `object`; nullopt if it has none of that name.
std::optional<Value> find_attribute(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is(Kind::kObject)) return object.as_object().attribute(runtime, name);
  const Method* method = find_method(object, name);
  const bool is_private = name.starts_with("__");
  if (is_private || (method != nullptr && method->is_unsafe)) {
    return Value::undefined("access to attribute '" + std::string(name) + "' of '" +
                            std::string(object.type_name()) + "' object is unsafe.");
  }
  if (method != nullptr) return bind_method(object, *method);
  if (object.is(Kind::kSequence) && object.as_sequence().form == Sequence::Form::kGroup) {
    if (name == "grouper") return object.as_sequence().items[0];
    if (name == "list") return object.as_sequence().items[1];
  }
  return std::nullopt;
}

Value code_point_at(Runtime& runtime, const Value& text, Integer index) {
  const std::string& bytes = text.as_string();
  runtime.charge_scan(bytes.size());
  if (index < 0) index += static_cast<Integer>(count_code_points(bytes));
  if (index < 0 || index >= static_cast<Integer>(bytes.size())) return Value();
  const size_t begin = byte_position(bytes, static_cast<size_t>(index));
  if (begin >= bytes.size()) return Value();
  size_t end = begin;
  next_code_point(bytes, end);
  return runtime.text(bytes.substr(begin, end - begin), text.is_markup());
}

// The item of Python's object[key]; undefined if it would raise TypeError or LookupError.
Value find_item(Runtime& runtime, const Value& object, const Value& key) {
  switch (object.kind()) {
    case Kind::kDict: {
      const Value* found = object.as_dict().find(key);
      return found == nullptr ? Value() : *found;
    }
    case Kind::kString:
      return key.is_integral() ? code_point_at(runtime, object, key.as_integer()) : Value();
    case Kind::kSequence: {
      const Sequence& sequence = object.as_sequence();
      if (!key.is_integral() || !sequence.is_indexable()) return Value();
      const Integer size = static_cast<Integer>(sequence.items.size());
      Integer index = key.as_integer();
      if (index < 0) index += size;
      return index < 0 || index >= size ? Value() : sequence.items[static_cast<size_t>(index)];
    }
    default:
      return Value();
  }
}

Integer slice_bound(const Value& bound, Integer fallback, Integer low, Integer high, Integer size) {
  if (bound.is_none()) return fallback;
  Integer index = bound.as_integer();
  if (index < 0) index = std::max<Integer>(index, -size - 1) + size;
  return std::clamp(index, low, high);
}

std::vector<Value> split_code_points(Runtime& runtime, const Value& text) {
  const std::string& bytes = text.as_string();
  runtime.charge_items(bytes.size());
  std::vector<Value> items;
  for (size_t position = 0; position < bytes.size();) {
    const size_t begin = position;
    next_code_point(bytes, position);
    items.push_back(runtime.text(bytes.substr(begin, position - begin)));
  }
  return items;
}

}  // namespace

Value get_attribute(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is_undefined()) fail_undefined(object);
  if (object.is(Kind::kDict)) {
    // The common case, without the detour over methods of the same name.
    const Value* item = object.as_dict().find(name);
    if (item != nullptr && find_method(object, name) == nullptr) return *item;
  }
  if (std::optional<Value> attribute = find_attribute(runtime, object, name)) return *attribute;
  return missing_attribute(object, name);
}

Value get_item(Runtime& runtime, const Value& object, const Value& key) {
  if (object.is_undefined()) fail_undefined(object);
  if (object.is(Kind::kDict)) {
    const Value* item = object.as_dict().find(key);
    if (item != nullptr) return *item;
  } else {
    Value item = find_item(runtime, object, key);
    // A list may hold an undefined value; only its absence goes on to attributes.
    if (!item.is_undefined()) return item;
  }
  if (key.is_string()) {
    const std::string& name = key.as_string();
    if (std::optional<Value> attribute = find_attribute(runtime, object, name)) return *attribute;
    return missing_attribute(object, name);
  }
  return Value::undefined(object_name(object) + " has no element " + to_repr(runtime, key));
}

Value get_slice(Runtime& runtime,
                const Value& object,
                const Value& start,
                const Value& stop,
                const Value& step) {
  if (object.is_undefined()) fail_undefined(object);
  const bool is_sequence = object.is(Kind::kSequence) && object.as_sequence().is_indexable();
  if (!is_sequence && !object.is_string()) {
    throw TemplateError("'" + std::string(object.type_name()) + "' object cannot be sliced");
  }
  for (const Value* bound : {&start, &stop, &step}) {
    if (!bound->is_none() && !bound->is_integral()) {
      throw TemplateError("slice indices must be integers or None, not " +
                          std::string(bound->type_name()));
    }
  }
  const Integer stride = step.is_none() ? 1 : step.as_integer();
  if (stride == 0) throw TemplateError("slice step cannot be zero");
  const Integer size = *length(runtime, object);
  const Integer low = stride < 0 ? -1 : 0;
  const Integer high = stride < 0 ? size - 1 : size;
  const Integer first = slice_bound(start, stride < 0 ? high : low, low, high, size);
  const Integer last = slice_bound(stop, stride < 0 ? low : high, low, high, size);

  if (object.is_string()) {
    const std::string& bytes = object.as_string();
    runtime.charge_scan(bytes.size());
    if (stride == 1) {
      const size_t begin = byte_position(bytes, static_cast<size_t>(first));
      const size_t num_code_points = static_cast<size_t>(std::max<Integer>(last - first, 0));
      const std::string_view rest = std::string_view(bytes).substr(begin);
      return runtime.text(std::string(rest.substr(0, byte_position(rest, num_code_points))),
                          object.is_markup());
    }
  }
  const std::vector<Value> letters =
      object.is_string() ? split_code_points(runtime, object) : std::vector<Value>();
  const std::vector<Value>& items = object.is_string() ? letters : object.as_sequence().items;
  std::vector<Value> chosen;
  for (Integer i = first; stride > 0 ? i < last : i > last;) {
    chosen.push_back(items[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  if (!object.is_string()) {
    return object.as_sequence().is_tuple() ? runtime.tuple(std::move(chosen))
                                           : runtime.list(std::move(chosen));
  }
  TextBuilder out(runtime);
  for (const Value& letter : chosen) out << letter.as_string();
  return out.finish(object.is_markup());
}

std::vector<Value> iterate(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return {};
    case Kind::kString:
      return split_code_points(runtime, value);
    case Kind::kDict: {
      runtime.charge_items(value.as_dict().size());
      std::vector<Value> keys;
      keys.reserve(value.as_dict().size());
      for (const auto& [key, item] : value.as_dict().entries()) keys.push_back(key);
      return keys;
    }
    case Kind::kSequence: {
      const Sequence& sequence = value.as_sequence();
      const size_t first = sequence.is_generator() ? sequence.num_taken : 0;
      if (sequence.is_generator()) sequence.num_taken = sequence.items.size();
      runtime.charge_items(sequence.items.size() - first);
      return {sequence.items.begin() + static_cast<ptrdiff_t>(first), sequence.items.end()};
    }
    default:
      break;
  }
  throw TemplateError("'" + std::string(value.type_name()) + "' object is not iterable");
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is(Kind::kDict) ||
         value.is(Kind::kSequence);
}

std::optional<Integer> length(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      runtime.charge_scan(value.as_string().size());
      return static_cast<Integer>(count_code_points(value.as_string()));
    case Kind::kDict:
      return static_cast<Integer>(value.as_dict().size());
    case Kind::kSequence:
      if (value.as_sequence().is_generator()) return std::nullopt;
      return static_cast<Integer>(value.as_sequence().items.size());
    default:
      return std::nullopt;
  }
}

AttributePath::AttributePath(const Value& path) {
  if (path.is_none()) return;
  if (!path.is_string()) {
    parts_.push_back(path);
    return;
  }
  const std::string& text = path.as_string();
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('.', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const bool is_index = !part.empty() && part.size() < 19 &&
                          part.find_first_not_of("0123456789") == std::string::npos;
    parts_.push_back(is_index ? Value::integer(std::stoll(part)) : Value::text(part));
    begin = end + 1;
  }
}

Value AttributePath::follow(Runtime& runtime, const Value& value, const Value* fallback) const {
  runtime.charge_steps(1);
  Value current = value;
  for (const Value& part : parts_) {
    current = get_item(runtime, current, part);
    if (fallback != nullptr && current.is_undefined()) current = *fallback;
  }
  return current;
}

Integer clamp_index(Integer index, Integer length) {
  if (index < 0) index += length;
  return std::clamp<Integer>(index, 0, length);
}

size_t find_bytes(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

}  // namespace augur::jinja
