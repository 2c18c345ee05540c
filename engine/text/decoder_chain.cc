#include "engine/text/decoder_chain.h"

#include <algorithm>
#include <optional>

#include "engine/text/byte_alphabet.h"
#include "engine/text/utf8.h"

namespace augur {
namespace {

// A stage that writes to the one after it.
class Stage : public DecodeStage {
 public:
  explicit Stage(DecodeStage& next) : next_(next) {}
  void finish() override { next_.finish(); }

 protected:
  DecodeStage& next_;
};

class Output final : public DecodeStage {
 public:
  explicit Output(std::string& text) : text_(text) {}
  void push(std::string_view part, bool) override { text_.append(part); }
  void finish() override {}

 private:
  std::string& text_;
};

// A stage that needs each token whole.
class WholeTokenStage : public Stage {
 public:
  using Stage::Stage;
  void push(std::string_view part, bool ends_token) final {
    if (ends_token && held_.empty()) {
      push_token(part);
      return;
    }
    held_.append(part);
    if (!ends_token) return;
    push_token(held_);
    held_.clear();
  }
  void finish() final {
    if (!held_.empty()) push_token(held_);
    held_.clear();
    finish_tokens();
    next_.finish();
  }

 protected:
  virtual void push_token(std::string_view token) = 0;
  virtual void finish_tokens() {}

 private:
  std::string held_;
};

class ByteLevelStage final : public WholeTokenStage {
 public:
  using WholeTokenStage::WholeTokenStage;

 protected:
  void push_token(std::string_view token) override {
    const std::optional<std::string> bytes = bytes_of_stand_ins(token);
    text_.clear();
    repairer_.push(bytes ? std::string_view(*bytes) : token, text_);
    if (!text_.empty()) next_.push(text_, /*ends_token=*/false);
  }
  void finish_tokens() override {
    text_.clear();
    repairer_.finish(text_);
    next_.push(text_, /*ends_token=*/true);
  }

 private:
  Utf8Repairer repairer_;
  std::string text_;
};

class ReplaceStage final : public WholeTokenStage {
 public:
  ReplaceStage(const DecoderStep& step, DecodeStage& next) : WholeTokenStage(next), step_(step) {}

 protected:
  void push_token(std::string_view token) override {
    text_.clear();
    append_replaced(*step_.pattern, token, step_.content, text_);
    next_.push(text_, /*ends_token=*/true);
  }

 private:
  const DecoderStep& step_;
  std::string text_;
};

// Replaces a fixed string, also in a token that never ends: it holds back no more than what may
// be the start of that string.
class ReplaceStringStage final : public Stage {
 public:
  ReplaceStringStage(const DecoderStep& step, DecodeStage& next)
      : Stage(next), pattern_(*step.pattern->fixed_string()), content_(step.content) {}

  void push(std::string_view part, bool ends_token) override {
    held_.append(part);
    std::string text;
    size_t copied = 0;
    for (size_t at; (at = held_.find(pattern_, copied)) != std::string::npos;) {
      text.append(held_, copied, at - copied).append(content_);
      copied = at + pattern_.size();
    }
    size_t keep = 0;
    if (!ends_token) {
      keep = std::min(pattern_.size() - 1, held_.size() - copied);
      while (!std::string_view(held_).ends_with(std::string_view(pattern_).substr(0, keep))) {
        --keep;
      }
    }
    text.append(held_, copied, held_.size() - keep - copied);
    held_.erase(0, held_.size() - keep);
    next_.push(text, ends_token);
  }
  void finish() override {
    if (!held_.empty()) next_.push(held_, /*ends_token=*/true);
    next_.finish();
  }

 private:
  const std::string& pattern_;
  const std::string& content_;
  std::string held_;
};

class ByteFallbackStage final : public WholeTokenStage {
 public:
  using WholeTokenStage::WholeTokenStage;

 protected:
  void push_token(std::string_view token) override {
    if (const std::optional<char> byte = byte_of(token)) {
      bytes_.push_back(*byte);
      return;
    }
    flush();
    next_.push(token, /*ends_token=*/true);
  }
  void finish_tokens() override { flush(); }

 private:
  static std::optional<char> byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) {
      return std::nullopt;
    }
    int value = 0;
    for (const char c : token.substr(3, 2)) {
      if (c >= '0' && c <= '9') {
        value = value * 16 + (c - '0');
      } else if ((c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f')) {
        value = value * 16 + ((c | 0x20) - 'a' + 10);
      } else {
        return std::nullopt;
      }
    }
    return static_cast<char>(value);
  }

