#include "engine/text/json_object.h"

#include "configs/config_error.h"
#include "engine/text/in_quotes.h"

namespace augur {

using simdjson::dom::element;
using simdjson::dom::element_type;

std::string type_in_words(element value) {
  switch (value.type()) {
    case element_type::ARRAY:
      return "an array";
    case element_type::OBJECT:
      return "an object";
    case element_type::INT64:
    case element_type::UINT64:
      return "an integer";
    case element_type::DOUBLE:
      return "a number with a fraction or exponent";
    case element_type::STRING:
      return "a string";
    case element_type::BOOL:
      return "true or false";
    case element_type::NULL_VALUE:
      return "null";
  }
  return "an unknown type";
}

JsonObject JsonObject::from(element value, const std::string& where) {
  if (!value.is_object()) {
    throw ConfigError(where, "found " + type_in_words(value) + "; expected an object");
  }
  return JsonObject(value.get_object().value(), where);
}

std::string JsonObject::where(std::string_view key) const {
  const bool is_root = where_.ends_with(": ");
  return where_ + (is_root ? "" : ".") + std::string(key);
}

void JsonObject::fail(std::string_view key, const std::string& what) const {
  throw ConfigError(where(key), what);
}

std::optional<element> JsonObject::find(std::string_view key) const {
  element value;
  if (object_.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

element JsonObject::at(std::string_view key) const {
  const std::optional<element> value = find(key);
  if (!value) fail(key, "is missing");
  return *value;
}

std::string_view JsonObject::string_at(std::string_view key) const {
  const element value = at(key);
  if (!value.is_string()) fail(key, "found " + type_in_words(value) + "; expected a string");
  return value.get_string().value();
}

bool JsonObject::bool_at(std::string_view key) const {
  const element value = at(key);
  if (!value.is_bool()) fail(key, "found " + type_in_words(value) + "; expected true or false");
  return value.get_bool().value();
}

bool JsonObject::bool_at(std::string_view key, bool absent) const {
  return find(key) ? bool_at(key) : absent;
}

simdjson::dom::array JsonObject::array_at(std::string_view key) const {
  const element value = at(key);
  if (!value.is_array()) fail(key, "found " + type_in_words(value) + "; expected an array");
  return value.get_array().value();
}

JsonObject JsonObject::object_at(std::string_view key) const {
  return JsonObject::from(at(key), where(key));
}

int64_t JsonObject::index_at(std::string_view key, int64_t limit) const {
  const element value = at(key);
  int64_t index = 0;
  if (value.get(index) != simdjson::SUCCESS || index < 0 || index >= limit) {
    fail(key, "found " + simdjson::to_string(value) + "; expected an integer from 0 to " +
                  std::to_string(limit - 1));
  }
  return index;
}

void JsonObject::fail_type(std::string_view supported) const {
  fail("type", in_quotes(type()) + " is not supported; supported: " + std::string(supported));
}

}  // namespace augur
