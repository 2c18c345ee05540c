// The functions that every template may call.
#pragma once

#include <optional>
#include <string_view>

#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

/// range, dict, namespace, raise_exception or strftime_now; nullopt for any other name.
std::optional<Value> find_global(std::string_view name);

/// What namespace() makes: the only thing that a template can change.
class Namespace : public Object {
 public:
  explicit Namespace(Dict values) : values_(std::move(values)) {}
  void set(Runtime& runtime, const std::string& name, Value value);

  std::string_view type_name() const override { return "utils.Namespace"; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  std::string print(Runtime& runtime) override;

 private:
  Dict values_;
};

}  // namespace augur::jinja
