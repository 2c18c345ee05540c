// The filters of lists, dicts and other things that are iterated over.
#include <algorithm>
#include <numeric>
#include <string>
#include <unordered_set>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_print.h"
#include "engine/text/jinja_strings.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

Value fold(Runtime& runtime, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return runtime.text(to_lower(value.as_string()));
}

// The places of `keys` in rising order, or falling if `reverse`; equal ones keep their order.
std::vector<size_t> sorted_places(Runtime& runtime, const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> places(keys.size());
  std::iota(places.begin(), places.end(), size_t{0});
  std::stable_sort(places.begin(), places.end(), [&](size_t a, size_t b) {
    if (reverse) std::swap(a, b);
    return compare(runtime, CompareOp::kLess, keys[a], keys[b]);
  });
  return places;
}

std::vector<Value> at_places(const std::vector<Value>& items, const std::vector<size_t>& places) {
  std::vector<Value> chosen;
  chosen.reserve(places.size());
  for (size_t place : places) chosen.push_back(items[place]);
  return chosen;
}

Value filter_length(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("length", arguments, {});
  if (const std::optional<Integer> size = length(runtime, input)) return Value::integer(*size);
  throw TemplateError("object of type '" + std::string(input.type_name()) + "' has no length");
}

Value filter_list(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("list", arguments, {});
  return Value::list(iterate(runtime, input));
}

Value filter_first(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("first", arguments, {});
  if (input.is(Kind::kSequence) && input.as_sequence().is_generator()) {
    const Sequence& sequence = input.as_sequence();  // takes one item only
    if (sequence.num_taken < sequence.items.size()) return sequence.items[sequence.num_taken++];
  } else if (input.is_string()) {
    if (!input.as_string().empty()) return get_item(runtime, input, Value::integer(0));
  } else {
    std::vector<Value> items = iterate(runtime, input);
    if (!items.empty()) return items.front();
  }
  return Value::undefined("No first item, sequence was empty.");
}

Value filter_last(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("last", arguments, {});
  if (input.is(Kind::kSequence) && input.as_sequence().is_generator()) {
    throw TemplateError("'generator' object is not reversible");
  }
  if (input.is_string()) {
    if (!input.as_string().empty()) return get_item(runtime, input, Value::integer(-1));
  } else {
    std::vector<Value> items = iterate(runtime, input);
    if (!items.empty()) return items.back();
  }
  return Value::undefined("No last item, sequence was empty.");
}

Value filter_join(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("join", arguments, {"d", "attribute"});
  const std::string separator =
      bound.find(0) == nullptr ? std::string() : to_text(runtime, *bound.find(0));
  const AttributePath path(bound.value(1));
  TextBuilder out(runtime);
  bool is_first = true;
  for (const Value& item : iterate(runtime, input)) {
    if (!is_first) out << separator;
    is_first = false;
    out << to_text(runtime, path.follow(runtime, item));
  }
  return out.finish();
}

Value filter_reverse(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("reverse", arguments, {});
  const bool is_generator = input.is(Kind::kSequence) && input.as_sequence().is_generator();
  std::vector<Value> items = iterate(runtime, input);
  std::reverse(items.begin(), items.end());
  if (input.is_string()) {
    TextBuilder out(runtime);
    for (const Value& letter : items) out << letter.as_string();
    return out.finish(input.is_markup());
  }
  return is_generator ? Value::list(std::move(items)) : Value::generator(std::move(items));
}

std::vector<Value> dict_items(Runtime& runtime, const Dict& dict) {
  runtime.charge_items(dict.size());
  std::vector<Value> items;
  items.reserve(dict.size());
  for (const auto& [key, value] : dict.entries()) items.push_back(runtime.tuple({key, value}));
  return items;
}

Value filter_items(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("items", arguments, {});
  if (input.is_undefined()) return Value::generator({});
  if (!input.is(Kind::kDict)) {
    throw TemplateError("items: a mapping is needed, not " + std::string(input.type_name()));
  }
  return Value::generator(dict_items(runtime, input.as_dict()));
}

