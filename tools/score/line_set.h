// A set of line numbers that are mostly consecutive.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace augur::score {

/// Kept as ranges: the lines done of a run of any length take little memory.
class LineSet {
 public:
  void insert(int64_t line) { insert_range(line, line); }
  /// Adds first .. last, both included.
  void insert_range(int64_t first, int64_t last);
  void insert_all(const LineSet& other);

  bool contains(int64_t line) const;
  bool empty() const { return ranges_.empty(); }
  int64_t size() const;
  /// The largest line number; 0 of an empty set.
  int64_t max() const { return ranges_.empty() ? 0 : ranges_.rbegin()->second; }
  /// The set of the smallest `count` lines of this one.
  LineSet first_lines(int64_t count) const;

  /// "1-7,9". Empty for an empty set.
  std::string to_string() const;
  /// The opposite; nothing when the text is not of that form, rising and from 1 on.
  static std::optional<LineSet> parse(std::string_view text);

  bool operator==(const LineSet&) const = default;

 private:
  std::map<int64_t, int64_t> ranges_;  // first -> last; neither touching nor overlapping
};

}  // namespace augur::score
