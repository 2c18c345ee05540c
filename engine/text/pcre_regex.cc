#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/pcre_regex.h"

#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "configs/config_error.h"

namespace augur {
namespace {

// What find needs per thread: match blocks cannot be shared, and compiling a JIT stack per search
// would cost more than most searches.
struct ThreadState {
  ThreadState()
      : match_context(pcre2_match_context_create(nullptr)),
        match_data(pcre2_match_data_create(1, nullptr)),
        // Reserved, not used, until a search needs it.
        jit_stack(pcre2_jit_stack_create(32 << 10, 512 << 20, nullptr)) {
    if (match_context == nullptr || match_data == nullptr || jit_stack == nullptr) {
      release();
      throw std::bad_alloc();
    }
    pcre2_jit_stack_assign(match_context, nullptr, jit_stack);
    // Text of any length must pass, so depth is not bounded, and work only by the length of the
    // text (in find). Memory is: 1 GiB, in KiB.
    pcre2_set_depth_limit(match_context, UINT32_MAX);
    pcre2_set_heap_limit(match_context, 1 << 20);
  }
  ThreadState(const ThreadState&) = delete;
  ThreadState& operator=(const ThreadState&) = delete;
  ~ThreadState() { release(); }
  void release() {
    pcre2_jit_stack_free(jit_stack);
    pcre2_match_data_free(match_data);
    pcre2_match_context_free(match_context);
  }

  pcre2_match_context* match_context;
  pcre2_match_data* match_data;
  pcre2_jit_stack* jit_stack;
};

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

// The members of Oniguruma's classes, as PCRE2 writes them.
constexpr std::string_view kSpace = "\\t-\\r\\x{85}\\p{Z}";
constexpr std::string_view kWord =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}"
    "\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";
constexpr std::string_view kHexDigit = "0-9A-Fa-f";
// \w by itself has these too.
constexpr std::string_view kLoneWord = "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

constexpr std::pair<std::string_view, std::string_view> kPosixClasses[] = {
    {"space", kSpace},    {"word", kWord},      {"xdigit", kHexDigit},
    {"digit", "\\p{Nd}"}, {"cntrl", "\\p{Cc}"}, {"punct", "\\p{P}\\p{S}"}};

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where)
      : pattern_(pattern), where_(where) {}

  std::string run() {
    while (position_ < pattern_.size()) {
      const char c = pattern_[position_];
      if (c == '\\') {
        begin_atom();
        translate_escape(/*in_class=*/false);
      } else if (c == '[') {
        begin_atom();
        translate_class();
      } else if (c == '(') {
        open_group();
      } else if (c == ')') {
        if (!group_starts_.empty()) {
          atom_start_ = group_starts_.back();
          group_starts_.pop_back();
        }
        copy(1);
      } else if (c == '{') {
        translate_braces();
      } else {
        const bool continues_character = (static_cast<unsigned char>(c) & 0xC0) == 0x80;
        if (c != '*' && c != '+' && c != '?' && !continues_character) begin_atom();
        copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw ConfigError(where_, "regular expression \"" + std::string(pattern_) + "\": " + what);
  }

  void copy(size_t num_bytes) {
    out_.append(pattern_.substr(position_, num_bytes));
    position_ += num_bytes;
  }
  void begin_atom() { atom_start_ = out_.size(); }

  void open_group() {
    group_starts_.push_back(out_.size());
    copy(1);
    if (!pattern_.substr(position_).starts_with("?")) return;
    // Inline options: Ruby's m is what PCRE2 calls s.
    size_t end = position_ + 1;
    while (end < pattern_.size() &&
           std::string_view("imx-").find(pattern_[end]) != std::string::npos)
      ++end;
    const bool are_options = end > position_ + 1 && end < pattern_.size() &&
                             (pattern_[end] == ':' || pattern_[end] == ')');
    if (!are_options) {
      copy(1);
      return;
    }
    for (; position_ < end; ++position_) {
      out_.push_back(pattern_[position_] == 'm' ? 's' : pattern_[position_]);
    }
  }

  void translate_escape(bool in_class) {
    const std::string_view rest = pattern_.substr(position_);
    if (rest.size() < 2) return copy(rest.size());
    // \S and \W in a class cannot be spelled out there; PCRE2's own differ from Oniguruma's in
    // U+180E and in marks.
    const auto spell = [&](std::string_view members, bool negated) {
      if (in_class && negated) return copy(2);
      if (!in_class) out_ += negated ? "[^" : "[";
      out_ += members;
      if (!in_class && members == kWord) out_ += kLoneWord;
      if (!in_class) out_ += "]";
      position_ += 2;
    };
    switch (rest[1]) {
      case 's':
      case 'S':
        return spell(kSpace, rest[1] == 'S');
      case 'w':
      case 'W':
        return spell(kWord, rest[1] == 'W');
      case 'H':
        if (in_class) refuse("\\H inside a class is not supported");
        [[fallthrough]];
      case 'h':
        return spell(kHexDigit, rest[1] == 'H');
      case 'b':
      case 'B':
        return in_class ? copy(2) : translate_word_boundary(/*negated=*/rest[1] == 'B');
      case 'u':
        if (rest.size() < 6) refuse("\\u needs four hexadecimal digits");
        out_ += "\\x{" + std::string(rest.substr(2, 4)) + "}";
        position_ += 6;
        return;
      case 'p':
      case 'P':
        return translate_property();
      default:
        return copy(2);
    }
  }

  void translate_word_boundary(bool negated) {
    const std::string word = "[" + std::string(kWord) + std::string(kLoneWord) + "]";
    const std::string here = negated ? "(?=" : "(?!";
    const std::string elsewhere = negated ? "(?!" : "(?=";
    out_ += "(?:(?<=" + word + ")" + here + word + ")|(?<!" + word + ")" + elsewhere + word + "))";
    position_ += 2;
  }

  // Since 10.40 PCRE2 reads \p{Han} as the script-extensions property; Oniguruma as the script.
  void translate_property() {
    const size_t end = pattern_.find('}', position_);
    const std::string_view rest = pattern_.substr(position_ + 2);
    if (!rest.starts_with("{") || end == std::string_view::npos) return copy(2);
    std::string_view name = pattern_.substr(position_ + 3, end - position_ - 3);
    const bool negated = name.starts_with("^");
    if (negated) name.remove_prefix(1);
    const bool is_script = name.size() > 2 && name != "Any";
    out_ += pattern_.substr(position_, 2);
    out_ += negated ? "{^" : "{";
    if (is_script) out_ += "sc:";
    out_ += name;
    out_ += "}";
    position_ = end + 1;
  }

  void translate_class() {
    copy(1);
    if (pattern_.substr(position_).starts_with("^")) copy(1);
    bool is_first = true;
    for (; position_ < pattern_.size(); is_first = false) {
      const std::string_view rest = pattern_.substr(position_);
      if (rest[0] == ']' && !is_first) return copy(1);
      if (rest.starts_with("[:")) {
        translate_posix_class(rest);
      } else if (rest[0] == '[') {
        refuse("a class inside a class is not supported here");
      } else if (rest.starts_with("&&")) {
        refuse("the intersection of classes is not supported here");
      } else if (rest[0] == '\\') {
        translate_escape(/*in_class=*/true);
      } else {
        copy(1);
      }
    }
  }

  void translate_posix_class(std::string_view rest) {
    const size_t end = rest.find(":]");
    const std::string_view name = rest.substr(2, end == std::string_view::npos ? end : end - 2);
    for (const auto& [known, members] : kPosixClasses) {
      if (name != known || end == std::string_view::npos) continue;
      out_ += members;
      position_ += end + 2;
      return;
    }
    refuse("the class [:" + std::string(name) +
           ":] is not supported; supported: space, word, xdigit, digit, cntrl, punct");
  }

  // {n}, {n,}, {,m}, {n,m}, perhaps with a '+' that repeats the repeat; else a literal brace.
  void translate_braces() {
    size_t end = position_ + 1;
    while (end < pattern_.size() &&
           std::string_view("0123456789,").find(pattern_[end]) != std::string_view::npos)
      ++end;
    const std::string_view body = pattern_.substr(position_ + 1, end - position_ - 1);
    const bool is_interval = end < pattern_.size() && pattern_[end] == '}' && !body.empty() &&
                             body != "," && body.find(',') == body.rfind(',');
    if (!is_interval) {
      begin_atom();
      out_ += "\\{";
      ++position_;
      return;
    }
    out_ += body[0] == ',' ? "{0" : "{";
    out_ += body;
    out_ += "}";
    position_ = end + 1;
    if (pattern_.substr(position_).starts_with("+")) {
      out_.insert(atom_start_, "(?:");
      out_ += ")";
    }
  }

  std::string_view pattern_;
  const std::string& where_;
  size_t position_ = 0;
  std::string out_;
  size_t atom_start_ = 0;  // in out_, of what a quantifier here would repeat
  std::vector<size_t> group_starts_;
};

}  // namespace

