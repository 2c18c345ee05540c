// A server on the loopback device that says what a test wrote down, byte for byte.
//
// Threading: it runs on a thread of its own, from construction to destruction; the methods may be
// called from any thread. The script is called on its thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace augur::serve_bench {

struct FakeRequest {
  int64_t connection_idx = 0;  // connections are numbered as they come
  int64_t post_idx = 0;        // POSTs of the server's life are numbered too; -1 for a GET
  std::string method;
  std::string path;
  std::string header;  // whole, as it came
  std::string body;
};

/// A part of an answer.
struct FakeStep {
  enum class Then : uint8_t { kGoOn, kClose, kReset };
  std::string bytes;
  int delay_ms = 0;  // before them
  Then then = Then::kGoOn;
};
using FakeAnswer = std::vector<FakeStep>;

// Answers. Those of a stream are sent chunked, an event a step.
FakeAnswer fake_json(int status, std::string_view body, std::string_view headers = "");
FakeAnswer fake_stream(const std::vector<std::string>& events, int delay_ms = 0);
/// The events of a completion of so many tokens, one a chunk: text, usage, [DONE].
std::vector<std::string> fake_completion(int64_t num_tokens, int64_t num_prompt_tokens);
/// The same in chat, with a chunk that has the role alone at first.
std::vector<std::string> fake_chat(int64_t num_tokens, int64_t num_prompt_tokens);
/// "max_tokens" of a body.
int64_t asked_tokens(const FakeRequest& request);

class FakeOpenAiServer {
 public:
  using Script = std::function<FakeAnswer(const FakeRequest& request)>;

  /// GETs of /v1/models and /server_info are answered without the script (model "fake", a
  /// vocabulary of 1000).
  explicit FakeOpenAiServer(Script script);
  ~FakeOpenAiServer();

  std::string url() const;
  std::vector<FakeRequest> requests() const;  // POSTs, in the order they came
  int64_t num_connections() const;
  /// Answers that could not be sent whole, since the client was gone.
  int64_t num_broken() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur::serve_bench
