// The printable stand-ins for bytes of byte-level BPE (GPT-2): every byte has one code point, its
// own when it is printable Latin-1, else one from U+0100 on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace augur {

char32_t byte_to_stand_in(uint8_t byte);
std::optional<uint8_t> stand_in_to_byte(char32_t code_point);

/// Appends the stand-ins of `bytes` to `out`.
void append_stand_ins(std::string_view bytes, std::string& out);

/// The bytes that `text` (well-formed UTF-8) stands for; nothing when a code point is no stand-in.
std::optional<std::string> bytes_of_stand_ins(std::string_view text);

}  // namespace augur