Value filter_dictsort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.text(1, "key");
  if (by != "key" && by != "value") {
    throw TemplateError("dictsort: by must be \"key\" or \"value\"");
  }
  if (input.is_undefined()) fail_undefined(input);
  if (!input.is(Kind::kDict)) {
    throw TemplateError("dictsort: a mapping is needed, not " + std::string(input.type_name()));
  }
  std::vector<Value> keys;
  for (const auto& [key, value] : input.as_dict().entries()) {
    keys.push_back(fold(runtime, by == "key" ? key : value, bound.flag(0, false)));
  }
  const std::vector<Value> items = dict_items(runtime, input.as_dict());
  return runtime.list(at_places(items, sorted_places(runtime, keys, bound.flag(2, false))));
}

// Several attributes may be named, with commas between them; the key is the list of their values.
Value filter_sort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<AttributePath> paths;
  if (bound.value(2).is_string()) {
    const Value names = split_text(runtime, bound.text(2, ""), Value::text(","),
                                   static_cast<Integer>(bound.text(2, "").size()),
                                   /*from_right=*/false);
    for (const Value& name : names.as_sequence().items) paths.emplace_back(name);
  } else {
    paths.emplace_back(bound.value(2));
  }
  const std::vector<Value> items = iterate(runtime, input);
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> key;
    for (const AttributePath& path : paths) {
      key.push_back(fold(runtime, path.follow(runtime, item), bound.flag(1, false)));
    }
    keys.push_back(runtime.list(std::move(key)));
  }
  return runtime.list(at_places(items, sorted_places(runtime, keys, bound.flag(0, false))));
}

Value filter_unique(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("unique", arguments, {"case_sensitive", "attribute"});
  const AttributePath path(bound.value(1));
  std::unordered_set<Value, decltype(&hash_key), decltype(&keys_equal)> seen(16, hash_key,
                                                                             keys_equal);
  std::vector<Value> chosen;
  for (const Value& item : iterate(runtime, input)) {
    const Value key = fold(runtime, path.follow(runtime, item), bound.flag(0, false));
    check_hashable(key);
    if (seen.insert(key).second) chosen.push_back(item);
  }
  return runtime.generator(std::move(chosen));
}

template <CompareOp kBetter>
Value extreme(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("min/max", arguments, {"case_sensitive", "attribute"});
  const AttributePath path(bound.value(1));
  const std::vector<Value> items = iterate(runtime, input);
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  Value best_key;
  for (size_t i = 0; i < items.size(); ++i) {
    const Value key = fold(runtime, path.follow(runtime, items[i]), bound.flag(0, false));
    if (i > 0 && !compare(runtime, kBetter, key, best_key)) continue;
    best = i;
    best_key = key;
  }
  return items[best];
}

Value filter_sum(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("sum", arguments, {"attribute", "start"});
  const AttributePath path(bound.value(0));
  Value total = bound.find(1) == nullptr ? Value::integer(0) : *bound.find(1);
  if (total.is_string()) throw TemplateError("sum cannot add strings; use join");
  for (const Value& item : iterate(runtime, input)) {
    total = binary(runtime, BinaryOp::kAdd, total, path.follow(runtime, item));
  }
  return total;
}

Value filter_batch(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("batch", arguments, {"linecount", "fill_with"}, 1);
  const Integer size = bound.integer(0, 1);
  if (size < 1) throw TemplateError("batch: linecount must be at least 1");
  std::vector<Value> rows;
  std::vector<Value> row;
  for (const Value& item : iterate(runtime, input)) {
    if (static_cast<Integer>(row.size()) == size) {
      rows.push_back(runtime.list(std::exchange(row, {})));
    }
    row.push_back(item);
  }
  if (!row.empty()) {
    while (!bound.value(1).is_none() && static_cast<Integer>(row.size()) < size) {
      runtime.charge_items(1);
      row.push_back(bound.value(1));
    }
    rows.push_back(runtime.list(std::move(row)));
  }
  return runtime.generator(std::move(rows));
}

Value filter_slice(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("slice", arguments, {"slices", "fill_with"}, 1);
  const Integer num_slices = bound.integer(0, 1);
  if (num_slices < 1) throw TemplateError("slice: slices must be at least 1");
  const std::vector<Value> items = iterate(runtime, input);
  const Integer size = static_cast<Integer>(items.size());
  std::vector<Value> slices;
  auto next = items.begin();
  for (Integer i = 0; i < num_slices; ++i) {
    runtime.charge_steps(1);
    const bool has_extra = i < size % num_slices;
    const auto end = next + static_cast<ptrdiff_t>(size / num_slices + (has_extra ? 1 : 0));
    std::vector<Value> slice(next, end);
    if (!has_extra && !bound.value(1).is_none()) slice.push_back(bound.value(1));
    slices.push_back(runtime.list(std::move(slice)));
    next = end;
  }
  return runtime.generator(std::move(slices));
}

