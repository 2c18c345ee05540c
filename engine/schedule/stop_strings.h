// Finds stop strings in text that arrives in pieces.
//
// The answer does not depend on how the text is cut into pieces: the first stop string to be
// complete ends the text, and of several that end on the same byte the longest. Text that could
// still become a stop string is held back.
// Cost: one table look-up per byte of text, and one step per stop string for bytes that begin or
// continue one (Knuth, Morris and Pratt 1977).
// Threading: one thread.
#pragma once

#include <bitset>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace augur {

/// The stop strings of a request, prepared once for all of its completions.
class StopStrings {
 public:
  StopStrings() = default;
  /// Requires that none is empty. Text is never cut inside a character when the stop strings are
  /// well-formed UTF-8, as the text must be.
  explicit StopStrings(std::span<const std::string> stops);

  bool empty() const { return stops_.empty(); }
  size_t size() const { return stops_.size(); }
  const std::string& operator[](size_t stop_idx) const { return stops_[stop_idx].text; }

 private:
  friend class StopMatcher;
  struct Stop {
    std::string text;
    // border[k]: length of the longest proper prefix of text that ends its first k bytes.
    std::vector<uint32_t> border;
  };
  std::vector<Stop> stops_;
  std::bitset<256> is_first_byte_;  // of some stop string
};

/// Where one text stands.
class StopMatcher {
 public:
  static constexpr int kNoMatch = -1;

  /// `stops` outlives the matcher. `include_stop`: the stop string is kept in the text.
  StopMatcher(const StopStrings& stops, bool include_stop);

  /// Takes the next piece and appends to `out` what became final. Returns which stop string ended
  /// the text (nothing may be pushed afterwards: the rest of the piece is dropped), or kNoMatch.
  /// Stop strings that become complete while `may_match` is false do not count.
  int push(std::string_view piece, bool may_match, std::string& out);
  /// Ends the text without a match: what was held back is final.
  void finish(std::string& out);

 private:
  const StopStrings* stops_;
  bool include_stop_;
  std::vector<uint32_t> num_matched_;  // per stop string: how much of it ends the text so far
  uint32_t max_matched_ = 0;           // the largest of them: so much text is held back
  std::string held_;
};

}  // namespace augur
