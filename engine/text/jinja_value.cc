#include "engine/text/jinja_value.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

// Scanning a few short keys is faster than hashing one.
constexpr size_t kNumScannedKeys = 8;

int checked_depth(int depth) {
  if (depth > kMaxValueDepth) {
    throw TemplateError("a value is nested deeper than " + std::to_string(kMaxValueDepth) +
                        " levels");
  }
  return depth;
}

// Integers and floats that are equal must hash equally.
size_t hash_number(const Value& value) {
  if (value.is_integral()) {
    const Integer integer = value.as_integer();
    if (integer == static_cast<int64_t>(integer)) {
      return std::hash<int64_t>()(static_cast<int64_t>(integer));
    }
    return std::hash<double>()(static_cast<double>(integer));
  }
  const double real = value.as_real();
  if (std::trunc(real) == real && std::fabs(real) < 9e18) {
    return std::hash<int64_t>()(static_cast<int64_t>(real));
  }
  return std::hash<double>()(real);
}

}  // namespace

Value Value::undefined(std::string message) {
  return Value(Payload(std::in_place_index<0>, std::make_shared<const UndefinedReason>(
                                                   UndefinedReason{std::move(message)})));
}
Value Value::none() {
  return Value(Payload(std::in_place_index<1>));
}
Value Value::boolean(bool value) {
  return Value(Payload(std::in_place_index<2>, value));
}
Value Value::integer(Integer value) {
  return Value(Payload(std::in_place_index<3>, value));
}
Value Value::real(double value) {
  return Value(Payload(std::in_place_index<4>, value));
}
Value Value::text(std::string bytes, bool is_markup) {
  return Value(Payload(std::in_place_index<5>,
                       std::make_shared<const Text>(Text{std::move(bytes), is_markup})));
}
Value Value::list(std::vector<Value> items) {
  return sequence({Sequence::Form::kList, std::move(items)});
}
Value Value::tuple(std::vector<Value> items) {
  return sequence({Sequence::Form::kTuple, std::move(items)});
}
Value Value::generator(std::vector<Value> items) {
  return sequence({Sequence::Form::kGenerator, std::move(items)});
}
Value Value::sequence(Sequence sequence) {
  int depth = 0;
  for (const Value& item : sequence.items) depth = std::max(depth, item.depth());
  sequence.depth = checked_depth(depth + 1);
  return Value(
      Payload(std::in_place_index<6>, std::make_shared<const Sequence>(std::move(sequence))));
}
Value Value::dict(Dict dict) {
  return Value(Payload(std::in_place_index<7>, std::make_shared<const Dict>(std::move(dict))));
}
Value Value::callable(std::shared_ptr<const Callable> callable) {
  return Value(Payload(std::in_place_index<8>, std::move(callable)));
}
Value Value::object(Object* object) {
  return Value(Payload(std::in_place_index<9>, object));
}

Integer Value::as_integer() const {
  return is(Kind::kBool) ? Integer{as_bool()} : *std::get_if<Integer>(&payload_);
}

double Value::as_real() const {
  return is_integral() ? static_cast<double>(as_integer()) : *std::get_if<double>(&payload_);
}

std::string Value::undefined_message() const {
  const auto& reason = *std::get_if<std::shared_ptr<const UndefinedReason>>(&payload_);
  return reason == nullptr ? "the value is undefined" : reason->message;
}

bool Value::truthy() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return as_bool();
    case Kind::kInteger:
      return as_integer() != 0;
    case Kind::kFloat:
      return as_real() != 0;
    case Kind::kString:
      return !as_string().empty();
    case Kind::kSequence:
      return as_sequence().is_generator() || !as_sequence().items.empty();
    case Kind::kDict:
      return as_dict().size() > 0;
    case Kind::kCallable:
    case Kind::kObject:
      return true;
  }
  return false;
}

int Value::depth() const {
  if (is(Kind::kSequence)) return as_sequence().depth;
  return is(Kind::kDict) ? as_dict().depth() : 0;
}

