#include "engine/text/jinja_runtime.h"

#include <limits>

#include "engine/text/template_error.h"

namespace augur::jinja {

Runtime::Runtime(const TemplateLimits& limits, const std::tm& now) : limits_(limits), now_(now) {
  std::tm normalized = now;
  timegm(&normalized);
  now_.tm_wday = normalized.tm_wday;
  now_.tm_yday = normalized.tm_yday;
}

void Runtime::charge_steps(int64_t num_steps) {
  num_steps_ += num_steps;
  if (num_steps_ > limits_.max_steps) [[unlikely]] {
    throw TemplateError("the template ran for more than " + std::to_string(limits_.max_steps) +
                        " steps");
  }
}

void Runtime::charge_bytes(int64_t num_bytes) {
  num_bytes_ += num_bytes;
  if (num_bytes_ > limits_.max_work_bytes) [[unlikely]] {
    throw TemplateError("the template built more than " + std::to_string(limits_.max_work_bytes) +
                        " bytes of text and lists");
  }
}

void Runtime::charge_items(size_t num_items) {
  charge_steps(static_cast<int64_t>(num_items / 4));
  charge_bytes(static_cast<int64_t>(num_items * sizeof(Value)));
}

Value Runtime::text(std::string bytes, bool is_markup) {
  charge_bytes(static_cast<int64_t>(bytes.size()));
  return Value::text(std::move(bytes), is_markup);
}

Value Runtime::list(std::vector<Value> items) {
  charge_items(items.size());
  return Value::list(std::move(items));
}

Value Runtime::tuple(std::vector<Value> items) {
  charge_items(items.size());
  return Value::tuple(std::move(items));
}

Value Runtime::generator(std::vector<Value> items) {
  charge_items(items.size());
  return Value::generator(std::move(items));
}

TextBuilder& TextBuilder::repeat(std::string_view text, Integer count) {
  if (count <= 0 || text.empty()) return *this;
  const Integer num_bytes = count > runtime_.limits().max_work_bytes
                                ? Integer{runtime_.limits().max_work_bytes} + 1
                                : count * static_cast<Integer>(text.size());
  runtime_.charge_bytes(static_cast<int64_t>(num_bytes));
  for (Integer i = 0; i < count; ++i) bytes_.append(text);
  return *this;
}

}  // namespace augur::jinja
