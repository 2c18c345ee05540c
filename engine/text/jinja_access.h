// Reaching into values: attributes, items, slices, iteration.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_runtime.h"

namespace augur::jinja {

/// `object.name`: a method or attribute if there is one, else the dict's item, else undefined.
/// Throws when `object` itself is undefined. Only listed methods can be reached; one that would
/// change its object gives an undefined value whose use is a security error.
Value get_attribute(Runtime& runtime, const Value& object, std::string_view name);
/// `object[key]`: an item if there is one, else an attribute, else undefined.
Value get_item(Runtime& runtime, const Value& object, const Value& key);
/// `object[start:stop:step]` of a string, list, tuple or range; a bound that is absent is None.
Value get_slice(Runtime& runtime,
                const Value& object,
                const Value& start,
                const Value& stop,
                const Value& step);

/// What Python would iterate over: items, keys of a dict, code points of a string; nothing for an
/// undefined value. Uses up a generator. Throws for what is not iterable.
std::vector<Value> iterate(Runtime& runtime, const Value& value);
bool is_iterable(const Value& value);

/// len(value), or nullopt where Python would raise TypeError.
std::optional<Integer> length(Runtime& runtime, const Value& value);

/// The dotted path of filters such as map(attribute='a.b.0'): names and indices.
class AttributePath {
 public:
  /// `path` is a string, an integer, or none for the value itself.
  explicit AttributePath(const Value& path);
  /// Follows the path by get_item; `fallback`, if not null, replaces what is undefined.
  Value follow(Runtime& runtime, const Value& value, const Value* fallback = nullptr) const;

 private:
  std::vector<Value> parts_;
};

/// Where slices and string searches with Python bounds begin and end: `index` counted from the end
/// when negative, then clamped to [0, length].
Integer clamp_index(Integer index, Integer length);

/// memmem: the first place of `needle` at or after `from`, in linear time; npos if there is none.
size_t find_bytes(std::string_view text, std::string_view needle, size_t from);

}  // namespace augur::jinja
