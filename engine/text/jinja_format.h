// Python's two ways of formatting: 'text %s' % value and 'text {}'.format(value).
#pragma once

#include <string>

#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

/// `pattern` % `values`: a tuple gives the values in order, a dict those of %(name)s, anything else
/// is the only one. Conversions d i u s r a f F e E g G x X o c %, with flags, width and precision.
Value format_printf(Runtime& runtime, const Value& pattern, const Value& values);

/// str.format: {} {0} {name} {0.name} {0[key]}, !r !s !a, and fill, alignment, sign, #, 0, width,
/// comma, precision and type after a colon.
Value format_braces(Runtime& runtime, const std::string& pattern, const Arguments& arguments);

}  // namespace augur::jinja
