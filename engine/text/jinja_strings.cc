#include "engine/text/jinja_strings.h"

#include <algorithm>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

bool is_line_end(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

// The first byte of the last code point.
size_t last_code_point(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && text.size() - begin < 4 && (text[begin] & 0xC0) == 0x80) --begin;
  size_t position = begin;
  next_code_point(text, position);
  return position == text.size() ? begin : text.size() - 1;
}

void add_part(Runtime& runtime, std::string_view part, std::vector<Value>& parts) {
  runtime.charge_items(1);
  parts.push_back(runtime.text(std::string(part)));
}

std::vector<Value> split_at_spaces(Runtime& runtime, std::string_view text, Integer limit) {
  std::vector<Value> parts;
  for (text = strip_left(text); !text.empty(); text = strip_left(text)) {
    if (limit-- == 0) {
      add_part(runtime, text, parts);
      break;
    }
    size_t end = 0;
    for (size_t position = 0; position < text.size(); end = position) {
      if (is_space(next_code_point(text, position))) break;
    }
    add_part(runtime, text.substr(0, end), parts);
    text.remove_prefix(end);
  }
  return parts;
}

// In the order found: from the right.
std::vector<Value> rsplit_at_spaces(Runtime& runtime, std::string_view text, Integer limit) {
  std::vector<Value> parts;
  for (text = strip_right(text); !text.empty(); text = strip_right(text)) {
    if (limit-- == 0) {
      add_part(runtime, text, parts);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      size_t previous = last_code_point(text.substr(0, begin));
      size_t position = previous;
      if (is_space(next_code_point(text, position))) break;
      begin = previous;
    }
    add_part(runtime, text.substr(begin), parts);
    text = text.substr(0, begin);
  }
  return parts;
}

}  // namespace

std::string_view strip_text(std::string_view text, const Value& chars, bool left, bool right) {
  if (chars.is_none()) {
    if (left) text = strip_left(text);
    return right ? strip_right(text) : text;
  }
  std::u32string stripped;
  const std::string& bytes = chars.as_string();
  for (size_t position = 0; position < bytes.size();) {
    stripped += next_code_point(bytes, position);
  }
  const auto is_stripped = [&](size_t begin) {
    return stripped.find(next_code_point(text, begin)) != std::u32string::npos;
  };
  while (left && !text.empty() && is_stripped(0)) text.remove_prefix(byte_position(text, 1));
  while (right && !text.empty() && is_stripped(last_code_point(text))) {
    text = text.substr(0, last_code_point(text));
  }
  return text;
}

Value split_text(Runtime& runtime,
                 const std::string& text,
                 const Value& separator,
                 Integer limit,
                 bool from_right) {
  runtime.charge_scan(text.size());
  std::vector<Value> parts;
  if (separator.is_none()) {
    parts =
        from_right ? rsplit_at_spaces(runtime, text, limit) : split_at_spaces(runtime, text, limit);
    if (from_right) std::reverse(parts.begin(), parts.end());
    return Value::list(std::move(parts));
  }
  if (separator.is_undefined()) fail_undefined(separator);
  if (!separator.is_string()) {
    throw TemplateError("split(): the separator must be a string or None, not " +
                        std::string(separator.type_name()));
  }
  const std::string& between = separator.as_string();
  if (between.empty()) throw TemplateError("split(): empty separator");
  std::string_view rest = text;
  while (limit-- > 0) {
    // Each turn searches from one end again, which is linear in all unless rfind meets a long
    // separator.
    if (from_right) runtime.charge_scan(std::min<size_t>(between.size(), rest.size()));
    const size_t place = from_right ? rest.rfind(between) : find_bytes(rest, between, 0);
    if (place == std::string_view::npos) break;
    if (from_right) {
      add_part(runtime, rest.substr(place + between.size()), parts);
      rest = rest.substr(0, place);
    } else {
      add_part(runtime, rest.substr(0, place), parts);
      rest.remove_prefix(place + between.size());
    }
  }
  add_part(runtime, rest, parts);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return Value::list(std::move(parts));
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t position = 0; position < text.size();) {
    const size_t end = position;
    const char32_t c = next_code_point(text, position);
    if (!is_line_end(c)) continue;
    if (c == '\r' && position < text.size() && text[position] == '\n') ++position;
    lines.push_back(text.substr(begin, (keep_ends ? position : end) - begin));
    begin = position;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string replace_text(Runtime& runtime,
                         std::string_view text,
                         std::string_view old_text,
                         std::string_view new_text,
                         Integer limit) {
  TextBuilder out(runtime);
  if (old_text.empty()) {
    size_t position = 0;
    while (limit-- > 0) {
      out << new_text;
      if (position == text.size()) return out.take();
      const size_t begin = position;
      next_code_point(text, position);
      out << text.substr(begin, position - begin);
    }
    out << text.substr(position);
    return out.take();
  }
  size_t begin = 0;
  runtime.charge_scan(text.size());
  while (limit-- > 0) {
    const size_t place = find_bytes(text, old_text, begin);
    if (place == std::string_view::npos) break;
    out << text.substr(begin, place - begin) << new_text;
    begin = place + old_text.size();
  }
  out << text.substr(begin);
  return out.take();
}

Value pad_text(Runtime& runtime,
               std::string_view text,
               Integer width,
               std::string_view fill,
               Alignment alignment) {
  const Integer missing =
      std::max<Integer>(width - static_cast<Integer>(count_code_points(text)), 0);
  // As Python's center(): an odd one goes to the left when the width is odd too.
  const Integer left = alignment == Alignment::kLeft    ? 0
                       : alignment == Alignment::kRight ? missing
                                                        : missing / 2 + (missing & width & 1);
  TextBuilder out(runtime);
  out.repeat(fill, left) << text;
  out.repeat(fill, missing - left);
  return out.finish();
}

bool is_upper_text(std::string_view text) {
  bool is_any = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = next_code_point(text, position);
    if (is_lower(c)) return false;
    is_any = is_any || is_upper(c);
  }
  return is_any;
}

bool is_lower_text(std::string_view text) {
  bool is_any = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = next_code_point(text, position);
    if (is_upper(c)) return false;
    is_any = is_any || is_lower(c);
  }
  return is_any;
}

}  // namespace augur::jinja
