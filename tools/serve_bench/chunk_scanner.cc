#include "tools/serve_bench/chunk_scanner.h"

#include <simdjson.h>

#include <cstring>
#include <vector>

namespace augur::serve_bench {
namespace {

namespace dom = simdjson::dom;

std::string_view text_of(const dom::element& parent, const char* key) {
  std::string_view text;
  return parent[key].get(text) == simdjson::SUCCESS ? text : std::string_view();
}

bool has_text(const dom::element& parent, const char* key) {
  return !text_of(parent, key).empty();
}

// A message of a whole answer, or what a chunk adds to one.
bool has_message_content(const dom::element& message) {
  dom::array tool_calls;
  return has_text(message, "content") || has_text(message, "reasoning_content") ||
         has_text(message, "reasoning") ||
         (message["tool_calls"].get(tool_calls) == simdjson::SUCCESS && tool_calls.size() > 0);
}

void scan_choice(const dom::element& choice, ScannedChunk& result) {
  result.has_content |= has_text(choice, "text");
  for (const char* key : {"delta", "message"}) {
    dom::element message;
    if (choice[key].get(message) == simdjson::SUCCESS)
      result.has_content |= has_message_content(message);
  }
  const std::string_view reason = text_of(choice, "finish_reason");
  result.is_cut_off |= reason == "abort" || reason == "error";
}

std::optional<int64_t> count_of(const dom::element& usage, const char* key) {
  int64_t count = 0;
  if (usage[key].get(count) != simdjson::SUCCESS || count < 0) return std::nullopt;
  return count;
}

std::string error_of(const dom::element& root) {
  dom::element error;
  if (root["error"].get(error) == simdjson::SUCCESS && !error.is_null()) {
    std::string_view text;
    if (error.get(text) == simdjson::SUCCESS) return std::string(text);
    if (has_text(error, "message")) return std::string(text_of(error, "message"));
    return "an error without a message";
  }
  if (text_of(root, "object") != "error") return "";
  return has_text(root, "message") ? std::string(text_of(root, "message"))
                                   : "an error without a message";
}

}  // namespace

class ChunkScanner::Impl {
 public:
  ScannedChunk scan(std::string_view json) {
    ScannedChunk result;
    dom::element root;
    // simdjson may read that much past the end.
    if (buffer_.size() < json.size() + simdjson::SIMDJSON_PADDING)
      buffer_.resize(json.size() + simdjson::SIMDJSON_PADDING);
    if (!json.empty()) std::memcpy(buffer_.data(), json.data(), json.size());
    if (parser_.parse(buffer_.data(), json.size(), /*realloc_if_needed=*/false).get(root) !=
            simdjson::SUCCESS ||
        !root.is_object())
      return result;
    result.is_object = true;
    dom::array choices;
    if (root["choices"].get(choices) == simdjson::SUCCESS)
      for (const dom::element choice : choices) scan_choice(choice, result);
    dom::element usage;
    if (root["usage"].get(usage) == simdjson::SUCCESS) {
      result.prompt_tokens = count_of(usage, "prompt_tokens");
      result.output_tokens = count_of(usage, "completion_tokens");
    }
    result.error = error_of(root);
    return result;
  }

 private:
  dom::parser parser_;
  std::vector<char> buffer_;
};

ChunkScanner::ChunkScanner() : impl_(std::make_unique<Impl>()) {}
ChunkScanner::~ChunkScanner() = default;
ScannedChunk ChunkScanner::scan(std::string_view json) {
  return impl_->scan(json);
}

}  // namespace augur::serve_bench
