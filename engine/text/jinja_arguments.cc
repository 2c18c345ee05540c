#include "engine/text/jinja_arguments.h"

#include <algorithm>

#include "engine/text/template_error.h"

namespace augur::jinja {

BoundArguments::BoundArguments(std::string_view function,
                               const Arguments& arguments,
                               std::initializer_list<std::string_view> names,
                               size_t num_required)
    : function_(function), names_(names), values_(names.size(), nullptr) {
  const std::string prefix = std::string(function) + "(): ";
  if (arguments.positional.size() > names_.size()) {
    throw TemplateError(prefix + "takes at most " + std::to_string(names_.size()) +
                        " arguments, got " + std::to_string(arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) {
      throw TemplateError(prefix + "got an unexpected keyword argument '" + name + "'");
    }
    const Value*& slot = values_[static_cast<size_t>(found - names_.begin())];
    if (slot != nullptr) {
      throw TemplateError(prefix + "got multiple values for argument '" + name + "'");
    }
    slot = &value;
  }
  for (size_t i = 0; i < num_required; ++i) {
    if (values_[i] == nullptr) {
      throw TemplateError(prefix + "missing argument '" + std::string(names_[i]) + "'");
    }
  }
}

Integer BoundArguments::integer(size_t index, Integer fallback) const {
  const Value* value = find(index);
  if (value == nullptr || value->is_none()) return fallback;
  if (!value->is_integral()) fail_type(index, "an integer");
  return value->as_integer();
}

std::string BoundArguments::text(size_t index, const std::string& fallback) const {
  const Value* value = find(index);
  if (value == nullptr || value->is_none()) return fallback;
  if (!value->is_string()) fail_type(index, "a string");
  return value->as_string();
}

void BoundArguments::fail_type(size_t index, std::string_view expected) const {
  const Value& value = *values_[index];
  if (value.is_undefined()) throw TemplateError(value.undefined_message());
  throw TemplateError(std::string(function_) + "(): argument '" + std::string(names_[index]) +
                      "' must be " + std::string(expected) + ", not " +
                      std::string(value.type_name()));
}

}  // namespace augur::jinja
