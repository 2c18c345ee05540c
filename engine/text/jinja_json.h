// JSON documents to template values and back.
#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>

#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

/// Objects keep the order of their keys. Throws TemplateError when nested deeper than
/// kMaxValueDepth.
Value from_json(const boost::json::value& json);

/// The keyword arguments of Python's json.dumps that transformers' tojson takes.
struct JsonFormat {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  // one level of it; on one line when absent
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

/// json.dumps(value). Throws TemplateError for what JSON has no form of (undefined, functions).
std::string to_json(Runtime& runtime, const Value& value, const JsonFormat& format);

}  // namespace augur::jinja
