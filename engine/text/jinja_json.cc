#include "engine/text/jinja_json.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/string.hpp>
#include <cmath>
#include <cstdio>

#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_print.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/template_error.h"

namespace augur::jinja {
namespace {

Value convert(const boost::json::value& json, int level) {
  if (level > kMaxValueDepth) {
    throw TemplateError("the input is nested deeper than " + std::to_string(kMaxValueDepth) +
                        " levels");
  }
  switch (json.kind()) {
    case boost::json::kind::null:
      return Value::none();
    case boost::json::kind::bool_:
      return Value::boolean(json.get_bool());
    case boost::json::kind::int64:
      return Value::integer(json.get_int64());
    case boost::json::kind::uint64:
      return Value::integer(json.get_uint64());
    case boost::json::kind::double_:
      return Value::real(json.get_double());
    case boost::json::kind::string:
      return Value::text(std::string(json.get_string().data(), json.get_string().size()));
    case boost::json::kind::array: {
      std::vector<Value> items;
      items.reserve(json.get_array().size());
      for (const boost::json::value& item : json.get_array()) {
        items.push_back(convert(item, level + 1));
      }
      return Value::list(std::move(items));
    }
    case boost::json::kind::object: {
      Dict dict;
      dict.reserve(json.get_object().size());
      for (const auto& member : json.get_object()) {
        dict.set(Value::text(std::string(member.key())), convert(member.value(), level + 1));
      }
      return Value::dict(std::move(dict));
    }
  }
  return Value::none();
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonFormat& format)
      : runtime_(runtime), format_(format), out_(runtime) {}

  void write(const Value& value) {
    runtime_.charge_steps(1);
    switch (value.kind()) {
      case Kind::kNone:
        out_ << "null";
        return;
      case Kind::kBool:
        out_ << (value.as_bool() ? "true" : "false");
        return;
      case Kind::kInteger:
        out_ << format_integer(value.as_integer());
        return;
      case Kind::kFloat:
        out_ << number(value.as_real());
        return;
      case Kind::kString:
        write_string(value.as_string());
        return;
      case Kind::kDict:
        return write_dict(value.as_dict());
      case Kind::kSequence:
        if (value.as_sequence().is_list() || value.as_sequence().is_tuple()) {
          return write_list(value.as_sequence().items);
        }
        break;
      default:
        break;
    }
    throw TemplateError("tojson: an object of type " + std::string(value.type_name()) +
                        " has no JSON form" +
                        (value.is_undefined() ? " (" + value.undefined_message() + ")" : ""));
  }

  std::string take() { return out_.take(); }

 private:
  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return format_float(value);
  }

  void write_newline() {
    if (!format_.indent) return;
    out_ << "\n";
    out_.repeat(*format_.indent, level_);
  }

  void write_list(const std::vector<Value>& items) {
    if (items.empty()) {
      out_ << "[]";
      return;
    }
    out_ << "[";
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ << format_.item_separator;
      write_newline();
      write(items[i]);
    }
    --level_;
    write_newline();
    out_ << "]";
  }

  void write_dict(const Dict& dict) {
    if (dict.size() == 0) {
      out_ << "{}";
      return;
    }
    std::vector<const Dict::Entry*> entries;
    entries.reserve(dict.size());
    for (const Dict::Entry& entry : dict.entries()) entries.push_back(&entry);
    if (format_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return compare(runtime_, CompareOp::kLess, a->first, b->first);
      });
    }
    out_ << "{";
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_ << format_.item_separator;
      write_newline();
      write_key(entries[i]->first);
      out_ << format_.key_separator;
      write(entries[i]->second);
    }
    --level_;
    write_newline();
    out_ << "}";
  }

  void write_key(const Value& key) {
    switch (key.kind()) {
      case Kind::kString:
        return write_string(key.as_string());
      case Kind::kNone:
        return write_string("null");
      case Kind::kBool:
        return write_string(key.as_bool() ? "true" : "false");
      case Kind::kInteger:
        return write_string(format_integer(key.as_integer()));
      case Kind::kFloat:
        return write_string(number(key.as_real()));
      default:
        throw TemplateError("tojson: keys must be str, int, float, bool or None, not " +
                            std::string(key.type_name()));
    }
  }

  void write_string(std::string_view text) {
    std::string quoted = "\"";
    quoted.reserve(text.size() + 2);
    for (size_t position = 0; position < text.size();) {
      const size_t begin = position;
      const char32_t c = next_code_point(text, position);
      if (c == '"' || c == '\\') {
        quoted += '\\';
        quoted += static_cast<char>(c);
      } else if (c < 0x20 || (format_.ensure_ascii && c >= 0x7F && c < kInvalidByte)) {
        append_escape(quoted, c);
      } else {
        quoted.append(text, begin, position - begin);
      }
    }
    quoted += '"';
    out_ << quoted;
  }

  static void append_escape(std::string& out, char32_t c) {
    switch (c) {
      case '\n':
        out += "\\n";
        return;
      case '\r':
        out += "\\r";
        return;
      case '\t':
        out += "\\t";
        return;
      case '\b':
        out += "\\b";
        return;
      case '\f':
        out += "\\f";
        return;
      default:
        break;
    }
    if (c >= 0x10000) {
      append_unit(out, 0xD800 + ((c - 0x10000) >> 10));
      append_unit(out, 0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      append_unit(out, c);
    }
  }

  static void append_unit(std::string& out, char32_t unit) {
    char escape[7];
    std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(unit) & 0xFFFF);
    out += escape;
  }

  Runtime& runtime_;
  const JsonFormat& format_;
  TextBuilder out_;
  int level_ = 0;
};

}  // namespace

Value from_json(const boost::json::value& json) {
  return convert(json, 1);
}

std::string to_json(Runtime& runtime, const Value& value, const JsonFormat& format) {
  JsonWriter writer(runtime, format);
  writer.write(value);
  return writer.take();
}

}  // namespace augur::jinja
