// Responses by a clock that the test sets.
#include "tools/serve_bench/exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace augur::serve_bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ExchangeTest : public testing::Test {
 protected:
  void begin(bool is_streamed = true) {
    exchange_ =
        std::make_unique<Exchange>(/*request_idx=*/5, plan_, is_streamed, /*send_us=*/1000,
                                   scanner_, [this](RequestEvents&& done) { events_ = done; });
    head_.is_event_stream = is_streamed;
  }
  bool body(int64_t now_us, std::string_view bytes) {
    return exchange_->on_body(head_, bytes, now_us);
  }
  bool event(int64_t now_us, const std::string& data) {
    return body(now_us, "data: " + data + "\n\n");
  }
  const RequestEvents& end(int64_t now_us, HttpEnd::Kind kind = HttpEnd::Kind::kComplete) {
    exchange_->on_end(head_, {kind, "as the test says"}, now_us);
    return events_.value();
  }

  PlannedRequest plan_;
  ResponseHead head_{.status = 200};
  ChunkScanner scanner_;
  std::unique_ptr<Exchange> exchange_;
  std::optional<RequestEvents> events_;
};

constexpr const char* kToken = R"({"choices":[{"delta":{"content":"a"}}]})";

TEST_F(ExchangeTest, CountsFromTheFirstContentNotFromTheRole) {
  begin();
  EXPECT_TRUE(body(1500, ""));
  event(2000, R"({"choices":[{"delta":{"role":"assistant","content":""}}]})");
  event(3000, kToken);
  event(3500, R"({"choices":[{"delta":{"content":""}}]})");
  event(4000, kToken);
  event(5000, R"({"choices":[{"delta":{},"finish_reason":"length"}]})");
  event(5100, R"({"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":2}})");
  event(5200, "[DONE]");
  const RequestEvents& events = end(6000);
  EXPECT_EQ(events.outcome, Outcome::kOk);
  EXPECT_EQ(events.request_idx, 5);
  EXPECT_THAT(events.content_us, ElementsAre(3000, 4000));
  EXPECT_EQ(events.end_us, 6000);
  EXPECT_EQ(events.usage_prompt_tokens, 11);
  EXPECT_EQ(events.usage_output_tokens, 2);
  const RequestFigures figures = figures_of(events, {});
  EXPECT_DOUBLE_EQ(figures.ttft_ms.value(), 2);
  EXPECT_DOUBLE_EQ(figures.tpot_ms.value(), 3);  // (5 - 2) / (2 - 1)
  EXPECT_DOUBLE_EQ(figures.e2e_ms, 5);
}

TEST_F(ExchangeTest, TakesTheTimeOfTheReadThatCompletesAnEvent) {
  begin();
  const std::string text = std::string("data: ") + kToken + "\n\n";
  body(2000, text.substr(0, 20));
  body(3000, text.substr(20) + text);
  event(4000, "[DONE]");
  EXPECT_THAT(end(4000).content_us, ElementsAre(3000, 3000));
}

TEST_F(ExchangeTest, FailsWithAnErrorInTheStream) {
  begin();
  event(2000, kToken);
  event(3000, R"({"error":{"message":"out of memory","type":"server_error"}})");
  event(3000, "[DONE]");
  const RequestEvents& events = end(3000);
  EXPECT_EQ(events.outcome, Outcome::kFailed);
  EXPECT_EQ(events.failure, "error in stream");
  EXPECT_EQ(events.detail, "out of memory");
}

TEST_F(ExchangeTest, FailsWithoutDone) {
  begin();
  event(2000, kToken);
  EXPECT_EQ(end(3000).failure, "closed early");
}

TEST_F(ExchangeTest, FailsWithAnEventThatIsNoJson) {
  begin();
  event(2000, "{\"choices\":[");
  event(2000, "[DONE]");
  EXPECT_EQ(end(3000).failure, "malformed event");
}

TEST_F(ExchangeTest, FailsWhenTheServerCutItOff) {
  begin();
  event(2000, R"({"choices":[{"text":"a","finish_reason":"abort"}]})");
  event(2000, "[DONE]");
  EXPECT_EQ(end(3000).failure, "cut off by the server");
}

