#include "engine/text/byte_alphabet.h"

#include <array>

#include "engine/text/utf8.h"

namespace augur {
namespace {

constexpr bool is_printable(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Tables {
  std::array<char32_t, 256> stand_ins{};
  std::array<int16_t, 0x200> bytes{};
};

constexpr Tables make_tables() {
  Tables tables;
  tables.bytes.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t stand_in = is_printable(byte) ? static_cast<char32_t>(byte) : next++;
    tables.stand_ins[byte] = stand_in;
    tables.bytes[stand_in] = static_cast<int16_t>(byte);
  }
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

char32_t byte_to_stand_in(uint8_t byte) {
  return kTables.stand_ins[byte];
}

std::optional<uint8_t> stand_in_to_byte(char32_t code_point) {
  if (code_point >= kTables.bytes.size() || kTables.bytes[code_point] < 0) return std::nullopt;
  return static_cast<uint8_t>(kTables.bytes[code_point]);
}

void append_stand_ins(std::string_view bytes, std::string& out) {
  for (const char byte : bytes) append_utf8(byte_to_stand_in(static_cast<uint8_t>(byte)), out);
}

std::optional<std::string> bytes_of_stand_ins(std::string_view text) {
  std::string bytes;
  for (size_t position = 0; position < text.size();) {
    const std::optional<uint8_t> byte = stand_in_to_byte(next_code_point(text, position));
    if (!byte) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
  }
  return bytes;
}

}  // namespace augur
