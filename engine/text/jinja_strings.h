// Operations on strings that Python's methods and Jinja2's filters share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

enum class Alignment : uint8_t { kLeft, kRight, kCenter };

/// Without the code points of `chars` at its ends; of white space when `chars` is none.
std::string_view strip_text(std::string_view text, const Value& chars, bool left, bool right);

/// A list of at most `limit` + 1 parts. `separator` none splits at runs of white space. Throws
/// TemplateError for an empty separator.
Value split_text(Runtime& runtime,
                 const std::string& text,
                 const Value& separator,
                 Integer limit,
                 bool from_right);

/// The lines of str.splitlines(): also at \r, \v, \f, U+0085, U+2028 and so on.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

/// The first `limit` places of `old_text` replaced; an empty one stands between all code points.
std::string replace_text(Runtime& runtime,
                         std::string_view text,
                         std::string_view old_text,
                         std::string_view new_text,
                         Integer limit);

/// Padded with `fill` to `width` code points.
Value pad_text(Runtime& runtime,
               std::string_view text,
               Integer width,
               std::string_view fill,
               Alignment alignment);

/// str.isupper() and str.islower(): at least one cased letter, and none of the other case.
bool is_upper_text(std::string_view text);
bool is_lower_text(std::string_view text);

}  // namespace augur::jinja
