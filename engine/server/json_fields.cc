#include "engine/server/json_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/monotonic_resource.hpp>
#include <boost/json/parser.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>

#include "engine/server/api_error.h"
#include "engine/text/utf8.h"

namespace augur::server {
namespace {

namespace json = boost::json;

constexpr size_t kMaxShownBytes = 64;

/// Values of a body, counted by the commas and brackets outside of strings: never less than there
/// are.
int64_t count_values(std::string_view body) {
  int64_t num_values = 1;
  for (size_t i = 0; i < body.size(); ++i) {
    switch (body[i]) {
      case ',':
      case '[':
      case '{':
        ++num_values;
        break;
      case '"':
        for (++i; i < body.size() && body[i] != '"'; ++i) {
          if (body[i] == '\\') ++i;
        }
        break;
    }
  }
  return num_values;
}

std::string cut(std::string_view text) {
  if (text.size() <= kMaxShownBytes) return std::string(text);
  return std::string(text.substr(0, previous_boundary(text, kMaxShownBytes))) + "...";
}

std::string in_words(IntegerRange range) {
  const IntegerRange all;
  if (range.max == all.max && range.min == all.min) return "a whole number of 64 bits";
  if (range.max == all.max) return fmt::format("a whole number from {} on", range.min);
  if (range.max == range.min) return fmt::format("{}", range.min);
  return fmt::format("a whole number from {} to {}", range.min, range.max);
}

std::string in_words(NumberRange range) {
  return fmt::format("a number {} {} to {}", range.excludes_min ? "above" : "from", range.min,
                     range.max);
}

/// The whole number that `value` is; nullopt when it is none, or has more than 64 bits.
std::optional<int64_t> whole_number(const json::value& value) {
  if (const int64_t* number = value.if_int64()) return *number;
  const double* real = value.if_double();
  // Past 2^53 a double no longer says which whole number was meant.
  if (real == nullptr || !(std::abs(*real) <= 9007199254740992.0)) return std::nullopt;
  if (*real != std::trunc(*real)) return std::nullopt;
  return static_cast<int64_t>(*real);
}

bool asks_for_nothing(const json::value& value) {
  if (const bool* flag = value.if_bool()) return !*flag;
  if (const json::string* text = value.if_string()) return text->empty();
  if (const json::array* list = value.if_array()) return list->empty();
  if (const json::object* object = value.if_object()) return object->empty();
  return false;
}

}  // namespace

json::value parse_json_object(std::string_view body, int64_t max_values) {
  if (body.empty()) throw bad_request("", "the request has no body; accepted: a JSON object");
  if (const int64_t num_values = count_values(body); num_values > max_values) {
    throw bad_request("", fmt::format("the body holds about {} JSON values; accepted: at most {}",
                                      num_values, max_values));
  }
  json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  json::parser parser(json::make_shared_resource<json::monotonic_resource>(), options);
  json::error_code error;
  const size_t num_read = parser.write_some(body.data(), body.size(), error);
  if (!error && body.find_first_not_of(" \t\r\n", num_read) != std::string_view::npos) {
    error = json::error::extra_data;
  }
  if (error) {
    throw bad_request(
        "", fmt::format("the body is not valid JSON: {} at byte {}", error.message(), num_read));
  }
  json::value value = parser.release();
  if (!value.is_object()) {
    throw bad_request("", "the body is " + describe(value) + "; accepted: a JSON object");
  }
  return value;
}

std::string describe(const json::value& value) {
  switch (value.kind()) {
    case json::kind::array:
      return fmt::format("a list of {}", value.get_array().size());
    case json::kind::object:
      return "an object";
    case json::kind::string:
      return "the string \"" + cut(value.get_string()) + "\"";
    case json::kind::double_:
      return fmt::format("{}", value.get_double());
    default:
      return json::serialize(value);
  }
}

void fail_field(const std::string& path, const json::value& value, const std::string& accepted) {
  throw bad_request(path, fmt::format("{} is {}; accepted: {}", path, describe(value), accepted));
}

void fail_unsupported(const std::string& path,
                      const json::value& value,
                      const std::string& accepted) {
  throw bad_request(path,
                    fmt::format("{} is {}, which is not supported; accepted: {}", path,
                                describe(value), accepted),
                    "unsupported_value");
}

int64_t to_integer(const json::value& value, const std::string& path, IntegerRange range) {
  const std::optional<int64_t> number = whole_number(value);
  if (!number || *number < range.min || *number > range.max) {
    fail_field(path, value, in_words(range));
  }
  return *number;
}

float to_number(const json::value& value, const std::string& path, NumberRange range) {
  double real = 0;
  if (const int64_t* integer = value.if_int64()) {
    real = static_cast<double>(*integer);
  } else if (const uint64_t* large = value.if_uint64()) {
    real = static_cast<double>(*large);
  } else if (const double* number = value.if_double()) {
    real = *number;
  } else {
    fail_field(path, value, in_words(range));
  }
  // Written so that NaN fails. A double beyond a float's range is compared before it is converted.
  const bool is_finite = std::abs(real) <= std::numeric_limits<float>::max();
  const float number = is_finite ? static_cast<float>(real) : 0;
  const bool is_above = range.excludes_min ? number > range.min : number >= range.min;
  if (!is_finite || !is_above || !(number <= range.max)) fail_field(path, value, in_words(range));
  return number;
}

bool to_bool(const json::value& value, const std::string& path) {
  const bool* flag = value.if_bool();
  if (flag == nullptr) fail_field(path, value, "true or false");
  return *flag;
}

std::string_view to_string(const json::value& value,
                           const std::string& path,
                           size_t min_bytes,
                           size_t max_bytes) {
  const json::string* text = value.if_string();
  if (text == nullptr) fail_field(path, value, "a string");
  if (text->size() < min_bytes || text->size() > max_bytes) {
    throw bad_request(path, fmt::format("{} has {} bytes; accepted: {} to {}", path, text->size(),
                                        min_bytes, max_bytes));
  }
  return *text;
}

const json::object& to_object(const json::value& value, const std::string& path) {
  const json::object* object = value.if_object();
  if (object == nullptr) fail_field(path, value, "an object");
  return *object;
}

std::string item_path(const std::string& path, size_t idx) {
  return fmt::format("{}[{}]", path, idx);
}

std::string JsonFields::path_of(std::string_view key) const {
  if (path_.empty()) return std::string(key);
  return fmt::format("{}.{}", path_, key);
}

const json::value* JsonFields::find(std::string_view key) const {
  known_.push_back(key);
  const json::value* value = object_.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::optional<int64_t> JsonFields::integer(std::string_view key, IntegerRange range) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_integer(*value, path_of(key), range);
}

std::optional<float> JsonFields::number(std::string_view key, NumberRange range) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_number(*value, path_of(key), range);
}

std::optional<bool> JsonFields::boolean(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_bool(*value, path_of(key));
}

bool JsonFields::boolean_or(std::string_view key, bool absent) const {
  return boolean(key).value_or(absent);
}

std::optional<std::string_view> JsonFields::string(std::string_view key,
                                                   size_t max_bytes,
                                                   size_t min_bytes) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_string(*value, path_of(key), min_bytes, max_bytes);
}

std::optional<JsonFields> JsonFields::object(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return JsonFields(to_object(*value, path_of(key)), path_of(key));
}

void JsonFields::refuse(std::span<const std::string_view> keys) const {
  for (const std::string_view key : keys) {
    const json::value* value = find(key);
    if (value != nullptr && !asks_for_nothing(*value)) {
      fail_unsupported(path_of(key), *value, "null, or leaving it out");
    }
  }
}

void JsonFields::refuse_unknown() const {
  for (const auto& member : object_) {
    const std::string_view key = member.key();
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    std::vector<std::string_view> accepted = known_;
    std::sort(accepted.begin(), accepted.end());
    throw bad_request(path_of(cut(key)), fmt::format("{} is not a known field; accepted: {}",
                                                     path_of(cut(key)), fmt::join(accepted, ", ")));
  }
}

}  // namespace augur::server
