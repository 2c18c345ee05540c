// How values look when printed: Python's str() and repr().
#pragma once

#include <string>
#include <string_view>

#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

/// str(): what {{ }} prints. Undefined prints nothing.
std::string to_text(Runtime& runtime, const Value& value);
/// repr(): strings in quotes, as they show inside a printed list.
std::string to_repr(Runtime& runtime, const Value& value);

/// Appends the repr of a value, for objects that print what they hold.
void append_repr(Runtime& runtime, const Value& value, TextBuilder& out);

std::string format_integer(Integer value);
/// Python's repr of a float: the shortest digits that read back as the same number.
std::string format_float(double value);

}  // namespace augur::jinja
