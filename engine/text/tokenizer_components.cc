#include "engine/text/tokenizer_components.h"
#include "engine/text/in_quotes.h"

#include <string>
#include <string_view>
#include <utility>

#include "configs/config_error.h"
#include "engine/text/utf8.h"

namespace augur {
namespace {

using simdjson::dom::element;

constexpr size_t kMaxSteps = 64;  // of one kind; published files have up to five

// The pattern that byte-level tokenizers split by unless told otherwise (GPT-2).
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// {"String": "..."} or {"Regex": "..."}.
TextPattern read_pattern(const JsonObject& json) {
  const JsonObject pattern = json.object_at("pattern");
  if (pattern.find("String")) {
    return TextPattern::from_string(std::string(pattern.string_at("String")));
  }
  if (pattern.find("Regex")) {
    return TextPattern::from_regex(pattern.string_at("Regex"), pattern.where("Regex"));
  }
  json.fail("pattern", "expected the key String or Regex");
}

TextPattern fixed_pattern(std::string_view regex) {
  return TextPattern::from_regex(regex, "");
}

// A string of exactly one code point.
std::string read_character(const JsonObject& json, std::string_view key) {
  const std::string_view text = json.string_at(key);
  size_t end = 0;
  if (!text.empty()) next_code_point(text, end);
  if (text.empty() || end != text.size()) {
    json.fail(key, "found " + in_quotes(text) + "; expected one character");
  }
  return std::string(text);
}

SplitBehavior read_behavior(const JsonObject& json) {
  const std::string_view name = json.string_at("behavior");
  static constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  for (const auto& [known, behavior] : kBehaviors) {
    if (name == known) return behavior;
  }
  json.fail("behavior", in_quotes(name) +
                            " is not supported; supported: Removed, Isolated, "
                            "MergedWithPrevious, MergedWithNext, Contiguous");
}

enum class PrependScheme { kAlways, kFirst, kNever };

// `prepend_scheme`, or the older `add_prefix_space`.
PrependScheme read_prepend_scheme(const JsonObject& json) {
  const bool adds_space = json.bool_at("add_prefix_space", true);
  if (!json.find("prepend_scheme")) {
    return adds_space ? PrependScheme::kAlways : PrependScheme::kNever;
  }
  const std::string_view name = json.string_at("prepend_scheme");
  if (!adds_space && name != "never") {
    json.fail("prepend_scheme", in_quotes(name) + " contradicts add_prefix_space: false");
  }
  if (name == "always") return PrependScheme::kAlways;
  if (name == "first") return PrependScheme::kFirst;
  if (name == "never") return PrependScheme::kNever;
  json.fail("prepend_scheme",
            in_quotes(name) + " is not supported; supported: always, first, never");
}

// Calls `read` with each component of a Sequence.
template <typename Read>
void for_each_in(const JsonObject& json, std::string_view key, Read read) {
  size_t i = 0;
  for (const element item : json.array_at(key)) {
    read(JsonObject::from(item, json.where(key) + "[" + std::to_string(i++) + "]"));
  }
}

void check_num_steps(const JsonObject& json, size_t num_steps) {
  if (num_steps >= kMaxSteps) {
    throw ConfigError(json.where(), "more than " + std::to_string(kMaxSteps) + " steps");
  }
}

void read_metaspace(const JsonObject& json, std::vector<PreTokenizerStep>& steps) {
  const std::string replacement = read_character(json, "replacement");
  const PrependScheme scheme = read_prepend_scheme(json);
  steps.push_back({.kind = PreTokenizerStep::Kind::kReplaceSpaces, .text = replacement});
  if (scheme != PrependScheme::kNever) {
    steps.push_back({.kind = PreTokenizerStep::Kind::kEnsureStartsWith,
                     .text = replacement,
                     .only_at_start = scheme == PrependScheme::kFirst});
  }
  if (!json.bool_at("split", true)) return;
  steps.push_back({.kind = PreTokenizerStep::Kind::kSplit,
                   .pattern = TextPattern::from_string(replacement),
                   .behavior = SplitBehavior::kMergedWithNext});
}

void read_template(const JsonObject& json, SpecialTokens& special_tokens) {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  bool has_sequence = false;
  for_each_in(json, "single", [&](const JsonObject& piece) {
    if (piece.find("Sequence")) {
      const std::string_view id = piece.object_at("Sequence").string_at("id");
      if (id != "A" || has_sequence) {
        json.fail("single", "expected the sequence A once, and no other");
      }
      has_sequence = true;
      return;
    }
    const JsonObject token = piece.object_at("SpecialToken");
    const std::string_view name = token.string_at("id");
    const JsonObject known = json.object_at("special_tokens");
    if (!known.find(name)) {
      token.fail("id", in_quotes(name) + " is not in special_tokens");
    }
    const JsonObject entry = known.object_at(name);
    for (const element id_element : entry.array_at("ids")) {
      int64_t id = 0;
      if (id_element.get(id) != simdjson::SUCCESS || id < 0 || id >= kTokenIdLimit) {
        entry.fail("ids", "found " + simdjson::to_string(id_element) + "; expected token ids");
      }
      (has_sequence ? after : before).push_back(static_cast<int32_t>(id));
    }
  });
  if (!has_sequence) json.fail("single", "expected the sequence A once");
  if (!special_tokens.before.empty() || !special_tokens.after.empty()) {
    throw ConfigError(json.where(), "a second TemplateProcessing is not supported");
  }
  special_tokens = {std::move(before), std::move(after)};
}

}  // namespace

void read_normalizer(const JsonObject& json, std::vector<NormalizerStep>& steps) {
  using Kind = NormalizerStep::Kind;
  check_num_steps(json, steps.size());
  const std::string_view type = json.type();
  if (type == "Sequence") {
    for_each_in(json, "normalizers", [&](const JsonObject& item) { read_normalizer(item, steps); });
  } else if (type == "NFC") {
    steps.push_back({.kind = Kind::kUnicodeForm, .form = UnicodeForm::kNfc});
  } else if (type == "NFD") {
    steps.push_back({.kind = Kind::kUnicodeForm, .form = UnicodeForm::kNfd});
  } else if (type == "NFKC") {
    steps.push_back({.kind = Kind::kUnicodeForm, .form = UnicodeForm::kNfkc});
  } else if (type == "NFKD") {
    steps.push_back({.kind = Kind::kUnicodeForm, .form = UnicodeForm::kNfkd});
  } else if (type == "Prepend") {
    steps.push_back({.kind = Kind::kPrepend, .content = std::string(json.string_at("prepend"))});
  } else if (type == "Replace") {
    steps.push_back({.kind = Kind::kReplace,
                     .content = std::string(json.string_at("content")),
                     .pattern = read_pattern(json)});
  } else if (type == "Lowercase") {
    steps.push_back({.kind = Kind::kLowercase});
  } else if (type == "Strip") {
    steps.push_back({.kind = Kind::kStrip,
                     .strips_left = json.bool_at("strip_left"),
                     .strips_right = json.bool_at("strip_right")});
  } else {
    json.fail_type("NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, Sequence");
  }
}

void read_pre_tokenizer(const JsonObject& json, std::vector<PreTokenizerStep>& steps) {
  using Kind = PreTokenizerStep::Kind;
  check_num_steps(json, steps.size());
  const auto add_split = [&](TextPattern pattern, SplitBehavior behavior, bool invert) {
    steps.push_back({.kind = Kind::kSplit,
                     .pattern = std::move(pattern),
                     .behavior = behavior,
                     .invert = invert});
  };
  const std::string_view type = json.type();
  if (type == "Sequence") {
    for_each_in(json, "pretokenizers",
                [&](const JsonObject& item) { read_pre_tokenizer(item, steps); });
  } else if (type == "Split") {
    add_split(read_pattern(json), read_behavior(json), json.bool_at("invert", false));
  } else if (type == "ByteLevel") {
    if (json.bool_at("add_prefix_space", true)) {
      steps.push_back({.kind = Kind::kEnsureStartsWith, .text = " "});
    }
    if (json.bool_at("use_regex", true)) {
      add_split(fixed_pattern(kByteLevelPattern), SplitBehavior::kIsolated, false);
    }
    steps.push_back({.kind = Kind::kByteLevel});
  } else if (type == "Digits") {
    const bool individual = json.bool_at("individual_digits", false);
    add_split(fixed_pattern(R"(\p{N})"),
              individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false);
  } else if (type == "Metaspace") {
    read_metaspace(json, steps);
  } else if (type == "Punctuation") {
    const bool has_behavior = json.find("behavior").has_value();
    add_split(fixed_pattern(R"([!-/:-@\[-`{-~\p{P}])"),
              has_behavior ? read_behavior(json) : SplitBehavior::kIsolated, false);
  } else if (type == "Whitespace") {
    // Words are what Rust's regex crate calls so: the zero-width joiners are in them.
    add_split(fixed_pattern(R"([\w\x{200C}\x{200D}]+|[^\s\w\x{200C}\x{200D}]+)"),
              SplitBehavior::kRemoved, true);
  } else if (type == "WhitespaceSplit") {
    add_split(fixed_pattern(R"(\s)"), SplitBehavior::kRemoved, false);
  } else {
    json.fail_type(
        "Split, ByteLevel, Digits, Metaspace, Punctuation, Whitespace, WhitespaceSplit, Sequence");
  }
}

void read_post_processor(const JsonObject& json, SpecialTokens& special_tokens) {
  const std::string_view type = json.type();
  if (type == "Sequence") {
    for_each_in(json, "processors",
                [&](const JsonObject& item) { read_post_processor(item, special_tokens); });
  } else if (type == "TemplateProcessing") {
    read_template(json, special_tokens);
  } else if (type != "ByteLevel") {  // which trims offsets only
    json.fail_type("TemplateProcessing, ByteLevel, Sequence");
  }
}

void read_decoder(const JsonObject& json, std::vector<DecoderStep>& steps) {
  using Kind = DecoderStep::Kind;
  constexpr int64_t kMaxStrip = 1 << 20;
  check_num_steps(json, steps.size());
  const std::string_view type = json.type();
  if (type == "Sequence") {
    for_each_in(json, "decoders", [&](const JsonObject& item) { read_decoder(item, steps); });
  } else if (type == "ByteLevel") {
    steps.push_back({.kind = Kind::kByteLevel});
  } else if (type == "Replace") {
    steps.push_back({.kind = Kind::kReplace,
                     .pattern = read_pattern(json),
                     .content = std::string(json.string_at("content"))});
  } else if (type == "ByteFallback") {
    steps.push_back({.kind = Kind::kByteFallback});
  } else if (type == "Fuse") {
    steps.push_back({.kind = Kind::kFuse});
  } else if (type == "Strip") {
    steps.push_back({.kind = Kind::kStrip,
                     .content = read_character(json, "content"),
                     .start = static_cast<size_t>(json.index_at("start", kMaxStrip)),
                     .stop = static_cast<size_t>(json.index_at("stop", kMaxStrip))});
  } else if (type == "Metaspace") {
    steps.push_back({.kind = Kind::kMetaspace,
                     .content = read_character(json, "replacement"),
                     .drops_first = read_prepend_scheme(json) != PrependScheme::kNever});
  } else {
    json.fail_type("ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence");
  }
}

}  // namespace augur
