// Splits the source of a Jinja2 template into tokens.
//
// As transformers sets Jinja2 up: trim_blocks (the newline after a statement or a comment goes),
// lstrip_blocks (blanks before one at the start of a line go), one newline at the end of the source
// dropped, newlines normalised, {{- -}} {%- +%} and raw blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_value.h"

namespace augur::jinja {

struct Token {
  enum class Type : uint8_t {
    kData,           // text outside tags
    kVariableBegin,  // {{
    kVariableEnd,
    kBlockBegin,  // {%
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Type type;
  int line;          // of its first character, from 1
  size_t position;   // in the normalised source, for the column of an error
  std::string text;  // data, name, operator, or the unescaped string
  Value number;      // of kInteger and kFloat
};

/// Newlines become \n and one at the very end is dropped, as Jinja2 does before lexing.
std::string normalize_newlines(std::string_view source);

/// The tokens of a normalised source, the last of type kEnd. Throws
/// ConfigError("WHERE:LINE:COLUMN",
/// ...) for what is no token, an unclosed tag, string, comment or raw block, and invalid UTF-8.
std::vector<Token> tokenize(std::string_view source, const std::string& where);

/// "WHERE:LINE:COLUMN" of a byte position, the column counted in code points from 1.
std::string describe_position(std::string_view source, size_t position, const std::string& where);

/// What an error calls the token: "'endfor'", "end of template", ...
std::string describe_token(const Token& token);

}  // namespace augur::jinja
