// Typed reading of JSON objects, where every complaint names the file and the place in it.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace augur {

/// A JSON object and where it stands, as "FILE: model.vocab". All methods throw ConfigError when
/// a value has the wrong type. A key whose value is null counts as absent.
class JsonObject {
 public:
  JsonObject(simdjson::dom::object object, std::string where)
      : object_(object), where_(std::move(where)) {}
  /// Throws unless `element` is an object.
  static JsonObject from(simdjson::dom::element element, const std::string& where);

  const std::string& where() const { return where_; }
  /// Where the value of `key` stands.
  std::string where(std::string_view key) const;
  [[noreturn]] void fail(std::string_view key, const std::string& what) const;

  std::optional<simdjson::dom::element> find(std::string_view key) const;
  simdjson::dom::element at(std::string_view key) const;
  std::string_view string_at(std::string_view key) const;
  bool bool_at(std::string_view key) const;
  bool bool_at(std::string_view key, bool absent) const;
  simdjson::dom::array array_at(std::string_view key) const;
  JsonObject object_at(std::string_view key) const;
  /// An integer in [0, limit).
  int64_t index_at(std::string_view key, int64_t limit) const;
  /// The "type" of a component of tokenizer.json.
  std::string_view type() const { return string_at("type"); }
  /// Says that type() is not one of `supported`, a list in words.
  [[noreturn]] void fail_type(std::string_view supported) const;

 private:
  simdjson::dom::object object_;
  std::string where_;
};

/// The type of `element` in words: "a string", "an object", ...
std::string type_in_words(simdjson::dom::element element);

}  // namespace augur
