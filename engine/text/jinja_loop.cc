#include "engine/text/jinja_loop.h"

#include <algorithm>

#include "engine/text/jinja_operators.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

// loop.cycle or loop.changed; the loop lives as long as the rendering.
class LoopMethod : public Callable {
 public:
  LoopMethod(Loop& loop, std::string_view name)
      : Callable(std::string(name), "method"), loop_(loop) {}
  Value call(Runtime& runtime, const Arguments& arguments) const override {
    if (!arguments.named.empty()) {
      throw TemplateError("loop." + name() + "() takes no keyword arguments");
    }
    return name() == "cycle" ? loop_.cycle(arguments)
                             : Value::boolean(loop_.changed(runtime, arguments));
  }

 private:
  Loop& loop_;
};

}  // namespace

std::optional<Value> Loop::attribute(Runtime& runtime, std::string_view name) {
  const auto number = [](size_t value) { return Value::integer(static_cast<Integer>(value)); };
  const size_t size = items_.size();
  if (name == "index") return number(index_ + 1);
  if (name == "index0") return number(index_);
  if (name == "first") return Value::boolean(index_ == 0);
  if (name == "last") return Value::boolean(index_ + 1 >= size);
  if (name == "length") return number(size);
  if (name == "revindex") return Value::integer(Integer(size) - Integer(index_));
  if (name == "revindex0") return Value::integer(Integer(size) - Integer(index_) - 1);
  if (name == "depth") return number(1);
  if (name == "depth0") return number(0);
  if (name == "previtem") {
    return index_ > 0 ? items_[index_ - 1] : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return index_ + 1 < size ? items_[index_ + 1] : Value::undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") {
    return Value::callable(std::make_shared<LoopMethod>(*this, name));
  }
  return std::nullopt;
}

std::string Loop::print(Runtime& runtime) {
  return "<LoopContext " + std::to_string(index_ + 1) + "/" + std::to_string(items_.size()) + ">";
}

Value Loop::cycle(const Arguments& arguments) const {
  if (arguments.positional.empty()) throw TemplateError("loop.cycle(): no items for cycling given");
  return arguments.positional[index_ % arguments.positional.size()];
}

bool Loop::changed(Runtime& runtime, const Arguments& arguments) {
  const std::vector<Value>& values = arguments.positional;
  const bool is_same =
      last_changed_.has_value() &&
      std::equal(values.begin(), values.end(), last_changed_->begin(), last_changed_->end(),
                 [&](const Value& a, const Value& b) { return equal(runtime, a, b); });
  if (!is_same) last_changed_ = values;
  return !is_same;
}

}  // namespace augur::jinja