bool Value::is_same(const Value& other) const {
  if (kind() != other.kind()) return false;
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kBool:
      return as_bool() == other.as_bool();
    case Kind::kInteger:
      return as_integer() == other.as_integer();
    case Kind::kFloat:
      return as_real() == other.as_real();
    case Kind::kString:
      return as_string() == other.as_string();
    case Kind::kSequence:
      return &as_sequence() == &other.as_sequence();
    case Kind::kDict:
      return &as_dict() == &other.as_dict();
    case Kind::kCallable:
      return &as_callable() == &other.as_callable();
    case Kind::kObject:
      return &as_object() == &other.as_object();
  }
  return false;
}

std::string_view Value::type_name() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInteger:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return is_markup() ? "Markup" : "str";
    case Kind::kDict:
      return "dict";
    case Kind::kCallable:
      return as_callable().type_name();
    case Kind::kObject:
      return as_object().type_name();
    case Kind::kSequence:
      break;
  }
  switch (as_sequence().form) {
    case Sequence::Form::kList:
      return "list";
    case Sequence::Form::kTuple:
      return "tuple";
    case Sequence::Form::kGroup:
      return "_GroupTuple";
    case Sequence::Form::kRange:
      return "range";
    case Sequence::Form::kDictKeys:
      return "dict_keys";
    case Sequence::Form::kDictValues:
      return "dict_values";
    case Sequence::Form::kDictItems:
      return "dict_items";
    case Sequence::Form::kGenerator:
      return "generator";
  }
  return "";
}

void check_hashable(const Value& key) {
  switch (key.kind()) {
    case Kind::kSequence:
      if (key.as_sequence().is_tuple() && key.depth() == 1) return;
      break;
    case Kind::kDict:
    case Kind::kCallable:
    case Kind::kObject:
      break;
    default:
      return;
  }
  throw TemplateError("unhashable type: '" + std::string(key.type_name()) + "'");
}

bool keys_equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.as_integer() == b.as_integer();
    return a.as_real() == b.as_real();
  }
  if (a.kind() != b.kind()) return false;
  if (!a.is(Kind::kSequence)) return a.is_same(b);
  const auto& items_a = a.as_sequence().items;
  const auto& items_b = b.as_sequence().items;
  return std::equal(items_a.begin(), items_a.end(), items_b.begin(), items_b.end(), keys_equal);
}

size_t hash_key(const Value& key) {
  if (key.is_number()) return hash_number(key);
  if (key.is_string()) return std::hash<std::string_view>()(key.as_string());
  if (!key.is(Kind::kSequence)) return static_cast<size_t>(key.kind());
  size_t hash = 0x345678;
  for (const Value& item : key.as_sequence().items) hash = hash * 1000003 + hash_key(item);
  return hash;
}

size_t Dict::KeyHash::operator()(const Value& key) const {
  return hash_key(key);
}
bool Dict::KeyEqual::operator()(const Value& a, const Value& b) const {
  return keys_equal(a, b);
}

size_t Dict::locate(const Value& key) const {
  if (key.is(Kind::kSequence) && key.depth() > 1) return kAbsent;
  if (!index_.empty()) {
    const auto found = index_.find(key);
    return found == index_.end() ? kAbsent : found->second;
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (keys_equal(entries_[i].first, key)) return i;
  }
  return kAbsent;
}

const Value* Dict::find(const Value& key) const {
  const size_t place = locate(key);
  return place == kAbsent ? nullptr : &entries_[place].second;
}

const Value* Dict::find(std::string_view key) const {
  if (!index_.empty()) return find(Value::text(std::string(key)));
  for (const Entry& entry : entries_) {
    if (entry.first.is_string() && entry.first.as_string() == key) return &entry.second;
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  check_hashable(key);
  depth_ = checked_depth(std::max({depth_, 1 + key.depth(), 1 + value.depth()}));
  const size_t place = locate(key);
  if (place != kAbsent) {
    entries_[place].second = std::move(value);
    return;
  }
  entries_.emplace_back(std::move(key), std::move(value));
  if (!index_.empty()) {
    index_.emplace(entries_.back().first, entries_.size() - 1);
  } else if (entries_.size() > kNumScannedKeys) {
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].first, i);
  }
}

}  // namespace augur::jinja
