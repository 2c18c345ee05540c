// Matching the arguments of a call to the parameters of a built-in function, filter or test.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_value.h"

namespace augur::jinja {

class BoundArguments {
 public:
  /// Matches by position, then by name, as Python does. Throws TemplateError for an argument too
  /// many, an unknown name, one given twice, or fewer than `num_required`. `function` is what the
  /// error calls it. Refers to `arguments`, which outlives this.
  BoundArguments(std::string_view function,
                 const Arguments& arguments,
                 std::initializer_list<std::string_view> names,
                 size_t num_required = 0);

  /// Null when parameter `index` was not given.
  const Value* find(size_t index) const { return values_[index]; }
  /// None when it was not given.
  Value value(size_t index) const { return find(index) == nullptr ? Value::none() : *find(index); }
  bool flag(size_t index, bool fallback) const {
    return find(index) == nullptr ? fallback : find(index)->truthy();
  }
  /// Each throws TemplateError for a value of another type. None counts as not given.
  Integer integer(size_t index, Integer fallback) const;
  std::string text(size_t index, const std::string& fallback) const;

 private:
  [[noreturn]] void fail_type(size_t index, std::string_view expected) const;

  std::string_view function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

}  // namespace augur::jinja
