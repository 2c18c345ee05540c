// The variable `loop` inside a for loop.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

class Loop : public Object {
 public:
  explicit Loop(const std::vector<Value>& items) : items_(items) {}
  void move_to(size_t index) { index_ = index; }

  std::string_view type_name() const override { return "runtime.LoopContext"; }
  /// index, index0, revindex, revindex0, first, last, length, depth, depth0, previtem, nextitem,
  /// cycle(...), changed(...).
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  std::string print(Runtime& runtime) override;

  Value cycle(const Arguments& arguments) const;
  /// Whether the arguments differ from those of the call before.
  bool changed(Runtime& runtime, const Arguments& arguments);

 private:
  const std::vector<Value> items_;
  size_t index_ = 0;
  std::optional<std::vector<Value>> last_changed_;
};

}  // namespace augur::jinja
