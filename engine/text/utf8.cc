#include "engine/text/utf8.h"

#include <simdjson.h>

namespace augur {

Utf8Step read_utf8(std::string_view bytes) {
  using Kind = Utf8Step::Kind;
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {Kind::kCodePoint, 1, lead};
  // Overlong forms, surrogates and values past U+10FFFF all show in the range of the second byte.
  int length = 0;
  unsigned char second_min = 0x80;
  unsigned char second_max = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) second_min = 0xA0;
    if (lead == 0xED) second_max = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) second_min = 0x90;
    if (lead == 0xF4) second_max = 0x8F;
  } else {
    return {Kind::kInvalid, 1, 0};
  }
  char32_t code_point = lead & (0xFF >> (length + 1));
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) == bytes.size()) {
      return {Kind::kIncomplete, static_cast<uint8_t>(i), 0};
    }
    const unsigned char byte = at(i);
    const bool fits = i == 1 ? byte >= second_min && byte <= second_max : (byte & 0xC0) == 0x80;
    if (!fits) return {Kind::kInvalid, static_cast<uint8_t>(i), 0};
    code_point = code_point << 6 | (byte & 0x3F);
  }
  return {Kind::kCodePoint, static_cast<uint8_t>(length), code_point};
}

void append_utf8(char32_t code_point, std::string& out) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

std::string_view valid_utf8_or_repaired(std::string_view text, std::string& storage) {
  if (simdjson::validate_utf8(text.data(), text.size())) return text;
  storage.clear();
  storage.reserve(text.size() + text.size() / 8);
  Utf8Repairer repairer;
  repairer.push(text, storage);
  repairer.finish(storage);
  return storage;
}

void Utf8Repairer::push(std::string_view bytes, std::string& out) {
  std::string joined;
  if (!held_.empty()) {
    joined = std::move(held_);
    joined += bytes;
    held_.clear();
    bytes = joined;
  }
  size_t position = 0;
  while (position < bytes.size()) {
    const Utf8Step step = read_utf8(bytes.substr(position));
    switch (step.kind) {
      case Utf8Step::Kind::kCodePoint:
        out.append(bytes.substr(position, step.num_bytes));
        break;
      case Utf8Step::Kind::kInvalid:
        out.append(kReplacementCharacter);
        break;
      case Utf8Step::Kind::kIncomplete:
        held_ = bytes.substr(position);
        return;
    }
    position += step.num_bytes;
  }
}

void Utf8Repairer::finish(std::string& out) {
  if (!held_.empty()) out.append(kReplacementCharacter);
  held_.clear();
}

}  // namespace augur
