// The filters of text.
#include <algorithm>
#include <optional>
#include <string>

#include "engine/text/jinja_access.h"
#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_print.h"
#include "engine/text/jinja_strings.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

// The input as a string; markup stays markup.
Value as_text(Runtime& runtime, const Value& input) {
  return input.is_string() ? input : runtime.text(to_text(runtime, input));
}

// A filter that is a str method of any input made a string.
Value call_string_method(Runtime& runtime,
                         const Value& input,
                         std::string_view name,
                         const Arguments& arguments) {
  return call_method(runtime, as_text(runtime, input), *find_string_method(name), arguments);
}

Value filter_upper(Runtime& runtime, const Value& input, const Arguments& arguments) {
  return call_string_method(runtime, input, "upper", arguments);
}

Value filter_lower(Runtime& runtime, const Value& input, const Arguments& arguments) {
  return call_string_method(runtime, input, "lower", arguments);
}

Value filter_capitalize(Runtime& runtime, const Value& input, const Arguments& arguments) {
  return call_string_method(runtime, input, "capitalize", arguments);
}

Value filter_trim(Runtime& runtime, const Value& input, const Arguments& arguments) {
  return call_string_method(runtime, input, "strip", arguments);
}

Value filter_center(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("center", arguments, {"width"});
  return pad_text(runtime, to_text(runtime, input), bound.integer(0, 80), " ", Alignment::kCenter);
}

Value filter_title(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("title", arguments, {});
  const std::string text = to_text(runtime, input);
  // Unlike str.title(), only after a blank or an opening sign.
  const auto begins_word = [](char32_t c) {
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  TextBuilder out(runtime);
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    while (position < text.size()) {
      size_t next = position;
      if (!begins_word(next_code_point(text, next))) break;
      position = next;
    }
    out << std::string_view(text).substr(begin, position - begin);
    const size_t word_begin = position;
    while (position < text.size()) {
      size_t next = position;
      if (begins_word(next_code_point(text, next))) break;
      position = next;
    }
    const std::string_view word = std::string_view(text).substr(word_begin, position - word_begin);
    const size_t first_size = byte_position(word, 1);
    out << to_upper(word.substr(0, first_size)) << to_lower(word.substr(first_size));
  }
  return out.finish();
}

Value filter_replace(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("replace", arguments, {"old", "new", "count"}, 2);
  const Integer count = bound.integer(2, -1);
  const std::string text = to_text(runtime, input);
  return Value::text(replace_text(runtime, text, to_text(runtime, *bound.find(0)),
                                  to_text(runtime, *bound.find(1)),
                                  count < 0 ? static_cast<Integer>(text.size()) + 1 : count));
}

Value filter_indent(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("indent", arguments, {"width", "first", "blank"});
  if (input.is_undefined()) fail_undefined(input);
  if (!input.is_string()) {
    throw TemplateError("indent: a string is needed, not " + std::string(input.type_name()));
  }
  TextBuilder indentation_builder(runtime);
  if (bound.value(0).is_string()) {
    indentation_builder << bound.text(0, "");
  } else {
    indentation_builder.repeat(" ", bound.integer(0, 4));
  }
  std::string indentation = indentation_builder.take();
  if (input.is_markup()) indentation = escape_html(runtime, indentation);
  const std::string text = input.as_string() + "\n";
  const bool indents_blank = bound.flag(2, false);
  TextBuilder out(runtime);
  if (bound.flag(1, false)) out << indentation;
  bool is_first = true;
  for (std::string_view line : split_lines(text, /*keep_ends=*/false)) {
    if (!is_first) {
      out << "\n";
      if (indents_blank || !line.empty()) out << indentation;
    }
    is_first = false;
    out << line;
  }
  return out.finish(input.is_markup());
}

Value filter_truncate(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const std::string end = bound.text(2, "...");
  const Integer end_length = static_cast<Integer>(count_code_points(end));
  const Integer limit = bound.integer(0, 255);
  const Integer leeway = bound.integer(3, 5);
  if (limit < end_length || leeway < 0) {
    throw TemplateError("truncate: length must be at least that of end, and leeway at least 0");
  }
  const std::optional<Integer> size = length(runtime, input);
  if (!size) {
    throw TemplateError("object of type '" + std::string(input.type_name()) + "' has no length");
  }
  if (*size <= limit || *size - limit <= leeway) return input;
  if (!input.is_string()) {
    throw TemplateError("truncate: a string is needed, not " + std::string(input.type_name()));
  }
  const std::string& text = input.as_string();
  std::string kept = text.substr(0, byte_position(text, static_cast<size_t>(limit - end_length)));
  if (!bound.flag(1, false)) kept = kept.substr(0, kept.rfind(' '));
  return runtime.text(kept + end);
}

Value filter_wordcount(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("wordcount", arguments, {});
  const std::string text = to_text(runtime, input);
  runtime.charge_bytes(static_cast<int64_t>(text.size()));
  Integer count = 0;
  bool in_word = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = next_code_point(text, position);
    const bool is_word = c == '_' || is_alphanumeric(c);
    if (is_word && !in_word) ++count;
    in_word = is_word;
  }
  return Value::integer(count);
}

Value filter_format(Runtime& runtime, const Value& input, const Arguments& arguments) {
  if (!arguments.named.empty() && !arguments.positional.empty()) {
    throw TemplateError("format: positional and named arguments cannot be mixed");
  }
  if (arguments.named.empty()) {
    return format_printf(runtime, as_text(runtime, input), runtime.tuple(arguments.positional));
  }
  Dict values;
  for (const auto& [name, value] : arguments.named) values.set(Value::text(name), value);
  return format_printf(runtime, as_text(runtime, input), Value::dict(std::move(values)));
}

constexpr FilterEntry kFilters[] = {
    {"capitalize", filter_capitalize}, {"center", filter_center},
    {"format", filter_format},         {"indent", filter_indent},
    {"lower", filter_lower},           {"replace", filter_replace},
    {"title", filter_title},           {"trim", filter_trim},
    {"truncate", filter_truncate},     {"upper", filter_upper},
    {"wordcount", filter_wordcount},
};

}  // namespace

std::span<const FilterEntry> text_filters() {
  return kFilters;
}

}  // namespace augur::jinja
