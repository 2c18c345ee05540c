// The filters (value|name) and tests (value is name) of Jinja2 that templates may use.
#pragma once

#include <span>
#include <string_view>

#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

/// `input` is what stands before the bar.
using FilterFunction = Value (*)(Runtime& runtime, const Value& input, const Arguments& arguments);
using TestFunction = bool (*)(Runtime& runtime, const Value& input, const Arguments& arguments);

/// Null when there is none of that name.
FilterFunction find_filter(std::string_view name);
TestFunction find_test(std::string_view name);

/// The same, for filters that take the name of another: throws TemplateError when there is none.
FilterFunction require_filter(std::string_view name);
TestFunction require_test(std::string_view name);

struct FilterEntry {
  std::string_view name;
  FilterFunction function;
};

// The parts of the table, one per source file.
std::span<const FilterEntry> value_filters();     // jinja_filters.cc: of single values
std::span<const FilterEntry> text_filters();      // jinja_text_filters.cc
std::span<const FilterEntry> sequence_filters();  // jinja_sequence_filters.cc

}  // namespace augur::jinja
