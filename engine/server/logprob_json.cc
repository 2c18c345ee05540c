#include "engine/server/logprob_json.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "engine/server/json_text.h"

namespace augur::server {
namespace {

void append_comma(std::string& list) {
  if (!list.empty()) list.push_back(',');
}

/// A token as the key of a completion's alternatives.
std::string label_of(const TokenTexts::Entry& entry) {
  if (entry.is_text) return entry.bytes;
  constexpr char kHex[] = "0123456789abcdef";
  std::string label = "bytes:";
  for (const char c : entry.bytes) {
    const auto byte = static_cast<unsigned char>(c);
    label.append("\\x").push_back(kHex[byte >> 4]);
    label.push_back(kHex[byte & 15]);
  }
  return label;
}

void append_token_object(int32_t token_id, float logprob, TokenTexts& texts, std::string& out) {
  const TokenTexts::Entry& entry = texts.of(token_id);
  out += R"({"token":)";
  append_json_string(entry.bytes, out);
  out += R"(,"logprob":)";
  append_json_logprob(logprob, out);
  out += R"(,"bytes":[)";
  for (size_t i = 0; i < entry.bytes.size(); ++i) {
    if (i > 0) out.push_back(',');
    append_json_integer(static_cast<unsigned char>(entry.bytes[i]), out);
  }
  out.push_back(']');
}

}  // namespace

void CompletionLogprobs::clear() {
  for (std::string* list : {&offsets_, &logprobs_, &tokens_, &alternatives_}) list->clear();
}

void CompletionLogprobs::add(int32_t token_id,
                             const std::optional<ScoredToken>& scored,
                             int64_t text_offset) {
  if (scored) {
    add(*scored, text_offset);
    return;
  }
  add_token(token_id, text_offset);
  append_comma(logprobs_);
  logprobs_ += "null";
  append_comma(alternatives_);
  alternatives_ += "null";
}

void CompletionLogprobs::add(const ScoredToken& scored, int64_t text_offset) {
  add_token(scored.token_id, text_offset);
  append_comma(logprobs_);
  append_json_logprob(scored.logprob, logprobs_);
  append_comma(alternatives_);
  add_alternatives(scored);
}

void CompletionLogprobs::add_token(int32_t token_id, int64_t text_offset) {
  append_comma(offsets_);
  append_json_integer(text_offset, offsets_);
  append_comma(tokens_);
  append_json_string(label_of(texts_.of(token_id)), tokens_);
}

void CompletionLogprobs::add_alternatives(const ScoredToken& scored) {
  std::vector<std::string> labels;
  alternatives_.push_back('{');
  const auto add_one = [&](int32_t token_id, float logprob) {
    std::string label = label_of(texts_.of(token_id));
    if (std::find(labels.begin(), labels.end(), label) != labels.end()) return;
    if (!labels.empty()) alternatives_.push_back(',');
    append_json_string(label, alternatives_);
    alternatives_.push_back(':');
    append_json_logprob(logprob, alternatives_);
    labels.push_back(std::move(label));
  };
  bool has_itself = false;
  for (const TokenLogprob& other : scored.top) {
    const bool is_itself = other.token_id == scored.token_id;
    has_itself = has_itself || is_itself;
    // One number for one token, whichever list it is read from.
    add_one(other.token_id, is_itself ? scored.logprob : other.logprob);
  }
  if (!has_itself) add_one(scored.token_id, scored.logprob);
  alternatives_.push_back('}');
}

void CompletionLogprobs::append_to(std::string& out) const {
  out += R"({"text_offset":[)";
  out += offsets_;
  out += R"(],"token_logprobs":[)";
  out += logprobs_;
  out += R"(],"tokens":[)";
  out += tokens_;
  out += R"(],"top_logprobs":[)";
  out += alternatives_;
  out += "]}";
}

void append_chat_logprob(const ScoredToken& scored, TokenTexts& texts, std::string& out) {
  append_token_object(scored.token_id, scored.logprob, texts, out);
  out += R"(,"top_logprobs":[)";
  for (size_t i = 0; i < scored.top.size(); ++i) {
    const TokenLogprob& other = scored.top[i];
    if (i > 0) out.push_back(',');
    const bool is_itself = other.token_id == scored.token_id;
    append_token_object(other.token_id, is_itself ? scored.logprob : other.logprob, texts, out);
    out.push_back('}');
  }
  out += "]}";
}

void append_native_logprob(std::optional<float> logprob,
                           int32_t token_id,
                           bool with_text,
                           TokenTexts& texts,
                           std::string& out) {
  out.push_back('[');
  if (logprob) {
    append_json_logprob(*logprob, out);
  } else {
    out += "null";
  }
  out.push_back(',');
  append_json_integer(token_id, out);
  out.push_back(',');
  if (with_text) {
    append_json_string(texts.of(token_id).bytes, out);
  } else {
    out += "null";
  }
  out.push_back(']');
}

void append_native_alternatives(const std::vector<TokenLogprob>& top,
                                bool with_text,
                                TokenTexts& texts,
                                std::string& out) {
  out.push_back('[');
  for (size_t i = 0; i < top.size(); ++i) {
    if (i > 0) out.push_back(',');
    append_native_logprob(top[i].logprob, top[i].token_id, with_text, texts, out);
  }
  out.push_back(']');
}

}  // namespace augur::server
