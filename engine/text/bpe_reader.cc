#include "engine/text/bpe_reader.h"
#include "engine/text/in_quotes.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "configs/config_error.h"
#include "engine/text/tokenizer_components.h"

namespace augur {
namespace {

using simdjson::dom::element;

constexpr size_t kMaxTokens = 4'000'000;
constexpr size_t kMaxMerges = 16'000'000;

void read_vocabulary(const JsonObject& json, Vocabulary& vocabulary) {
  const element value = json.at("vocab");
  if (!value.is_object()) {
    json.fail("vocab", "found " + type_in_words(value) + "; expected an object of token: id");
  }
  const simdjson::dom::object tokens = value.get_object().value();
  size_t num_tokens = 0;
  size_t num_bytes = 0;
  int64_t highest_id = -1;
  for (const auto& [token, id_element] : tokens) {
    int64_t id = 0;
    if (id_element.get(id) != simdjson::SUCCESS || id < 0 || id >= kTokenIdLimit) {
      json.fail("vocab", "token " + in_quotes(token) + " has the id " +
                             simdjson::to_string(id_element) + "; expected an integer from 0 to " +
                             std::to_string(kTokenIdLimit - 1));
    }
    ++num_tokens;
    num_bytes += token.size();
    highest_id = std::max(highest_id, id);
  }
  if (num_tokens == 0) json.fail("vocab", "holds no tokens");
  if (num_tokens > kMaxTokens) {
    json.fail("vocab", "holds " + std::to_string(num_tokens) + " tokens; at most " +
                           std::to_string(kMaxTokens) + " are accepted");
  }
  vocabulary.reserve(num_tokens, num_bytes, static_cast<int32_t>(highest_id));
  for (const auto& [token, id_element] : tokens) {
    const auto id = static_cast<int32_t>(int64_t{id_element});
    switch (vocabulary.add(token, id)) {
      case Vocabulary::AddResult::kAdded:
        break;
      case Vocabulary::AddResult::kTokenTaken:
        json.fail("vocab", "token " + in_quotes(token) + " comes up twice");
      case Vocabulary::AddResult::kIdTaken:
        json.fail("vocab", "id " + std::to_string(id) + " belongs to both " +
                               in_quotes(vocabulary.token(id)) + " and " + in_quotes(token));
    }
  }
}

// One merge: "left right", or ["left", "right"].
template <typename Where>
std::pair<std::string_view, std::string_view> read_pair(element value, const Where& where) {
  if (value.is_string()) {
    const std::string_view text = value.get_string().value();
    const size_t space = text.find(' ');
    if (space != std::string_view::npos && space == text.rfind(' ')) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  } else if (value.is_array()) {
    const simdjson::dom::array pair = value.get_array().value();
    std::string_view left;
    std::string_view right;
    if (pair.size() == 2 && pair.at(0).get(left) == simdjson::SUCCESS &&
        pair.at(1).get(right) == simdjson::SUCCESS) {
      return {left, right};
    }
  }
  throw ConfigError(where(), "found " + simdjson::minify(value) +
                                 "; expected \"left right\" or [\"left\", \"right\"]");
}

void read_merges(const JsonObject& json, BpeParts& parts) {
  const simdjson::dom::array merges = json.array_at("merges");
  const size_t num_merges = std::distance(merges.begin(), merges.end());
  if (num_merges > kMaxMerges) {
    json.fail("merges", "holds " + std::to_string(num_merges) + " merges; at most " +
                            std::to_string(kMaxMerges) + " are accepted");
  }
  parts.merges.reserve(num_merges);
  parts.merged_tokens.reserve(num_merges);
  const std::string& prefix = parts.settings.continuing_subword_prefix;
  std::string merged;
  uint32_t rank = 0;
  size_t i = 0;
  for (const element item : merges) {
    const auto where = [&] { return json.where("merges") + "[" + std::to_string(i) + "]"; };
    std::string_view header;
    const bool is_header = item.get(header) == simdjson::SUCCESS && header.starts_with("#version");
    if (!is_header) {
      const auto [left, right] = read_pair(item, where);
      if (right.size() < prefix.size()) {
        throw ConfigError(where(), in_quotes(right) + " is shorter than continuing_subword_prefix");
      }
      merged.assign(left).append(right.substr(prefix.size()));
      const auto id_of = [&](std::string_view token) {
        const std::optional<int32_t> id = parts.vocabulary.find(token);
        if (!id) throw ConfigError(where(), in_quotes(token) + " is not in the vocabulary");
        return *id;
      };
      const int32_t left_id = id_of(left);
      const int32_t right_id = id_of(right);
      const int32_t merged_id = id_of(merged);
      parts.merges.add(left_id, right_id, {rank++, merged_id});
      parts.merged_tokens.push_back(merged_id);
    }
    ++i;
  }
}

}  // namespace

BpeParts read_bpe(const JsonObject& json) {
  // Files older than the field have no type.
  if (json.find("type") && json.type() != "BPE") json.fail_type("BPE");
  if (const std::optional<element> dropout = json.find("dropout")) {
    double probability = 0;
    if (dropout->get(probability) != simdjson::SUCCESS || probability != 0) {
      json.fail("dropout", "found " + simdjson::minify(*dropout) +
                               "; expected null or 0: dropout makes encoding random");
    }
  }
  const auto string_or_empty = [&](std::string_view key) {
    return json.find(key) ? std::string(json.string_at(key)) : std::string();
  };
  BpeParts parts;
  parts.settings.byte_fallback = json.bool_at("byte_fallback", false);
  parts.settings.fuse_unk = json.bool_at("fuse_unk", false);
  parts.settings.ignore_merges = json.bool_at("ignore_merges", false);
  parts.settings.continuing_subword_prefix = string_or_empty("continuing_subword_prefix");
  parts.settings.end_of_word_suffix = string_or_empty("end_of_word_suffix");
  if (!string_or_empty("unk_token").empty()) parts.unk_token = json.string_at("unk_token");
  read_vocabulary(json, parts.vocabulary);
  read_merges(json, parts);
  return parts;
}

}  // namespace augur
