// What one rendering may use and what it owns.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/jinja_value.h"
#include "engine/text/template_limits.h"

namespace augur::jinja {

/// The budget of one rendering and the objects made by it. Used by one thread.
class Runtime {
 public:
  /// `now` is what strftime_now() formats; its weekday and day of the year are worked out here.
  Runtime(const TemplateLimits& limits, const std::tm& now);

  /// Each throws TemplateError once the limit is passed.
  void charge_steps(int64_t num_steps);
  void charge_bytes(int64_t num_bytes);
  /// Bytes that are only read: cheaper than bytes that are built.
  void charge_scan(size_t num_bytes) { charge_bytes(static_cast<int64_t>(num_bytes / 16)); }

  /// New values, charged for.
  Value text(std::string bytes, bool is_markup = false);
  Value list(std::vector<Value> items);
  Value tuple(std::vector<Value> items);
  Value generator(std::vector<Value> items);
  /// Charges for a container of `num_items` that is about to be made.
  void charge_items(size_t num_items);

  /// Keeps `object` until the end of the rendering.
  template <typename T>
  T& own(std::unique_ptr<T> object) {
    charge_items(4);
    objects_.push_back(std::move(object));
    return static_cast<T&>(*objects_.back());
  }

  const TemplateLimits& limits() const { return limits_; }
  const std::tm& now() const { return now_; }

  /// Printing of objects that may hold each other; refuses to nest deeper than kMaxValueDepth.
  int& print_depth() { return print_depth_; }

 private:
  const TemplateLimits limits_;
  std::tm now_;
  int64_t num_steps_ = 0;
  int64_t num_bytes_ = 0;
  int print_depth_ = 0;
  std::vector<std::unique_ptr<Object>> objects_;
};

/// A string under construction that is charged for as it grows.
class TextBuilder {
 public:
  explicit TextBuilder(Runtime& runtime) : runtime_(runtime) {}
  TextBuilder& operator<<(std::string_view text) {
    runtime_.charge_bytes(static_cast<int64_t>(text.size()));
    bytes_.append(text);
    return *this;
  }
  TextBuilder& repeat(std::string_view text, Integer count);
  const std::string& bytes() const { return bytes_; }
  Value finish(bool is_markup = false) { return Value::text(std::move(bytes_), is_markup); }
  std::string take() { return std::move(bytes_); }

 private:
  Runtime& runtime_;
  std::string bytes_;
};

}  // namespace augur::jinja
