// A config.json or generation_config.json as typed, range-checked values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace augur {

/// Both ends included.
template <typename T>
struct Range {
  T min;
  T max;
};

/// A view of one JSON object. A key that is null counts as absent, as Hugging Face writes unset
/// values; keys nobody asks for are ignored. Every getter throws ConfigError with the file, the
/// key, what was found and what is accepted. Cheap to copy. Threading: constant after it is made.
class HfConfig {
 public:
  /// Refuses files over 16 MiB, text that is not JSON (NaN and Infinity are not), and repeated
  /// keys.
  static HfConfig read(const std::filesystem::path& path);
  /// `where` is the file's name for errors.
  static HfConfig parse(std::string_view json, std::string where);

  bool has(std::string_view key) const;
  /// The first of `keys` that is present, or else the first: newer files rename some.
  std::string_view present_of(std::initializer_list<std::string_view> keys) const;

  /// A whole number, written without point or exponent.
  int64_t integer(std::string_view key, Range<int64_t> range) const;
  int64_t integer_or(std::string_view key, int64_t fallback, Range<int64_t> range) const;
  double number(std::string_view key, Range<double> range) const;
  double number_or(std::string_view key, double fallback, Range<double> range) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::string text(std::string_view key) const;
  std::string text_or(std::string_view key, std::string_view fallback) const;
  /// A list of whole numbers or a single one; empty when absent.
  std::vector<int64_t> integers(std::string_view key, Range<int64_t> range) const;
  /// A list of strings; empty when absent.
  std::vector<std::string> texts(std::string_view key) const;
  std::optional<HfConfig> object(std::string_view key) const;
  bool is_empty() const;

  /// Throws ConfigError for `key`: "found X; accepted: ACCEPTED".
  [[noreturn]] void refuse(std::string_view key, const std::string& accepted) const;
  /// Throws ConfigError for the file as a whole.
  [[noreturn]] void refuse_file(const std::string& what) const;

  const std::string& where() const;

 private:
  struct State;
  explicit HfConfig(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace augur
