// Python's str methods.
#include <algorithm>
#include <limits>
#include <string>
#include <unordered_map>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_strings.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

constexpr Integer kNoLimit = std::numeric_limits<int64_t>::max();

template <std::string (*kConvert)(std::string_view)>
Value convert(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str", arguments, {});
  runtime.charge_bytes(static_cast<int64_t>(receiver.as_string().size()));
  return runtime.text(kConvert(receiver.as_string()));
}

// Python's is...() methods that ask one thing of every code point and refuse the empty string.
template <bool (*kHolds)(char32_t)>
Value all_of(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str", arguments, {});
  const std::string& text = receiver.as_string();
  runtime.charge_bytes(static_cast<int64_t>(text.size()));
  for (size_t position = 0; position < text.size();) {
    if (!kHolds(next_code_point(text, position))) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}

bool is_ascii(char32_t c) {
  return c < 0x80;
}

Value string_isascii(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  return receiver.as_string().empty() ? Value::boolean(true)
                                      : all_of<is_ascii>(runtime, receiver, arguments);
}

template <bool kUpper>
Value is_cased_as(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str", arguments, {});
  runtime.charge_bytes(static_cast<int64_t>(receiver.as_string().size()));
  return Value::boolean(kUpper ? is_upper_text(receiver.as_string())
                               : is_lower_text(receiver.as_string()));
}

template <bool kLeft, bool kRight>
Value strip(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.strip", arguments, {"chars"});
  const Value chars = bound.value(0);
  if (!chars.is_none()) bound.text(0, "");  // refuses what is no string
  return runtime.text(
      std::string(strip_text(receiver.as_string(), chars, /*left=*/kLeft, /*right=*/kRight)));
}

Value string_split(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.split", arguments, {"sep", "maxsplit"});
  const Integer limit = bound.integer(1, -1);
  return split_text(runtime, receiver.as_string(), bound.value(0), limit < 0 ? kNoLimit : limit,
                    /*from_right=*/false);
}

Value string_rsplit(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.rsplit", arguments, {"sep", "maxsplit"});
  const Integer limit = bound.integer(1, -1);
  return split_text(runtime, receiver.as_string(), bound.value(0), limit < 0 ? kNoLimit : limit,
                    /*from_right=*/true);
}

Value string_splitlines(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.splitlines", arguments, {"keepends"});
  std::vector<Value> lines;
  for (std::string_view line : split_lines(receiver.as_string(), bound.flag(0, false))) {
    runtime.charge_items(1);
    lines.push_back(runtime.text(std::string(line)));
  }
  return runtime.list(std::move(lines));
}

// The part of a string that start and end arguments leave, and where it begins in bytes.
struct Window {
  std::string_view text;
  size_t begin = 0;
  bool is_valid = true;  // false when start lies past the end: nothing is found, not even ""
};

Window window(Runtime& runtime, const std::string& text, const BoundArguments& bound) {
  runtime.charge_scan(text.size());
  if (bound.find(1) == nullptr && bound.find(2) == nullptr) return {text};
  const Integer size = static_cast<Integer>(count_code_points(text));
  const Integer start = bound.integer(1, 0);
  const Integer first = clamp_index(start, size);
  const Integer last = clamp_index(bound.integer(2, size), size);
  const size_t begin = byte_position(text, static_cast<size_t>(first));
  const size_t end = byte_position(text, static_cast<size_t>(std::max(first, last)));
  return {std::string_view(text).substr(begin, end - begin), begin, start <= size && first <= last};
}

template <bool kAtStart>
Value has_affix(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const std::string_view name = kAtStart ? "str.startswith" : "str.endswith";
  const BoundArguments bound(name, arguments, {"prefix", "start", "end"}, 1);
  const Window part = window(runtime, receiver.as_string(), bound);
  const Value affix = bound.value(0);
  const bool is_tuple = affix.is(Kind::kSequence) && affix.as_sequence().is_tuple();
  const std::vector<Value> choices =
      is_tuple ? affix.as_sequence().items : std::vector<Value>{affix};
  for (const Value& choice : choices) {
    if (!choice.is_string()) {
      if (choice.is_undefined()) fail_undefined(choice);
      throw TemplateError(std::string(name) + "(): the first argument must be a string or a " +
                          "tuple of strings, not " + std::string(choice.type_name()));
    }
    const bool holds = kAtStart ? part.text.starts_with(choice.as_string())
                                : part.text.ends_with(choice.as_string());
    if (part.is_valid && holds) return Value::boolean(true);
  }
  return Value::boolean(false);
}

// The place of an argument in code points, or -1.
template <bool kFromRight>
Integer find_place(Runtime& runtime, const Value& receiver, const BoundArguments& bound) {
  const std::string& text = receiver.as_string();
  const Window part = window(runtime, text, bound);
  const std::string needle = bound.text(0, "");
  if (!part.is_valid) return -1;
  // rfind compares at every place, so a long needle makes it quadratic.
  if (kFromRight) runtime.charge_scan(part.text.size() * std::min<size_t>(needle.size(), 1 << 16));
  const size_t found = kFromRight ? part.text.rfind(needle) : find_bytes(part.text, needle, 0);
  if (found == std::string_view::npos) return -1;
  return static_cast<Integer>(
      count_code_points(std::string_view(text).substr(0, part.begin + found)));
}

template <bool kFromRight, bool kMustExist>
Value find(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound(kMustExist ? "str.index" : "str.find", arguments,
                             {"sub", "start", "end"}, 1);
  const Integer place = find_place<kFromRight>(runtime, receiver, bound);
  if (kMustExist && place < 0) throw TemplateError("substring not found");
  return Value::integer(place);
}

Value string_count(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.count", arguments, {"sub", "start", "end"}, 1);
  const Window part = window(runtime, receiver.as_string(), bound);
  const std::string needle = bound.text(0, "");
  if (!part.is_valid) return Value::integer(0);
  if (needle.empty()) {
    return Value::integer(static_cast<Integer>(count_code_points(part.text)) + 1);
  }
  Integer count = 0;
  for (size_t place = find_bytes(part.text, needle, 0); place != std::string_view::npos;
       place = find_bytes(part.text, needle, place + needle.size())) {
    ++count;
  }
  return Value::integer(count);
}

Value string_replace(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.replace", arguments, {"old", "new", "count"}, 2);
  const Integer count = bound.integer(2, -1);
  return runtime.text(replace_text(runtime, receiver.as_string(), bound.text(0, ""),
                                   bound.text(1, ""), count < 0 ? kNoLimit : count));
}

Value string_join(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.join", arguments, {"iterable"}, 1);
  TextBuilder out(runtime);
  bool is_first = true;
  for (const Value& item : iterate(runtime, *bound.find(0))) {
    if (!item.is_string()) {
      throw TemplateError("str.join(): expected strings, found " + std::string(item.type_name()));
    }
    if (!is_first) out << receiver.as_string();
    is_first = false;
    out << item.as_string();
  }
  return out.finish();
}

Value string_format(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  return format_braces(runtime, receiver.as_string(), arguments);
}

template <bool kFromRight>
Value partition(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.partition", arguments, {"sep"}, 1);
  const std::string& text = receiver.as_string();
  const std::string separator = bound.text(0, "");
  if (separator.empty()) throw TemplateError("str.partition(): empty separator");
  runtime.charge_scan(text.size() * (kFromRight ? std::min<size_t>(separator.size(), 1 << 16) : 1));
  const size_t place = kFromRight ? text.rfind(separator) : find_bytes(text, separator, 0);
  const auto part = [&](size_t begin, size_t size) {
    return runtime.text(text.substr(begin, size));
  };
  if (place == std::string::npos) {
    return kFromRight ? runtime.tuple({part(0, 0), part(0, 0), part(0, text.size())})
                      : runtime.tuple({part(0, text.size()), part(0, 0), part(0, 0)});
  }
  return runtime.tuple({part(0, place), part(place, separator.size()),
                        part(place + separator.size(), std::string::npos)});
}

Value string_removeprefix(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.removeprefix", arguments, {"prefix"}, 1);
  const std::string prefix = bound.text(0, "");
  const std::string& text = receiver.as_string();
  return runtime.text(text.starts_with(prefix) ? text.substr(prefix.size()) : text);
}

Value string_removesuffix(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.removesuffix", arguments, {"suffix"}, 1);
  const std::string suffix = bound.text(0, "");
  const std::string& text = receiver.as_string();
  return runtime.text(text.ends_with(suffix) ? text.substr(0, text.size() - suffix.size()) : text);
}

template <Alignment kAlignment>
Value justify(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.center", arguments, {"width", "fillchar"}, 1);
  const std::string fill = bound.text(1, " ");
  if (count_code_points(fill) != 1) {
    throw TemplateError("the fill character must be exactly one character long");
  }
  return pad_text(runtime, receiver.as_string(), bound.integer(0, 0), fill, kAlignment);
}

Value string_zfill(Runtime& runtime, const Value& receiver, const Arguments& arguments) {
  const BoundArguments bound("str.zfill", arguments, {"width"}, 1);
  const std::string& text = receiver.as_string();
  const bool is_signed = !text.empty() && (text[0] == '-' || text[0] == '+');
  TextBuilder out(runtime);
  out << text.substr(0, is_signed ? 1 : 0);
  out.repeat("0", bound.integer(0, 0) - static_cast<Integer>(count_code_points(text)));
  out << std::string_view(text).substr(is_signed ? 1 : 0);
  return out.finish();
}

constexpr Method::Markup kEscape = Method::Markup::kEscape;
constexpr Method::Markup kEnclose = Method::Markup::kEnclose;

const Method kStringMethods[] = {
    {"capitalize", convert<capitalize>, kEscape},
    {"casefold", convert<fold_case>, kEscape},
    {"center", justify<Alignment::kCenter>, kEscape},
    {"count", string_count},
    {"endswith", has_affix<false>},
    {"find", find<false, false>},
    {"format", string_format, kEscape},
    {"index", find<false, true>},
    {"isalnum", all_of<is_alphanumeric>},
    {"isalpha", all_of<is_letter>},
    {"isascii", string_isascii},
    {"isdecimal", all_of<is_decimal>},
    {"isdigit", all_of<is_digit>},
    {"islower", is_cased_as<false>},
    {"isnumeric", all_of<is_numeric>},
    {"isspace", all_of<is_space>},
    {"isupper", is_cased_as<true>},
    {"join", string_join, kEscape},
    {"ljust", justify<Alignment::kLeft>, kEscape},
    {"lower", convert<to_lower>, kEscape},
    {"lstrip", strip<true, false>, kEscape},
    {"partition", partition<false>, kEnclose},
    {"removeprefix", string_removeprefix, kEscape},
    {"removesuffix", string_removesuffix, kEscape},
    {"replace", string_replace, kEscape},
    {"rfind", find<true, false>},
    {"rindex", find<true, true>},
    {"rjust", justify<Alignment::kRight>, kEscape},
    {"rpartition", partition<true>, kEnclose},
    {"rsplit", string_rsplit, kEnclose},
    {"rstrip", strip<false, true>, kEscape},
    {"split", string_split, kEnclose},
    {"splitlines", string_splitlines, kEnclose},
    {"startswith", has_affix<true>},
    {"strip", strip<true, true>, kEscape},
    {"swapcase", convert<swap_case>, kEscape},
    {"title", convert<title_case>, kEscape},
    {"upper", convert<to_upper>, kEscape},
    {"zfill", string_zfill, kEscape},
};

}  // namespace

const Method* find_string_method(std::string_view name) {
  static const auto kByName = [] {
    std::unordered_map<std::string_view, const Method*> methods;
    for (const Method& method : kStringMethods) methods.emplace(method.name, &method);
    return methods;
  }();
  const auto found = kByName.find(name);
  return found == kByName.end() ? nullptr : found->second;
}

}  // namespace augur::jinja
