// One API request under way: from the bytes of its response to RequestEvents.
//
// A streamed request succeeds when its events ended with [DONE], none was malformed or an error,
// and the server did not cut it off; one that is not streamed, when its body is a JSON object
// without an error. 429 and 503 are refusals.
// Threading: one thread.
#pragma once

#include <functional>
#include <string>

#include "tools/serve_bench/chunk_scanner.h"
#include "tools/serve_bench/http_client.h"
#include "tools/serve_bench/request_events.h"
#include "tools/serve_bench/sse_parser.h"
#include "tools/serve_bench/workload.h"

namespace augur::serve_bench {

class Exchange : public ResponseHandler {
 public:
  /// `scanner` outlives it. `on_done` is called once, with what happened. `plan.body` is not needed
  /// any more.
  Exchange(int64_t request_idx,
           const PlannedRequest& plan,
           bool is_streamed,
           int64_t send_us,
           ChunkScanner& scanner,
           std::function<void(RequestEvents&& events)> on_done);

  bool on_body(const ResponseHead& head, std::string_view bytes, int64_t now_us) override;
  void on_end(const ResponseHead& head, const HttpEnd& end, int64_t now_us) override;

 private:
  void on_event(std::string_view data, int64_t now_us);
  void take_usage(const ScannedChunk& chunk);
  void judge(const ResponseHead& head);  // of a response that came whole
  void judge_stream();
  void judge_body();
  void fail(std::string kind, std::string detail);

  const bool is_streamed_;
  const std::optional<int64_t> abort_after_chunks_;
  ChunkScanner& scanner_;
  const std::function<void(RequestEvents&& events)> on_done_;
  RequestEvents events_;
  SseParser sse_;
  std::string body_;  // of a response that is no stream
  bool is_aborting_ = false;
  bool is_done_seen_ = false;
};

}  // namespace augur::serve_bench
