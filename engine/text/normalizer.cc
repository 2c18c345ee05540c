#include "engine/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <utility>

#include "engine/text/code_point_set.h"
#include "engine/text/utf8.h"

namespace augur {
namespace {

// Code points below this are starters that the form leaves alone and that compose with nothing
// before them. So between two of them a text may be cut and its parts normalized alone.
char32_t first_affected(UnicodeForm form) {
  switch (form) {
    case UnicodeForm::kNfc:
      return 0x300;  // the combining marks begin here
    case UnicodeForm::kNfkc:
      return 0xA0;  // the no-break space
    case UnicodeForm::kNfd:
      return 0xC0;  // A with grave accent
    case UnicodeForm::kNfkd:
      return 0xA0;
  }
  return 0;
}

int combining_class(utf8proc_int32_t c) {
  return utf8proc_get_property(c)->combining_class;
}

// The whole form of a stretch of text. utf8proc's own entry point sorts combining marks by
// exchanging neighbours, which is quadratic on a long run of marks; here they are merge-sorted.
void append_slow(std::string_view text, UnicodeForm form, std::string& out) {
  const bool is_compatible = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  const bool composes = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
  const auto decompose_options =
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (is_compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  int last_boundclass = 0;
  for (size_t position = 0; position < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(next_code_point(text, position));
    utf8proc_int32_t parts[32];  // the longest decomposition has 18
    const utf8proc_ssize_t num_parts =
        utf8proc_decompose_char(c, parts, 32, decompose_options, &last_boundclass);
    if (num_parts < 0 || num_parts > 32) {
      points.push_back(c);
    } else {
      points.insert(points.end(), parts, parts + num_parts);
    }
  }
  for (auto run = points.begin(); run != points.end();) {
    if (*run < 0x300 || combining_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end =
        std::find_if(run, points.end(), [](auto c) { return combining_class(c) == 0; });
    std::stable_sort(run, end,
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
  utf8proc_ssize_t num_points = static_cast<utf8proc_ssize_t>(points.size());
  if (composes) {
    num_points = utf8proc_normalize_utf32(
        points.data(), num_points,
        static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  }
  for (utf8proc_ssize_t i = 0; i < num_points; ++i) {
    append_utf8(static_cast<char32_t>(points[i]), out);
  }
}

std::string_view strip(std::string_view text, bool left, bool right) {
  const CodePointSet& space = CodePointSet::white_space();
  while (left && !text.empty()) {
    size_t after = 0;
    if (!space.contains(next_code_point(text, after))) break;
    text.remove_prefix(after);
  }
  while (right && !text.empty()) {
    const size_t before = previous_boundary(text, text.size());
    size_t position = before;
    if (!space.contains(next_code_point(text, position))) break;
    text = text.substr(0, before);
  }
  return text;
}

}  // namespace

void append_normal_form(std::string_view text, UnicodeForm form, std::string& out) {
  const char32_t limit = first_affected(form);
  size_t copied = 0;    // text before this is in `out`
  size_t previous = 0;  // start of the code point before `position`
  size_t position = 0;
  while (position < text.size()) {
    const size_t start = position;
    if (next_code_point(text, position) < limit) {
      previous = start;
      continue;
    }
    // The code point before may compose with this one. The stretch ends between two plain ones.
    const size_t run = std::max(previous, copied);
    bool was_plain = false;
    size_t end = text.size();
    while (position < text.size()) {
      const size_t at = position;
      const bool is_plain = next_code_point(text, position) < limit;
      if (is_plain && was_plain) {
        end = at;
        position = at;
        break;
      }
      was_plain = is_plain;
    }
    out.append(text.substr(copied, run - copied));
    append_slow(text.substr(run, end - run), form, out);
    copied = previous = end;
  }
  out.append(text.substr(copied));
}

void append_lowercase(std::string_view text, std::string& out) {
  for (size_t position = 0; position < text.size();) {
    const char32_t c = next_code_point(text, position);
    if (c < 0x80) {
      out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c));
    } else if (c == 0x130) {
      out.append("i\xCC\x87");  // the only code point whose lower case is two: i, dot above
    } else {
      append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
    }
  }
}

std::string_view Normalizer::apply(std::string_view text,
                                   std::string& storage,
                                   bool& keeps_start) const {
  keeps_start = true;
  std::string next;
  std::string_view current = text;
  for (const NormalizerStep& step : steps_) {
    next.clear();
    switch (step.kind) {
      case NormalizerStep::Kind::kUnicodeForm:
        append_normal_form(current, step.form, next);
        break;
      case NormalizerStep::Kind::kPrepend:
        if (!current.empty()) next.append(step.content).append(current);
        break;
      case NormalizerStep::Kind::kReplace: {
        if (step.content.empty()) {
          const auto match = step.pattern->find(current, 0);
          if (match && match->begin == 0 && match->end > 0) keeps_start = false;
        }
        append_replaced(*step.pattern, current, step.content, next);
        break;
      }
      case NormalizerStep::Kind::kLowercase:
        append_lowercase(current, next);
        break;
      case NormalizerStep::Kind::kStrip: {
        const std::string_view stripped = strip(current, step.strips_left, step.strips_right);
        if (stripped.data() != current.data()) keeps_start = false;
        next.append(stripped);
        break;
      }
    }
    std::swap(storage, next);
    current = storage;
  }
  return current;
}

}  // namespace augur
