// Added tokens: strings that become one token each, found in the text before the model sees it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace augur {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space on its left with it
  bool rstrip = false;
  bool normalized = true;  // found in the normalized text, in its normalized form
  bool special = false;    // left out when decoding, on request
};

/// Finds added tokens, leftmost first and there the longest. Immutable once built; then any
/// number of threads may search.
class AddedTokenFinder {
 public:
  /// `token` outlives the finder. `text` is what to look for, not empty; of two tokens with the
  /// same text the later wins.
  void add(std::string_view text, const AddedToken& token);

  /// A stretch of the text: one token, or, with token null, what lies between tokens.
  struct Piece {
    const AddedToken* token;
    size_t begin;
    size_t end;
  };
  /// The next piece from `position` on; nothing at the end. Pieces follow each other without gaps
  /// and are not empty.
  class Cursor {
   public:
    Cursor(const AddedTokenFinder& finder, std::string_view text) : finder_(finder), text_(text) {}
    std::optional<Piece> next();

   private:
    const AddedTokenFinder& finder_;
    std::string_view text_;
    size_t position_ = 0;  // end of the pieces given out
    size_t search_ = 0;    // end of the matches looked at
    std::optional<Piece> waiting_;
  };

  bool empty() const { return nodes_.size() == 1; }

 private:
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> children;  // sorted by byte
    const AddedToken* token = nullptr;
  };
  std::optional<Piece> find(std::string_view text, size_t start) const;

  std::vector<Node> nodes_{1};  // a trie; nodes_[0] is its root
  bool starts_token_[256] = {};
  int num_first_bytes_ = 0;
  unsigned char only_first_byte_ = 0;
};

}  // namespace augur
