// Writing JSON by appending to a string: what answers are made of, without a tree in between.
//
// Threading: free functions without state.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace augur::server {

/// Appends `text` as a JSON string, in quotes. Bytes that are not UTF-8 become U+FFFD, so that what
/// is appended is always valid JSON.
void append_json_string(std::string_view text, std::string& out);

/// The same without the quotes: pieces appended one after another are what the whole would be,
/// where each piece is well-formed UTF-8.
void append_json_characters(std::string_view text, std::string& out);

void append_json_integer(int64_t value, std::string& out);

/// Appends the shortest number that reads back as `value`. What JSON has no form of, and what is
/// below it, becomes -9999, as OpenAI writes a token that cannot come.
void append_json_logprob(float value, std::string& out);

/// Appends "1,2,3": the inside of a list.
void append_json_integers(std::span<const int32_t> values, std::string& out);

}  // namespace augur::server
