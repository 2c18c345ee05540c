#include "configs/config_field.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>

namespace augur {
namespace {

template <typename... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <typename... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

struct Unit {
  std::string_view suffix;
  int64_t bytes;
};
// Largest first: format_value takes the first that divides the value.
constexpr std::array<Unit, 5> kUnits{{{"TiB", int64_t{1} << 40},
                                      {"GiB", int64_t{1} << 30},
                                      {"MiB", int64_t{1} << 20},
                                      {"KiB", int64_t{1} << 10},
                                      {"B", 1}}};

std::string format_bytes(int64_t bytes) {
  if (bytes != 0)
    for (const Unit& unit : kUnits)
      if (unit.bytes > 1 && bytes % unit.bytes == 0)
        return std::to_string(bytes / unit.bytes) + std::string(unit.suffix);
  return std::to_string(bytes);
}

/// A whole decimal number with no blanks or plus sign around it; nothing for anything else.
std::optional<int64_t> parse_integer(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return {};
  return number;
}

/// A finite decimal number, likewise.
std::optional<double> parse_real(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(number)) return {};
  return number;
}

std::optional<int64_t> parse_bytes(std::string_view text) {
  int64_t factor = 1;
  for (const Unit& unit : kUnits) {
    if (!text.ends_with(unit.suffix)) continue;
    factor = unit.bytes;
    text.remove_suffix(unit.suffix.size());
    while (text.ends_with(' ')) text.remove_suffix(1);
    break;
  }
  const std::optional<int64_t> number = parse_integer(text);
  int64_t bytes = 0;
  if (!number || __builtin_mul_overflow(*number, factor, &bytes)) return {};
  return bytes;
}

bool follows_rule(int64_t number, const FieldRule& rule) {
  return number >= rule.min && number <= rule.max && number % rule.multiple_of == 0;
}

std::string quoted(std::string_view text) {
  constexpr size_t kShown = 80;  // an error is one line
  std::string shown(text.substr(0, kShown));
  for (char& c : shown)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return '"' + shown + (text.size() > kShown ? "...\"" : "\"");
}

/// A YAML double-quoted scalar.
std::string yaml_string(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (byte < 0x20 || byte == 0x7f) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  return out + '"';
}

/// "a, b or c".
std::string joined(std::span<const std::string_view> words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += words[i];
  }
  return text;
}

std::string yaml_list(std::span<const std::string> items) {
  std::string text = "[";
  for (size_t i = 0; i < items.size(); ++i) text += (i > 0 ? ", " : "") + yaml_string(items[i]);
  return text + "]";
}

/// Levenshtein's distance: insertions, deletions and replacements of a byte.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::string_view last_part(std::string_view path) {
  return path.substr(path.rfind('.') + 1);  // npos + 1 == 0
}

std::string_view parent_part(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : path.substr(0, dot);
}

}  // namespace

std::string accepted_values(const ConfigField& field) {
  const FieldRule& rule = field.rule;
  return std::visit(
      Overloaded{
          [](bool*) -> std::string { return "true or false"; },
          [](std::string*) -> std::string { return "text"; },
          [&](std::vector<std::string>*) -> std::string {
            return rule.item_words.empty() ? "a list of texts"
                                           : "a list of " + joined(rule.item_words);
          },
          [](const EnumRef& choice) { return joined(choice.words); },
          [&](double*) {
            return "a number from " + std::to_string(rule.min) + " to " + std::to_string(rule.max);
          },
          [&](int64_t*) {
            const bool has_min = rule.min != FieldRule{}.min;
            const bool has_max = rule.max != FieldRule{}.max;
            std::string text = rule.is_bytes ? "bytes, or a size such as 512MiB or 8GiB"
                               : rule.multiple_of > 1
                                   ? "a multiple of " + std::to_string(rule.multiple_of)
                                   : "a whole number";
            if (has_min && has_max)
              text += " from " + std::to_string(rule.min) + " to " + std::to_string(rule.max);
            else if (has_min)
              text += ", at least " + std::to_string(rule.min);
            return text;
          }},
      field.value);
}

