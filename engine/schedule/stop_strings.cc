#include "engine/schedule/stop_strings.h"

#include <algorithm>

#include "kernels/require.h"

namespace augur {

StopStrings::StopStrings(std::span<const std::string> stops) {
  stops_.reserve(stops.size());
  for (const std::string& text : stops) {
    AUGUR_REQUIRE(!text.empty(), "a stop string is empty");
    is_first_byte_.set(static_cast<unsigned char>(text[0]));
    std::vector<uint32_t> border(text.size() + 1, 0);
    uint32_t length = 0;
    for (size_t i = 1; i < text.size(); ++i) {
      while (length > 0 && text[i] != text[length]) length = border[length];
      if (text[i] == text[length]) ++length;
      border[i + 1] = length;
    }
    stops_.push_back({text, std::move(border)});
  }
}

StopMatcher::StopMatcher(const StopStrings& stops, bool include_stop)
    : stops_(&stops), include_stop_(include_stop), num_matched_(stops.size(), 0) {}

int StopMatcher::push(std::string_view piece, bool may_match, std::string& out) {
  if (stops_->empty()) {
    out += piece;
    return kNoMatch;
  }
  const size_t first_new = held_.size();
  held_ += piece;
  for (size_t i = first_new; i < held_.size(); ++i) {
    const char byte = held_[i];
    if (max_matched_ == 0 && !stops_->is_first_byte_[static_cast<unsigned char>(byte)]) continue;
    max_matched_ = 0;
    int match = kNoMatch;
    for (size_t s = 0; s < num_matched_.size(); ++s) {
      const auto& [text, border] = stops_->stops_[s];
      uint32_t length = num_matched_[s];
      while (length > 0 && byte != text[length]) length = border[length];
      if (byte == text[length]) ++length;
      if (length == text.size()) {
        if (match == kNoMatch || length > (*stops_)[match].size()) match = static_cast<int>(s);
        length = border[length];
      }
      num_matched_[s] = length;
      max_matched_ = std::max(max_matched_, length);
    }
    if (match != kNoMatch && may_match) {
      const size_t end = i + 1;
      out.append(held_, 0, include_stop_ ? end : end - (*stops_)[match].size());
      held_.clear();
      return match;
    }
  }
  const size_t num_final = held_.size() - max_matched_;
  out.append(held_, 0, num_final);
  held_.erase(0, num_final);
  return kNoMatch;
}

void StopMatcher::finish(std::string& out) {
  out += held_;
  held_.clear();
}

}  // namespace augur