Value filter_groupby(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const AttributePath path(*bound.find(0));
  const Value fallback = bound.value(1);
  const Value* default_value = fallback.is_none() ? nullptr : &fallback;
  const std::vector<Value> items = iterate(runtime, input);
  std::vector<Value> keys;
  for (const Value& item : items) {
    keys.push_back(fold(runtime, path.follow(runtime, item, default_value), bound.flag(2, false)));
  }
  std::vector<Value> groups;
  std::vector<Value> members;
  const std::vector<size_t> places = sorted_places(runtime, keys, /*reverse=*/false);
  for (size_t i = 0; i < places.size(); ++i) {
    members.push_back(items[places[i]]);
    if (i + 1 < places.size() && equal(runtime, keys[places[i]], keys[places[i + 1]])) continue;
    // The first member's own spelling of the key.
    const Value key = path.follow(runtime, members.front(), default_value);
    groups.push_back(
        Value::sequence({Sequence::Form::kGroup, {key, runtime.list(std::exchange(members, {}))}}));
  }
  return runtime.list(std::move(groups));
}

Value filter_map(Runtime& runtime, const Value& input, const Arguments& arguments) {
  std::vector<Value> mapped;
  if (!input.truthy()) return Value::generator({});
  const bool is_by_attribute = arguments.positional.empty();
  if (is_by_attribute) {
    const BoundArguments bound("map", arguments, {"attribute", "default"}, 1);
    const AttributePath path(*bound.find(0));
    const Value fallback = bound.value(1);
    for (const Value& item : iterate(runtime, input)) {
      mapped.push_back(path.follow(runtime, item, fallback.is_none() ? nullptr : &fallback));
    }
    return runtime.generator(std::move(mapped));
  }
  Arguments rest = arguments;
  const std::string name = to_text(runtime, rest.positional.front());
  rest.positional.erase(rest.positional.begin());
  const FilterFunction function = require_filter(name);
  for (const Value& item : iterate(runtime, input)) {
    runtime.charge_steps(1);
    mapped.push_back(function(runtime, item, rest));
  }
  return runtime.generator(std::move(mapped));
}

// select and reject, of items or (with a leading argument) of an attribute of theirs.
template <bool kWanted, bool kByAttribute>
Value choose(Runtime& runtime, const Value& input, const Arguments& arguments) {
  if (!input.truthy()) return Value::generator({});
  Arguments rest = arguments;
  const auto take = [&]() {
    Value value = rest.positional.empty() ? Value::none() : rest.positional.front();
    if (!rest.positional.empty()) rest.positional.erase(rest.positional.begin());
    return value;
  };
  if (kByAttribute && rest.positional.empty()) {
    throw TemplateError("selectattr/rejectattr: missing the name of the attribute");
  }
  const AttributePath path(kByAttribute ? take() : Value::none());
  const TestFunction test =
      rest.positional.empty() ? nullptr : require_test(to_text(runtime, take()));
  std::vector<Value> chosen;
  for (const Value& item : iterate(runtime, input)) {
    const Value value = path.follow(runtime, item);
    const bool holds = test == nullptr ? value.truthy() : test(runtime, value, rest);
    if (holds == kWanted) chosen.push_back(item);
  }
  return runtime.generator(std::move(chosen));
}

constexpr FilterEntry kFilters[] = {
    {"batch", filter_batch},
    {"count", filter_length},
    {"dictsort", filter_dictsort},
    {"first", filter_first},
    {"groupby", filter_groupby},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"map", filter_map},
    {"max", extreme<CompareOp::kGreater>},
    {"min", extreme<CompareOp::kLess>},
    {"reject", choose<false, false>},
    {"rejectattr", choose<false, true>},
    {"reverse", filter_reverse},
    {"select", choose<true, false>},
    {"selectattr", choose<true, true>},
    {"slice", filter_slice},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
};

}  // namespace

std::span<const FilterEntry> sequence_filters() {
  return kFilters;
}

}  // namespace augur::jinja
