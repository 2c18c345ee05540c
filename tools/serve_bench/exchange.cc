#include "tools/serve_bench/exchange.h"

#include <utility>

namespace augur::serve_bench {
namespace {

constexpr size_t kMaxBodyBytes = size_t{64} << 20;  // of an answer that is not streamed
constexpr size_t kMaxDetailBytes = 300;

// What a failed end is called where failures are counted.
const char* kind_of(HttpEnd::Kind kind) {
  switch (kind) {
    case HttpEnd::Kind::kConnectFailed:
      return "connect failed";
    case HttpEnd::Kind::kReset:
      return "connection error";
    case HttpEnd::Kind::kClosed:
      return "closed early";
    case HttpEnd::Kind::kMalformed:
      return "malformed response";
    case HttpEnd::Kind::kTimeout:
      return "timeout";
    case HttpEnd::Kind::kComplete:
    case HttpEnd::Kind::kCancelled:
      break;
  }
  return "";
}

// What a body says is wrong, or its beginning.
std::string message_of(const ScannedChunk& body, const std::string& text) {
  return (body.error.empty() ? text : body.error).substr(0, kMaxDetailBytes);
}

}  // namespace

Exchange::Exchange(int64_t request_idx,
                   const PlannedRequest& plan,
                   bool is_streamed,
                   int64_t send_us,
                   ChunkScanner& scanner,
                   std::function<void(RequestEvents&& events)> on_done)
    : is_streamed_(is_streamed),
      abort_after_chunks_(plan.abort_after_chunks),
      scanner_(scanner),
      on_done_(std::move(on_done)) {
  events_.request_idx = request_idx;
  events_.send_us = send_us;
  events_.known_prompt_tokens = plan.known_prompt_tokens;
}

bool Exchange::on_body(const ResponseHead& head, std::string_view bytes, int64_t now_us) {
  if (head.status != 200 || !is_streamed_ || !head.is_event_stream) {
    body_.append(bytes.substr(0, kMaxBodyBytes - std::min(kMaxBodyBytes, body_.size())));
    return true;
  }
  sse_.feed(bytes);
  while (const std::optional<std::string_view> data = sse_.next()) on_event(*data, now_us);
  is_aborting_ = abort_after_chunks_ && std::ssize(events_.content_us) >= *abort_after_chunks_;
  return !is_aborting_;
}

void Exchange::on_event(std::string_view data, int64_t now_us) {
  if (data == "[DONE]") {
    is_done_seen_ = true;
    return;
  }
  const ScannedChunk chunk = scanner_.scan(data);
  if (chunk.has_content) events_.content_us.push_back(now_us);
  take_usage(chunk);
  if (!events_.failure.empty()) return;  // the first is what counts
  if (!chunk.is_object) {
    fail("malformed event", std::string(data.substr(0, kMaxDetailBytes)));
  } else if (!chunk.error.empty()) {
    fail("error in stream", chunk.error.substr(0, kMaxDetailBytes));
  } else if (chunk.is_cut_off) {
    fail("cut off by the server", "finish_reason abort or error");
  }
}

void Exchange::take_usage(const ScannedChunk& chunk) {
  if (chunk.prompt_tokens) events_.usage_prompt_tokens = chunk.prompt_tokens;
  if (chunk.output_tokens) events_.usage_output_tokens = chunk.output_tokens;
}

void Exchange::on_end(const ResponseHead& head, const HttpEnd& end, int64_t now_us) {
  events_.end_us = now_us;
  events_.status = head.status;
  events_.retry_after_s = head.retry_after_s;
  events_.outcome = Outcome::kOk;
  if (end.kind == HttpEnd::Kind::kCancelled) {
    events_.outcome = is_aborting_ ? Outcome::kAborted : Outcome::kCutOff;
    events_.failure.clear();
    events_.detail.clear();
  } else if (end.kind == HttpEnd::Kind::kComplete) {
    judge(head);
  } else if (events_.failure.empty()) {
    fail(kind_of(end.kind), end.detail);
  }
  if (!events_.failure.empty()) events_.outcome = Outcome::kFailed;
  on_done_(std::move(events_));
}

void Exchange::judge(const ResponseHead& head) {
  if (head.status == 429 || head.status == 503) {
    events_.outcome = Outcome::kRefused;
    events_.detail = message_of(scanner_.scan(body_), body_);
  } else if (head.status != 200) {
    fail("HTTP " + std::to_string(head.status), message_of(scanner_.scan(body_), body_));
  } else if (is_streamed_) {
    if (!head.is_event_stream) return fail("not a stream", message_of(scanner_.scan(body_), body_));
    judge_stream();
  } else {
    judge_body();
  }
}

void Exchange::judge_stream() {
  if (!events_.failure.empty()) return;
  if (sse_.is_overlong()) return fail("malformed event", "longer than what is kept of a stream");
  if (!is_done_seen_) fail("closed early", "the stream ended without [DONE]");
}

void Exchange::judge_body() {
  const ScannedChunk body = scanner_.scan(body_);
  take_usage(body);
  if (!body.is_object) return fail("malformed response", message_of(body, body_));
  if (!body.error.empty()) return fail("error in response", message_of(body, body_));
  if (body.is_cut_off) fail("cut off by the server", "finish_reason abort or error");
}

void Exchange::fail(std::string kind, std::string detail) {
  events_.failure = std::move(kind);
  events_.detail = std::move(detail);
}

}  // namespace augur::serve_bench
