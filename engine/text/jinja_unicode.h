// Code points of UTF-8 text and the properties that Python's str methods ask of them.
//
// Text from outside may be invalid UTF-8. A byte that is no part of a valid sequence counts as one
// code point of value kInvalidByte + byte, which append_code_point writes back as that byte, so
// that no operation loses or changes such bytes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace augur::jinja {

constexpr char32_t kInvalidByte = 0x110000;

/// Decodes the code point at `position` (< text.size()) and moves `position` past it.
char32_t next_code_point(std::string_view text, size_t& position);
void append_code_point(std::string& out, char32_t code_point);

/// The byte position of the first byte that is not valid UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

size_t count_code_points(std::string_view text);
/// The byte position of code point `index`, or text.size() when there are fewer.
size_t byte_position(std::string_view text, size_t index);

/// What Python's str.isspace() says: the Unicode spaces and the ASCII separators 0x1C to 0x1F.
bool is_space(char32_t code_point);
bool is_letter(char32_t code_point);
bool is_decimal(char32_t code_point);
/// Decimal digits and the superscript and circled ones.
bool is_digit(char32_t code_point);
/// Numbers of any kind: decimals, fractions, Roman numerals.
bool is_numeric(char32_t code_point);
/// Letters and numbers of any kind (str.isalnum).
bool is_alphanumeric(char32_t code_point);
bool is_upper(char32_t code_point);
bool is_lower(char32_t code_point);
/// Whether repr() shows it as it is.
bool is_printable(char32_t code_point);

std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);

/// Case mapping code point by code point, with the expansions of one letter into several
/// that occur in running text (sharp s, ligatures, dotted capital I), and the final sigma.
std::string to_lower(std::string_view text);
std::string to_upper(std::string_view text);
/// First code point in title case, the rest in lower case.
std::string capitalize(std::string_view text);
/// Every letter after a non-letter in title case, the other letters in lower case.
std::string title_case(std::string_view text);
std::string swap_case(std::string_view text);
/// str.casefold(): lower case for comparing, sharp s as ss.
std::string fold_case(std::string_view text);

}  // namespace augur::jinja