TEST_F(ExchangeTest, NamesHowAConnectionFailed) {
  for (const auto& [kind, name] : {std::pair(HttpEnd::Kind::kTimeout, "timeout"),
                                   {HttpEnd::Kind::kReset, "connection error"},
                                   {HttpEnd::Kind::kClosed, "closed early"},
                                   {HttpEnd::Kind::kConnectFailed, "connect failed"},
                                   {HttpEnd::Kind::kMalformed, "malformed response"}}) {
    begin();
    event(2000, kToken);
    const RequestEvents& events = end(3000, kind);
    EXPECT_EQ(events.outcome, Outcome::kFailed);
    EXPECT_EQ(events.failure, name);
    EXPECT_EQ(events.detail, "as the test says");
  }
}

TEST_F(ExchangeTest, IsRefusedBy429And503) {
  for (const int status : {429, 503}) {
    head_ = {.status = status, .retry_after_s = 3};
    begin();
    head_.is_event_stream = false;
    body(2000, R"({"error":{"message":"queue )");
    body(2000, R"(full"}})");
    const RequestEvents& events = end(2000);
    EXPECT_EQ(events.outcome, Outcome::kRefused);
    EXPECT_EQ(events.status, status);
    EXPECT_EQ(events.retry_after_s, 3);
    EXPECT_EQ(events.detail, "queue full");
    EXPECT_EQ(events.failure, "");
  }
}

TEST_F(ExchangeTest, FailsWithAnyOtherStatus) {
  head_ = {.status = 500};
  begin();
  head_.is_event_stream = false;
  body(2000, "Internal Server Error");
  const RequestEvents& events = end(2000);
  EXPECT_EQ(events.failure, "HTTP 500");
  EXPECT_EQ(events.detail, "Internal Server Error");
}

TEST_F(ExchangeTest, FailsWhenAWholeAnswerComesForAStream) {
  begin();
  head_.is_event_stream = false;
  body(2000, R"({"choices":[{"text":"a"}]})");
  EXPECT_EQ(end(2000).failure, "not a stream");
}

TEST_F(ExchangeTest, DisconnectsAfterAsManyChunksAsPlanned) {
  plan_.abort_after_chunks = 2;
  begin();
  EXPECT_TRUE(body(1500, ""));
  EXPECT_TRUE(event(2000, kToken));
  EXPECT_FALSE(event(3000, kToken));
  const RequestEvents& events = end(3000, HttpEnd::Kind::kCancelled);
  EXPECT_EQ(events.outcome, Outcome::kAborted);
  EXPECT_EQ(events.content_us.size(), 2u);
}

TEST_F(ExchangeTest, DisconnectsBeforeTheFirstTokenWhenSoPlanned) {
  plan_.abort_after_chunks = 0;
  begin();
  EXPECT_FALSE(body(1500, ""));
}

TEST_F(ExchangeTest, TellsAnInterruptFromAnAbort) {
  begin();
  event(2000, kToken);
  EXPECT_EQ(end(3000, HttpEnd::Kind::kCancelled).outcome, Outcome::kCutOff);
}

TEST_F(ExchangeTest, ReadsAnAnswerThatIsNotStreamed) {
  begin(/*is_streamed=*/false);
  body(2000, R"({"choices":[{"text":"a b"}],"usage":{"prompt_)");
  body(3000, R"(tokens":4,"completion_tokens":9}})");
  const RequestEvents& events = end(3000);
  EXPECT_EQ(events.outcome, Outcome::kOk);
  EXPECT_EQ(events.usage_output_tokens, 9);
  EXPECT_TRUE(events.content_us.empty());
  EXPECT_EQ(figures_of(events, {}).ttft_ms, std::nullopt);
}

TEST_F(ExchangeTest, FailsWithABodyThatIsNoAnswer) {
  begin(/*is_streamed=*/false);
  body(2000, "<html>");
  EXPECT_EQ(end(2000).failure, "malformed response");
  begin(/*is_streamed=*/false);
  body(2000, R"({"error":"no"})");
  EXPECT_EQ(end(2000).failure, "error in response");
}

}  // namespace
}  // namespace augur::serve_bench
