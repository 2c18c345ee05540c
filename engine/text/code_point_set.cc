#include "engine/text/code_point_set.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <utility>

namespace augur {
namespace {

using Range = CodePointSet::Range;

constexpr int kNumCategories = 30;
// In the order of utf8proc_category_t.
constexpr std::array<std::string_view, kNumCategories> kCategoryNames = {
    "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps",
    "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};

using CategoryRanges = std::array<std::vector<Range>, kNumCategories>;

CategoryRanges find_category_ranges() {
  CategoryRanges ranges;
  char32_t first = 0;
  int current = utf8proc_category(0);
  for (char32_t c = 1; c <= 0x110000; ++c) {
    const int category = c <= 0x10FFFF ? utf8proc_category(static_cast<utf8proc_int32_t>(c)) : -1;
    if (category == current) continue;
    ranges[current].push_back({first, c - 1});
    first = c;
    current = category;
  }
  return ranges;
}

const CategoryRanges& category_ranges() {
  static const CategoryRanges ranges = find_category_ranges();
  return ranges;
}

template <typename Predicate>
CodePointSet union_of_categories(Predicate wanted) {
  std::vector<Range> all;
  for (int i = 0; i < kNumCategories; ++i) {
    if (!wanted(kCategoryNames[i])) continue;
    const auto& ranges = category_ranges()[i];
    all.insert(all.end(), ranges.begin(), ranges.end());
  }
  return CodePointSet(std::move(all));
}

}  // namespace

CodePointSet::CodePointSet(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.first < b.first; });
  for (const Range& range : ranges) {
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    } else {
      ranges_.push_back(range);
    }
  }
}

std::optional<CodePointSet> CodePointSet::of_property(std::string_view name) {
  if (name == "Any") return all();
  const bool is_group = name.size() == 1;
  CodePointSet set = union_of_categories(
      [&](std::string_view c) { return is_group ? c[0] == name[0] : c == name; });
  if (set.empty()) return std::nullopt;
  return set;
}

const CodePointSet& CodePointSet::white_space() {
  static const CodePointSet set({{0x09, 0x0D},
                                 {0x20, 0x20},
                                 {0x85, 0x85},
                                 {0xA0, 0xA0},
                                 {0x1680, 0x1680},
                                 {0x2000, 0x200A},
                                 {0x2028, 0x2029},
                                 {0x202F, 0x202F},
                                 {0x205F, 0x205F},
                                 {0x3000, 0x3000}});
  return set;
}

const CodePointSet& CodePointSet::digits() {
  static const CodePointSet set = *of_property("Nd");
  return set;
}

const CodePointSet& CodePointSet::word() {
  // What Unicode calls alphabetic, marks, decimal digits and connectors. Alphabetic are letters,
  // letter numbers, marks, and some enclosed letters.
  static const CodePointSet set =
      union_of_categories([](std::string_view c) {
        return c[0] == 'L' || c[0] == 'M' || c == "Nd" || c == "Nl" || c == "Pc";
      })
          .united(CodePointSet(
              {{0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}}));
  return set;
}

const CodePointSet& CodePointSet::lone_word() {
  static const CodePointSet set =
      word().united(CodePointSet({{0xB2, 0xB3}, {0xB9, 0xB9}, {0xBC, 0xBE}}));
  return set;
}

CodePointSet CodePointSet::united(const CodePointSet& other) const {
  std::vector<Range> both = ranges_;
  both.insert(both.end(), other.ranges_.begin(), other.ranges_.end());
  return CodePointSet(std::move(both));
}

CodePointSet CodePointSet::intersected(const CodePointSet& other) const {
  return complement().united(other.complement()).complement();
}

CodePointSet CodePointSet::complement() const {
  std::vector<Range> gaps;
  char32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) gaps.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= 0x10FFFF) gaps.push_back({next, 0x10FFFF});
  return CodePointSet(std::move(gaps));
}

std::optional<CodePointSet> CodePointSet::case_folded() const {
  if (!ranges_.empty() && ranges_.back().last >= 0x80) return std::nullopt;
  std::vector<Range> folded = ranges_;
  for (char32_t lower = 'a'; lower <= 'z'; ++lower) {
    const char32_t upper = lower - 'a' + 'A';
    if (!contains(lower) && !contains(upper)) continue;
    folded.push_back({lower, lower});
    folded.push_back({upper, upper});
    if (lower == 's') folded.push_back({0x17F, 0x17F});
    if (lower == 'k') folded.push_back({0x212A, 0x212A});
  }
  return CodePointSet(std::move(folded));
}

bool CodePointSet::contains(char32_t code_point) const {
  const auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), code_point,
                       [](char32_t value, const Range& range) { return value < range.first; });
  return after != ranges_.begin() && code_point <= std::prev(after)->last;
}

}  // namespace augur
