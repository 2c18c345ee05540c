// What the config structs say of their fields, and one list of all of them.
//
// Each struct names its fields once, in visit_fields. list_fields walks that and gives a flat
// list, from which the YAML reader, the writer, --help and docs/configuration.md are made.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace augur {

struct EngineConfig;

/// Which numbers a field accepts. Ignored by fields that are not numbers.
struct FieldRule {
  int64_t min = std::numeric_limits<int64_t>::min();
  int64_t max = std::numeric_limits<int64_t>::max();
  int64_t multiple_of = 1;
  bool is_bytes = false;  // a size: the suffixes KiB, MiB, GiB and TiB are understood
  std::span<const std::string_view> item_words;  // of a list: its items are some of these
};

constexpr FieldRule between(int64_t min, int64_t max, int64_t multiple_of = 1) {
  return FieldRule{.min = min, .max = max, .multiple_of = multiple_of};
}
constexpr FieldRule bytes_at_least(int64_t min) {
  return FieldRule{.min = min, .is_bytes = true};
}

constexpr FieldRule items_of(std::span<const std::string_view> words) {
  return FieldRule{.item_words = words};
}

/// An enum of underlying type uint8_t and the words for its values 0, 1, ...
struct EnumRef {
  uint8_t* value = nullptr;
  std::span<const std::string_view> words;
};

/// One field of an EngineConfig, which it points into.
struct ConfigField {
  std::string path;  // "kv_cache.block_size"
  std::string_view help;
  FieldRule rule;
  std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*, EnumRef> value;

  bool is_list() const { return std::holds_alternative<std::vector<std::string>*>(value); }
};

/// A struct within the config: "kv_cache".
struct ConfigSection {
  std::string path;
  std::string_view help;
};

struct ConfigSchema {
  std::vector<ConfigField> fields;  // in the order of the structs
  std::vector<ConfigSection> sections;

  const ConfigField* find_field(std::string_view path) const;
  bool is_section(std::string_view path) const;
};

/// Every field of `config`, which outlives the schema.
ConfigSchema list_fields(EngineConfig& config);

/// What a field accepts, for people: "a whole number from 1 to 64".
std::string accepted_values(const ConfigField& field);

/// The field's value as it would be written in a YAML file.
std::string format_value(const ConfigField& field);

/// Sets the field from text. Returns what is wrong (`found ..., accepted: ...`), leaving the field
/// as it was, or nothing. `is_quoted` text is only good for fields that are text or words. No text
/// is good for a list: see parse_list.
std::optional<std::string> parse_value(const ConfigField& field,
                                       std::string_view text,
                                       bool is_quoted);

/// The same for a list from its items. Requires field.is_list().
std::optional<std::string> parse_list(const ConfigField& field, std::vector<std::string> items);

/// "key", or what it may have been meant for: the nearest field by edit distance, those of
/// `section` first, else the keys of `section`.
std::string explain_unknown_key(const ConfigSchema& schema,
                                std::string_view section,
                                std::string_view key);

}  // namespace augur
