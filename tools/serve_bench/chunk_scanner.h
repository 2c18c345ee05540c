// What counts in a JSON answer or in one chunk of a streamed one.
//
// Every chunk is parsed whole (simdjson), so that a malformed one is noticed.
// Threading: one thread; a scanner keeps its memory between calls.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace augur::serve_bench {

struct ScannedChunk {
  bool is_object = false;    // else it is not JSON, or no object, and the rest is empty
  bool has_content = false;  // some choice has text: of a completion, a message, reasoning or a
                             // tool call. A role alone and an empty text are none
  bool is_cut_off = false;   // some choice ended with finish_reason "abort" or "error"
  std::optional<int64_t> prompt_tokens;  // of "usage"
  std::optional<int64_t> output_tokens;
  std::string error;  // the message where this is an error: {"error": {...} or text}, or
                      // {"object": "error", ...}
};

class ChunkScanner {
 public:
  ChunkScanner();
  ~ChunkScanner();
  ScannedChunk scan(std::string_view json);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur::serve_bench