std::string translate_to_pcre2(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

struct PcreRegex::Code {
  explicit Code(pcre2_code* compiled, std::string pattern)
      : compiled(compiled), pattern(std::move(pattern)) {}
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(compiled); }

  pcre2_code* compiled;
  std::string pattern;
};

PcreRegex::PcreRegex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
PcreRegex::PcreRegex(PcreRegex&&) noexcept = default;
PcreRegex& PcreRegex::operator=(PcreRegex&&) noexcept = default;
PcreRegex::~PcreRegex() = default;

PcreRegex PcreRegex::compile(std::string_view pattern, const std::string& where) {
  const std::string translated = translate_to_pcre2(pattern, where);
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_max_pattern_length(context.get(), 1 << 20);
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  pcre2_code* compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                    &error_offset, context.get());
  if (compiled == nullptr) {
    throw ConfigError(where, "regular expression \"" + std::string(pattern) +
                                 "\": " + error_text(error) + " (at byte " +
                                 std::to_string(error_offset) + " of \"" + translated + "\")");
  }
  auto code = std::make_unique<Code>(compiled, std::string(pattern));
  // Without JIT the interpreter runs, slower: a pattern the compiler cannot take is no error.
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
  return PcreRegex(std::move(code));
}

std::optional<PcreRegex::Match> PcreRegex::find(std::string_view text, size_t start) const {
  thread_local ThreadState state;
  // Linear patterns stay far below this; one that doubles its work with every character (x+x+)+
  // meets it within a second or so.
  const uint64_t limit = 20'000'000 + uint64_t{64} * (text.size() - start);
  pcre2_set_match_limit(state.match_context,
                        static_cast<uint32_t>(std::min<uint64_t>(limit, UINT32_MAX)));
  const auto match = [&](uint32_t options) {
    return pcre2_match(code_->compiled, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                       start, PCRE2_NO_UTF_CHECK | options, state.match_data, state.match_context);
  };
  int result = match(0);
  // The JIT's stack is fixed; the interpreter keeps its backtracking on the heap.
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (result < 0) {
    throw std::runtime_error("regular expression \"" + code_->pattern + "\" on " +
                             std::to_string(text.size()) + " bytes of text: " + error_text(result));
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.match_data);
  return Match{ends[0], ends[1]};
}

}  // namespace augur
