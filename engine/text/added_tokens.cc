#include "engine/text/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "engine/text/code_point_set.h"
#include "engine/text/utf8.h"

namespace augur {
namespace {

// Word characters here are those of Rust's regex crate: also the zero-width joiners.
bool is_word(char32_t c) {
  return CodePointSet::word().contains(c) || c == 0x200C || c == 0x200D;
}

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t position = previous_boundary(text, text.size());
  return is_word(next_code_point(text, position));
}

bool starts_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t position = 0;
  return is_word(next_code_point(text, position));
}

}  // namespace

void AddedTokenFinder::add(std::string_view text, const AddedToken& token) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (!starts_token_[first]) {
    starts_token_[first] = true;
    only_first_byte_ = first;
    ++num_first_bytes_;
  }
  uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    auto& children = nodes_[node].children;
    const auto place = std::lower_bound(
        children.begin(), children.end(), byte,
        [](const auto& child, unsigned char value) { return child.first < value; });
    if (place != children.end() && place->first == byte) {
      node = place->second;
      continue;
    }
    const auto created = static_cast<uint32_t>(nodes_.size());
    children.insert(place, {byte, created});
    nodes_.emplace_back();
    node = created;
  }
  nodes_[node].token = &token;
}

std::optional<AddedTokenFinder::Piece> AddedTokenFinder::find(std::string_view text,
                                                              size_t start) const {
  if (empty()) return std::nullopt;
  for (size_t begin = start; begin < text.size(); ++begin) {
    if (num_first_bytes_ == 1) {
      const void* found = std::memchr(text.data() + begin, only_first_byte_, text.size() - begin);
      if (found == nullptr) return std::nullopt;
      begin = static_cast<const char*>(found) - text.data();
    } else if (!starts_token_[static_cast<unsigned char>(text[begin])]) {
      continue;
    }
    uint32_t node = 0;
    std::optional<Piece> longest;
    for (size_t i = begin; i < text.size(); ++i) {
      const auto& children = nodes_[node].children;
      const auto byte = static_cast<unsigned char>(text[i]);
      const auto place = std::lower_bound(
          children.begin(), children.end(), byte,
          [](const auto& child, unsigned char value) { return child.first < value; });
      if (place == children.end() || place->first != byte) break;
      node = place->second;
      if (nodes_[node].token != nullptr) longest = Piece{nodes_[node].token, begin, i + 1};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

std::optional<AddedTokenFinder::Piece> AddedTokenFinder::Cursor::next() {
  if (waiting_) return std::exchange(waiting_, std::nullopt);
  while (search_ < text_.size()) {
    std::optional<Piece> found = finder_.find(text_, search_);
    if (!found) break;
    search_ = found->end;
    // White space that an earlier token took with it may hold the start of a later match.
    if (found->token->single_word && (ends_with_word(text_.substr(0, found->begin)) ||
                                      starts_with_word(text_.substr(found->end)))) {
      continue;
    }
    const CodePointSet& space = CodePointSet::white_space();
    if (found->token->lstrip) {
      while (found->begin > position_) {
        const size_t before = previous_boundary(text_, found->begin);
        size_t after = before;
        if (!space.contains(next_code_point(text_, after))) break;
        found->begin = before;
      }
    }
    if (found->token->rstrip) {
      while (found->end < text_.size()) {
        size_t after = found->end;
        if (!space.contains(next_code_point(text_, after))) break;
        found->end = after;
      }
    }
    const size_t gap_begin = std::exchange(position_, found->end);
    if (gap_begin < found->begin) {
      waiting_ = found;
      return Piece{nullptr, gap_begin, found->begin};
    }
    return found;
  }
  search_ = text_.size();
  if (position_ < text_.size()) {
    return Piece{nullptr, std::exchange(position_, text_.size()), text_.size()};
  }
  return std::nullopt;
}

}  // namespace augur
