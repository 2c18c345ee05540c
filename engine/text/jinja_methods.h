// The methods of strings, dicts, lists and tuples that templates may call.
#pragma once

#include <string_view>

#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

struct Method {
  /// What happens around a call on a string that is markup.
  enum class Markup : uint8_t {
    kPlain,    // nothing
    kEscape,   // string arguments are escaped, a string result is markup
    kEnclose,  // the strings of a list or tuple result are markup
  };
  std::string_view name;
  Value (*function)(Runtime& runtime, const Value& receiver, const Arguments& arguments);
  Markup markup = Markup::kPlain;
  /// Would change its receiver: reaching it gives an undefined value. `function` is null.
  bool is_unsafe = false;
};

/// The method of that name of the type of `receiver`; null if there is none.
const Method* find_method(const Value& receiver, std::string_view name);
/// `receiver.name` as a value.
Value bind_method(const Value& receiver, const Method& method);
/// Requires !method.is_unsafe.
Value call_method(Runtime& runtime,
                  const Value& receiver,
                  const Method& method,
                  const Arguments& arguments);

/// The str methods, for find_method; null if there is none of that name.
const Method* find_string_method(std::string_view name);

}  // namespace augur::jinja
