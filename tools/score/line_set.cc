#include "tools/score/line_set.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <limits>

namespace augur::score {

void LineSet::insert_range(int64_t first, int64_t last) {
  // Start from the range before, when it reaches up to `first`, and swallow all that is touched.
  auto range = ranges_.upper_bound(first);
  if (range != ranges_.begin()) {
    const auto before = std::prev(range);
    if (before->second >= first - 1) range = before;
  }
  while (range != ranges_.end() && range->first <= last + 1) {
    first = std::min(first, range->first);
    last = std::max(last, range->second);
    range = ranges_.erase(range);
  }
  ranges_.emplace(first, last);
}

void LineSet::insert_all(const LineSet& other) {
  for (const auto& [first, last] : other.ranges_) insert_range(first, last);
}

bool LineSet::contains(int64_t line) const {
  const auto after = ranges_.upper_bound(line);
  return after != ranges_.begin() && std::prev(after)->second >= line;
}

int64_t LineSet::size() const {
  int64_t count = 0;
  for (const auto& [first, last] : ranges_) count += last - first + 1;
  return count;
}

LineSet LineSet::first_lines(int64_t count) const {
  LineSet smallest;
  for (const auto& [first, last] : ranges_) {
    if (count <= 0) break;
    const int64_t taken = std::min(count, last - first + 1);
    smallest.ranges_.emplace(first, first + taken - 1);
    count -= taken;
  }
  return smallest;
}

std::string LineSet::to_string() const {
  std::string text;
  for (const auto& [first, last] : ranges_) {
    if (!text.empty()) text += ',';
    text += std::to_string(first);
    if (last > first) text += '-' + std::to_string(last);
  }
  return text;
}

std::optional<LineSet> LineSet::parse(std::string_view text) {
  LineSet lines;
  const char* at = text.data();
  const char* const end = at + text.size();
  int64_t largest = 0;
  while (at != end) {
    int64_t first = 0;
    auto [after, error] = std::from_chars(at, end, first);
    if (error != std::errc()) return {};
    int64_t last = first;
    if (after != end && *after == '-') {
      const auto [after_last, last_error] = std::from_chars(after + 1, end, last);
      if (last_error != std::errc()) return {};
      after = after_last;
    }
    if (first <= largest || last < first || last == std::numeric_limits<int64_t>::max()) return {};
    largest = last;
    lines.insert_range(first, last);
    if (after == end) break;
    if (*after != ',' || after + 1 == end) return {};
    at = after + 1;
  }
  return lines;
}

}  // namespace augur::score
