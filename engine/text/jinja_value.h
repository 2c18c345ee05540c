// The values of a template: Python's data model as far as templates see it.
//
// Values are immutable once made and share their storage, so that copies are cheap; only generators
// (which are used up by iteration) and the objects of a rendering (namespaces, loops) change.
// A container knows how deeply it nests, and one nested deeper than kMaxValueDepth is refused when
// made, so that printing, comparing and freeing may recurse.
// Threading: values made by the parser are shared by concurrent renderings and never change.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace augur::jinja {

/// Wide enough for every number of a JSON document; arithmetic that leaves it is an error.
using Integer = __int128;

/// How deeply lists, tuples and dicts may nest.
constexpr int kMaxValueDepth = 100;

class Callable;
class Dict;
class Object;
class Runtime;
class Value;
struct Sequence;

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInteger,
  kFloat,
  kString,
  kSequence,
  kDict,
  kCallable,
  kObject,
};

struct Text {
  std::string bytes;
  bool is_markup = false;  // came from |safe or |escape: `+` escapes what is joined to it
};

/// Why a value is undefined, for the error when it is used.
struct UndefinedReason {
  std::string message;
};

class Value {
 public:
  /// Undefined, without a reason.
  Value() = default;

  static Value undefined(std::string message);
  static Value none();
  static Value boolean(bool value);
  static Value integer(Integer value);
  static Value real(double value);
  static Value text(std::string bytes, bool is_markup = false);
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  /// Shows as `generator` and can be iterated once.
  static Value generator(std::vector<Value> items);
  static Value sequence(Sequence sequence);
  static Value dict(Dict dict);
  static Value callable(std::shared_ptr<const Callable> callable);
  /// `object` belongs to the Runtime and outlives every value of the rendering.
  static Value object(Object* object);

  Kind kind() const { return static_cast<Kind>(payload_.index()); }
  bool is(Kind kind) const { return this->kind() == kind; }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_none() const { return is(Kind::kNone); }
  bool is_string() const { return is(Kind::kString); }
  /// An integer, as Python sees one: True and False are 1 and 0.
  bool is_integral() const { return is(Kind::kInteger) || is(Kind::kBool); }
  bool is_number() const { return is_integral() || is(Kind::kFloat); }
  bool is_markup() const { return is_string() && as_text().is_markup; }

  // Each requires the matching kind.
  bool as_bool() const { return *std::get_if<bool>(&payload_); }
  Integer as_integer() const;  // of is_integral()
  double as_real() const;      // of is_number()
  const Text& as_text() const { return **std::get_if<std::shared_ptr<const Text>>(&payload_); }
  const std::string& as_string() const { return as_text().bytes; }
  const Sequence& as_sequence() const {
    return **std::get_if<std::shared_ptr<const Sequence>>(&payload_);
  }
  const Dict& as_dict() const { return **std::get_if<std::shared_ptr<const Dict>>(&payload_); }
  const Callable& as_callable() const {
    return **std::get_if<std::shared_ptr<const Callable>>(&payload_);
  }
  Object& as_object() const { return **std::get_if<Object*>(&payload_); }
  /// The message of the error that using it raises.
  std::string undefined_message() const;

  bool truthy() const;
  /// Levels of lists, tuples and dicts: 0 for a scalar, 1 for an empty list.
  int depth() const;
  /// Python's `is`, with equal numbers and strings of one type taken as one object.
  bool is_same(const Value& other) const;
  /// The Python name of its type: str, int, NoneType, ...
  std::string_view type_name() const;

 private:
  // In the order of Kind.
  using Payload = std::variant<std::shared_ptr<const UndefinedReason>,
                               std::monostate,
                               bool,
                               Integer,
                               double,
                               std::shared_ptr<const Text>,
                               std::shared_ptr<const Sequence>,
                               std::shared_ptr<const Dict>,
                               std::shared_ptr<const Callable>,
                               Object*>;
  explicit Value(Payload payload) : payload_(std::move(payload)) {}

  Payload payload_;
};

/// Everything Python would iterate over by position.
struct Sequence {
  enum class Form : uint8_t {
    kList,
    kTuple,
    kGroup,  // a tuple (grouper, list) of the groupby filter
    kRange,
    kDictKeys,
    kDictValues,
    kDictItems,
    kGenerator,
  };
  Form form;
  std::vector<Value> items;
  std::string range_text = {};   // of kRange: what it prints as
  mutable size_t num_taken = 0;  // of kGenerator: how many items iteration has used up
  int depth = 0;                 // set by Value::sequence

  bool is_list() const { return form == Form::kList; }
  bool is_tuple() const { return form == Form::kTuple || form == Form::kGroup; }
  bool is_generator() const { return form == Form::kGenerator; }
  /// Whether Python would allow x[0] and len(x).
  bool is_indexable() const { return is_list() || is_tuple() || form == Form::kRange; }
};

/// A dict in order of insertion.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;

  /// Null when absent or when `key` cannot be a key.
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  /// Replaces the value of an equal key. Throws TemplateError when `key` is unhashable; a tuple
  /// is a key only if its items are scalars.
  void set(Value key, Value value);
  void reserve(size_t num_entries) { entries_.reserve(num_entries); }

  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }

 private:
  static constexpr size_t kAbsent = static_cast<size_t>(-1);
  size_t locate(const Value& key) const;

  struct KeyHash {
    size_t operator()(const Value& key) const;
  };
  struct KeyEqual {
    bool operator()(const Value& a, const Value& b) const;
  };

  std::vector<Entry> entries_;
  // From key to place in entries_, built when a scan would be slower.
  std::unordered_map<Value, size_t, KeyHash, KeyEqual> index_;
  int depth_ = 1;
};

/// Throws TemplateError unless `key` may be a dict key or a set element.
void check_hashable(const Value& key);
/// Python's == of two values that passed check_hashable.
bool keys_equal(const Value& a, const Value& b);
size_t hash_key(const Value& key);

/// The arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// A function, a bound method or a macro.
class Callable {
 public:
  Callable(std::string name, std::string_view type_name)
      : name_(std::move(name)), type_name_(type_name) {}
  virtual ~Callable() = default;
  virtual Value call(Runtime& runtime, const Arguments& arguments) const = 0;
  const std::string& name() const { return name_; }
  std::string_view type_name() const { return type_name_; }

 private:
  std::string name_;
  std::string_view type_name_;
};

/// Something a rendering owns and templates refer to: a namespace or a loop.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  virtual std::optional<Value> attribute(Runtime& runtime, std::string_view name) = 0;
  virtual std::string print(Runtime& runtime) = 0;
};

}  // namespace augur::jinja
