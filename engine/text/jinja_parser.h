// Source text to Program.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/text/jinja_ast.h"

namespace augur::jinja {

/// Throws ConfigError("WHERE:LINE:COLUMN", ...) for a syntax error, for what Jinja2 has and this
/// engine refuses (inheritance, includes, recursive loops, unknown tags), for an unknown filter or
/// test outside of a condition, and for nesting deeper than the engine recurses.
std::shared_ptr<const Program> parse(std::string_view source, const std::string& where);

}  // namespace augur::jinja