std::string format_value(const ConfigField& field) {
  return std::visit(
      Overloaded{[](bool* value) -> std::string { return *value ? "true" : "false"; },
                 [](std::string* value) { return yaml_string(*value); },
                 [](std::vector<std::string>* value) { return yaml_list(*value); },
                 [](const EnumRef& choice) { return std::string(choice.words[*choice.value]); },
                 [](double* value) {
                   std::array<char, 32> text;
                   const auto end = std::to_chars(text.data(), text.data() + text.size(), *value);
                   return std::string(text.data(), end.ptr);
                 },
                 [&](int64_t* value) {
                   return field.rule.is_bytes ? format_bytes(*value) : std::to_string(*value);
                 }},
      field.value);
}

std::optional<std::string> parse_value(const ConfigField& field,
                                       std::string_view text,
                                       bool is_quoted) {
  const bool is_set = std::visit(
      Overloaded{[&](bool* value) {
                   if (is_quoted || (text != "true" && text != "false")) return false;
                   *value = text == "true";
                   return true;
                 },
                 [&](std::string* value) {
                   *value = text;
                   return true;
                 },
                 [](std::vector<std::string>*) { return false; },
                 [&](const EnumRef& choice) {
                   const auto word = std::find(choice.words.begin(), choice.words.end(), text);
                   if (word == choice.words.end()) return false;
                   *choice.value = static_cast<uint8_t>(word - choice.words.begin());
                   return true;
                 },
                 [&](double* value) {
                   const std::optional<double> number = is_quoted ? std::nullopt : parse_real(text);
                   if (!number || *number < static_cast<double>(field.rule.min) ||
                       *number > static_cast<double>(field.rule.max)) {
                     return false;
                   }
                   *value = *number;
                   return true;
                 },
                 [&](int64_t* value) {
                   // A quoted size is fine: "8 GiB" looks like text to many people.
                   if (is_quoted && !field.rule.is_bytes) return false;
                   const std::optional<int64_t> number =
                       field.rule.is_bytes ? parse_bytes(text) : parse_integer(text);
                   if (!number || !follows_rule(*number, field.rule)) return false;
                   *value = *number;
                   return true;
                 }},
      field.value);
  if (is_set) return {};
  return "found " + std::string(is_quoted ? "the text " : "") + quoted(text) +
         ", accepted: " + accepted_values(field);
}

std::optional<std::string> parse_list(const ConfigField& field, std::vector<std::string> items) {
  const std::span<const std::string_view> words = field.rule.item_words;
  for (size_t i = 0; i < items.size(); ++i) {
    const bool is_word = std::find(words.begin(), words.end(), items[i]) != words.end();
    const bool is_repeated =
        std::find(items.begin(), items.begin() + i, items[i]) != items.begin() + i;
    if (!words.empty() && (!is_word || is_repeated)) {
      return "found " + quoted(items[i]) + (is_repeated ? " twice" : "") +
             ", accepted: " + accepted_values(field);
    }
  }
  *std::get<std::vector<std::string>*>(field.value) = std::move(items);
  return {};
}

std::string explain_unknown_key(const ConfigSchema& schema,
                                std::string_view section,
                                std::string_view key) {
  const std::string_view name = last_part(key);
  std::string_view nearest;
  size_t nearest_distance = std::max<size_t>(2, name.size() / 3) + 1;
  const auto consider = [&](std::string_view path) {
    const size_t distance = edit_distance(name, last_part(path));
    const bool is_in_section = parent_part(path) == section;
    if (distance < nearest_distance || (distance == nearest_distance && !nearest.empty() &&
                                        is_in_section && parent_part(nearest) != section)) {
      nearest = path;
      nearest_distance = distance;
    }
  };
  // Keys longer than any of ours could be by far are not worth the time.
  if (name.size() <= 256) {
    for (const ConfigField& field : schema.fields) consider(field.path);
    for (const ConfigSection& inner : schema.sections) consider(inner.path);
  }
  const std::string unknown = "unknown key " + quoted(key);
  if (!nearest.empty()) return unknown + "; did you mean \"" + std::string(nearest) + "\"?";

  std::string keys;
  const auto list = [&](std::string_view path) {
    if (parent_part(path) != section) return;
    keys += (keys.empty() ? "" : ", ") + std::string(last_part(path));
  };
  for (const ConfigSection& inner : schema.sections) list(inner.path);
  for (const ConfigField& field : schema.fields) list(field.path);
  return unknown + "; accepted: " + keys;
}

}  // namespace augur
