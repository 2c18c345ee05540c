// Reading the JSON body of a request: every field checked for its kind and its range.
//
// What is wrong is told by ApiError (400) with the field as a path ("messages[2].role"), what was
// found and what is accepted. A field that is null counts as absent, as with OpenAI.
// Threading: one thread.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace augur::server {

/// How deeply a body may nest.
inline constexpr int kMaxJsonDepth = 64;

/// Parses a body that must be an object. Before memory is taken the values in it are counted:
/// more than `max_values` are refused. Text must be UTF-8 without lone surrogates. Where a key
/// comes twice, the last counts.
boost::json::value parse_json_object(std::string_view body, int64_t max_values);

/// Both ends included.
struct IntegerRange {
  int64_t min = std::numeric_limits<int64_t>::min();
  int64_t max = std::numeric_limits<int64_t>::max();
};

/// Numbers are single precision: what a double becomes is compared.
struct NumberRange {
  float min = 0;
  float max = 0;
  bool excludes_min = false;
};

/// What a value is, for people: `"1"`, `a list of 3`, `null`. Long text is cut.
std::string describe(const boost::json::value& value);

[[noreturn]] void fail_field(const std::string& path,
                             const boost::json::value& value,
                             const std::string& accepted);
/// The error for a field that asks for what we do not do; code "unsupported_value".
[[noreturn]] void fail_unsupported(const std::string& path,
                                   const boost::json::value& value,
                                   const std::string& accepted);

// A value that stands at `path`. A whole number may be written with a point or an exponent: 16.0.
int64_t to_integer(const boost::json::value& value, const std::string& path, IntegerRange range);
float to_number(const boost::json::value& value, const std::string& path, NumberRange range);
bool to_bool(const boost::json::value& value, const std::string& path);
std::string_view to_string(const boost::json::value& value,
                           const std::string& path,
                           size_t min_bytes,
                           size_t max_bytes);
const boost::json::object& to_object(const boost::json::value& value, const std::string& path);
std::string item_path(const std::string& path, size_t idx);

/// An object and where it stands. It remembers which keys were asked for.
class JsonFields {
 public:
  /// `object` outlives this. `path` is empty for the body itself.
  explicit JsonFields(const boost::json::object& object, std::string path = {})
      : object_(object), path_(std::move(path)) {}

  std::string path_of(std::string_view key) const;
  /// The value of `key`, or null when it is absent or null.
  const boost::json::value* find(std::string_view key) const;

  std::optional<int64_t> integer(std::string_view key, IntegerRange range) const;
  std::optional<float> number(std::string_view key, NumberRange range) const;
  std::optional<bool> boolean(std::string_view key) const;
  bool boolean_or(std::string_view key, bool absent) const;
  std::optional<std::string_view> string(std::string_view key,
                                         size_t max_bytes,
                                         size_t min_bytes = 0) const;
  std::optional<JsonFields> object(std::string_view key) const;

  /// Refuses each of `keys` that asks for something: anything but null, false, "", [] and {}.
  void refuse(std::span<const std::string_view> keys) const;
  /// Refuses keys that nothing above has asked for; for when the whole object has been read.
  void refuse_unknown() const;

 private:
  const boost::json::object& object_;
  std::string path_;
  mutable std::vector<std::string_view> known_;
};

}  // namespace augur::server
