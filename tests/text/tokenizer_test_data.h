// Reading the reference files of the tokenizer tests.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace augur {

inline std::filesystem::path data_path(const std::string& name) {
  return std::filesystem::path(AUGUR_SOURCE_DIR) / "tests/text/data" / name;
}

inline std::filesystem::path demo_tokenizer_path() {
  return std::filesystem::path(AUGUR_SOURCE_DIR) / "models/tiny-glm4-moe/tokenizer.json";
}

inline std::vector<int32_t> to_ids(simdjson::dom::element element) {
  std::vector<int32_t> ids;
  const simdjson::dom::array array = element.get_array().value();
  for (const simdjson::dom::element id : array) {
    ids.push_back(static_cast<int32_t>(int64_t{id}));
  }
  return ids;
}

inline std::string to_text(simdjson::dom::element element) {
  return std::string(std::string_view(element));
}

/// The texts of eval.jsonl, whose ids begin with `id_prefix`, as one.
inline std::string eval_text(std::string_view id_prefix = "") {
  std::string text;
  simdjson::dom::parser parser;
  simdjson::dom::document_stream documents =
      parser.load_many(std::string(AUGUR_SOURCE_DIR "/tests/data/eval.jsonl")).value();
  for (const simdjson::dom::element document : documents) {
    if (!std::string_view(document["id"]).starts_with(id_prefix)) continue;
    text += std::string_view(document["text"]);
  }
  return text;
}

}  // namespace augur