  // One bad byte spoils its whole run, so nothing of a run is final before it ends.
  void flush() {
    if (bytes_.empty()) return;
    std::string repaired;
    if (valid_utf8_or_repaired(bytes_, repaired).data() == bytes_.data()) {
      next_.push(bytes_, /*ends_token=*/true);
    } else {
      for (size_t i = 0; i < bytes_.size(); ++i) {
        next_.push(kReplacementCharacter, /*ends_token=*/true);
      }
    }
    bytes_.clear();
  }

  std::string bytes_;
};

class FuseStage final : public Stage {
 public:
  using Stage::Stage;
  void push(std::string_view part, bool) override {
    if (!part.empty()) next_.push(part, /*ends_token=*/false);
  }
  void finish() override {
    next_.push({}, /*ends_token=*/true);
    next_.finish();
  }
};

/// Calls `action` with each character of well-formed UTF-8.
template <typename Action>
void for_each_character(std::string_view text, Action&& action) {
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    next_code_point(text, position);
    action(text.substr(begin, position - begin));
  }
}

class StripStage final : public Stage {
 public:
  StripStage(const DecoderStep& step, DecodeStage& next) : Stage(next), step_(step) {}

  void push(std::string_view part, bool ends_token) override {
    std::string text;
    for_each_character(part, [&](std::string_view character) {
      if (character != step_.content) {
        is_leading_ = false;
        for (; num_held_ > 0; --num_held_) text.append(step_.content);
        text.append(character);
      } else if (is_leading_ && num_stripped_ < step_.start) {
        ++num_stripped_;
      } else if (num_held_ < step_.stop) {
        ++num_held_;
      } else {
        text.append(character);  // the held ones are as good
      }
    });
    if (ends_token) {
      is_leading_ = true;
      num_stripped_ = 0;
      num_held_ = 0;
    }
    next_.push(text, ends_token);
  }

 private:
  const DecoderStep& step_;
  bool is_leading_ = true;
  size_t num_stripped_ = 0;
  size_t num_held_ = 0;  // `content`s that may turn out to be the token's last
};

class MetaspaceStage final : public Stage {
 public:
  MetaspaceStage(const DecoderStep& step, DecodeStage& next) : Stage(next), step_(step) {}

  void push(std::string_view part, bool ends_token) override {
    std::string text;
    for_each_character(part, [&](std::string_view character) {
      if (character != step_.content) {
        text.append(character);
      } else if (!is_first_ || !step_.drops_first) {
        text.push_back(' ');
      }
    });
    if (ends_token) is_first_ = false;
    next_.push(text, ends_token);
  }

 private:
  const DecoderStep& step_;
  bool is_first_ = true;
};

class JoinStage final : public Stage {
 public:
  using Stage::Stage;
  void push(std::string_view part, bool ends_token) override {
    if (token_begins_ && !is_first_) next_.push(" ", /*ends_token=*/false);
    is_first_ = false;
    token_begins_ = ends_token;
    next_.push(part, ends_token);
  }

 private:
  bool is_first_ = true;
  bool token_begins_ = true;
};

std::unique_ptr<DecodeStage> make_stage(const DecoderStep& step, DecodeStage& next) {
  switch (step.kind) {
    case DecoderStep::Kind::kByteLevel:
      return std::make_unique<ByteLevelStage>(next);
    case DecoderStep::Kind::kReplace:
      if (step.pattern->fixed_string() != nullptr) {
        return std::make_unique<ReplaceStringStage>(step, next);
      }
      return std::make_unique<ReplaceStage>(step, next);
    case DecoderStep::Kind::kByteFallback:
      return std::make_unique<ByteFallbackStage>(next);
    case DecoderStep::Kind::kFuse:
      return std::make_unique<FuseStage>(next);
    case DecoderStep::Kind::kStrip:
      return std::make_unique<StripStage>(step, next);
    case DecoderStep::Kind::kMetaspace:
      return std::make_unique<MetaspaceStage>(step, next);
    case DecoderStep::Kind::kJoin:
      return std::make_unique<JoinStage>(next);
  }
  return nullptr;
}

}  // namespace

DecoderChain::DecoderChain(const std::vector<DecoderStep>& steps)
    : text_(std::make_unique<std::string>()) {
  stages_.push_back(std::make_unique<Output>(*text_));
  for (size_t i = steps.size(); i-- > 0;) {
    stages_.push_back(make_stage(steps[i], *stages_.back()));
  }
}

DecoderChain::DecoderChain(DecoderChain&&) noexcept = default;
DecoderChain& DecoderChain::operator=(DecoderChain&&) noexcept = default;
DecoderChain::~DecoderChain() = default;

void DecoderChain::push(std::string_view token) {
  stages_.back()->push(token, /*ends_token=*/true);
}

void DecoderChain::finish() {
  stages_.back()->finish();
}

std::string DecoderChain::take_text() {
  return std::exchange(*text_, {});
}

}  // namespace augur
