// Whole runs against a server on the loopback device that says what the test wrote.
#include "tools/serve_bench/serve_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <chrono>
#include <set>
#include <sstream>
#include <thread>

#include "configs/config_error.h"
#include "tests/temp_folder.h"
#include "tests/tools/fake_openai_server.h"

namespace augur::serve_bench {
namespace {

using testing::Each;
using testing::HasSubstr;
namespace json = boost::json;

bool never() {
  return false;
}

// The first POST of a run is the probe.
bool is_probe(const FakeRequest& request) {
  return request.post_idx == 0;
}

FakeAnswer complete(const FakeRequest& request) {
  return fake_stream(fake_completion(asked_tokens(request), /*num_prompt_tokens=*/16));
}

Options small_load(const FakeOpenAiServer& server) {
  Options options;
  options.url = server.url();
  options.num_requests = 12;
  options.concurrency = 3;
  options.input_tokens = 16;
  options.output_tokens = 5;
  options.timeout_s = 60;
  return options;
}

TEST(ServeBench, MeasuresAClosedLoop) {
  FakeOpenAiServer server(complete);
  const Report report = measure(small_load(server), never);
  const Summary& summary = report.summary;
  EXPECT_EQ(report.model, "fake");
  EXPECT_EQ(report.vocab_size, 1000);
  EXPECT_EQ(summary.num_ok, 12);
  EXPECT_EQ(summary.num_failed, 0);
  EXPECT_EQ(summary.input_tokens, 12 * 16);
  EXPECT_EQ(summary.output_tokens, 12 * 5);
  EXPECT_EQ(summary.ttft_ms.count, 12);
  EXPECT_EQ(summary.tpot_ms.count, 12);
  EXPECT_EQ(summary.itl_ms.count, 12 * 4);
  EXPECT_EQ(report.phase.peak_in_flight, 3);
  EXPECT_GT(summary.output_throughput, 0);
  EXPECT_LE(summary.concurrency, 3.01);
  EXPECT_LE(summary.ttft_ms.max, summary.e2e_ms.max);
  // Three at once need three connections; they are kept.
  EXPECT_EQ(server.num_connections(), 3);
  EXPECT_EQ(server.requests().size(), 13u);
  EXPECT_EQ(asked_tokens(server.requests().front()), 2);  // the probe is short
}

TEST(ServeBench, CountsTokensOfUsageAndNotOfChunks) {
  FakeOpenAiServer server([](const FakeRequest&) {
    return fake_stream(
        {R"({"choices":[{"text":"three tokens"}]})", R"({"choices":[{"text":"and two"}]})",
         R"({"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":5}})", "[DONE]"});
  });
  const Summary summary = measure(small_load(server), never).summary;
  EXPECT_EQ(summary.output_tokens, 12 * 5);
  EXPECT_EQ(summary.itl_ms.count, 12);
  EXPECT_EQ(summary.num_counted_by_chunks, 0);
}

TEST(ServeBench, FallsBackToChunksAndSaysSo) {
  FakeOpenAiServer server([](const FakeRequest&) {
    return fake_stream(
        {R"({"choices":[{"text":"a"}]})", R"({"choices":[{"text":"b"}]})", "[DONE]"});
  });
  const Report report = measure(small_load(server), never);
  EXPECT_EQ(report.summary.output_tokens, 12 * 2);
  EXPECT_EQ(report.summary.input_tokens, 12 * 16);  // we sent so many ids
  EXPECT_EQ(report.summary.num_counted_by_chunks, 12);
  EXPECT_THAT(format_table(report), HasSubstr("12 requests came without usage"));
}

TEST(ServeBench, MeasuresChat) {
  FakeOpenAiServer server(
      [](const FakeRequest& request) { return fake_stream(fake_chat(asked_tokens(request), 20)); });
  Options options = small_load(server);
  options.endpoint = Endpoint::kChat;
  const Report report = measure(options, never);
  EXPECT_EQ(report.vocab_size, 0);
  EXPECT_EQ(report.summary.num_ok, 12);
  EXPECT_EQ(report.summary.itl_ms.count, 12 * 4);  // the role is no content
  EXPECT_EQ(server.requests().front().path, "/v1/chat/completions");
}

TEST(ServeBench, DoesNotMeasureTheWarmup) {
  FakeOpenAiServer server(complete);
  Options options = small_load(server);
  options.num_warmups = 5;
  const Summary summary = measure(options, never).summary;
  EXPECT_EQ(summary.num_ok, 12);
  const std::vector<FakeRequest> requests = server.requests();
  EXPECT_EQ(requests.size(), 1u + 5 + 12);
  std::set<std::string> bodies;
  for (size_t i = 1; i < requests.size(); ++i) bodies.insert(requests[i].body);
  EXPECT_EQ(bodies.size(), 17u);  // no prompt twice, so no cache helps
}

TEST(ServeBench, MeasuresAnOpenLoop) {
  FakeOpenAiServer server(complete);
  Options options = small_load(server);
  options.concurrency = 0;
  options.rate = 2000;
  const Report report = measure(options, never);
  EXPECT_EQ(report.summary.num_ok, 12);
  EXPECT_EQ(report.phase.num_delayed, 0);
}

TEST(ServeBench, HoldsArrivalsBackWhereConcurrencyBoundsARate) {
  FakeOpenAiServer server([](const FakeRequest& request) {
    return fake_stream(fake_completion(asked_tokens(request), 16), /*delay_ms=*/1);
  });
  Options options = small_load(server);
  options.concurrency = 1;
  options.rate = 1e6;
  options.arrival = Arrival::kConstant;
  const Report report = measure(options, never);
  EXPECT_EQ(report.summary.num_ok, 12);
  EXPECT_EQ(report.phase.peak_in_flight, 1);
  EXPECT_EQ(report.phase.num_delayed, 11);
}

TEST(ServeBench, SendsManyAtOnce) {
  FakeOpenAiServer server(complete);
  Options options = small_load(server);
  options.num_requests = 100;
  options.concurrency = 0;
  const Report report = measure(options, never);
  EXPECT_EQ(report.summary.num_ok, 100);
  EXPECT_GT(report.phase.peak_in_flight, 3);
}

TEST(ServeBench, CountsEveryKindOfFailure) {
  const auto cut = [](const FakeRequest& request, FakeStep::Then then) {
    FakeAnswer answer = complete(request);
    answer.resize(3);
    answer.back().then = then;
    return answer;
  };
  FakeOpenAiServer server([&](const FakeRequest& request) -> FakeAnswer {
    if (is_probe(request)) return complete(request);
    switch (request.post_idx % 6) {
      case 0:
        return fake_json(500, R"({"error":{"message":"it broke"}})");
      case 1:
        return cut(request, FakeStep::Then::kClose);
      case 2:
        return cut(request, FakeStep::Then::kReset);
      case 3:
        return fake_stream({R"({"choices":[{"text":"a"}]})",
                            R"({"error":{"message":"out of blocks"}})", "[DONE]"});
      case 4:
        return {{"HTTP/1.1 200 OK\r\nContent-Length: wrong\r\n\r\n"}};
      default:
        return complete(request);
    }
  });
  const Report report = measure(small_load(server), never);
  const Summary& summary = report.summary;
  EXPECT_EQ(summary.num_ok, 2);
  EXPECT_EQ(summary.num_failed, 10);
  EXPECT_EQ(summary.failures.at("HTTP 500").count, 2);
  EXPECT_EQ(summary.failures.at("HTTP 500").example, "it broke");
  EXPECT_EQ(summary.failures.at("closed early").count, 2);
  EXPECT_EQ(summary.failures.at("connection error").count, 2);
  EXPECT_EQ(summary.failures.at("error in stream").example, "out of blocks");
  EXPECT_EQ(summary.failures.at("malformed response").count, 2);
  const std::string table = format_table(report);
  EXPECT_THAT(table, HasSubstr("Failed requests:"));
  EXPECT_THAT(table, HasSubstr("Failed, HTTP 500: it broke"));
}

TEST(ServeBench, CountsRefusalsApart) {
  FakeOpenAiServer server([](const FakeRequest& request) {
    if (is_probe(request) || request.post_idx % 3 == 0) return complete(request);
    return fake_json(503, R"({"error":{"message":"queue full"}})", "Retry-After: 2\r\n");
  });
  Options options = small_load(server);
  const Summary summary = measure(options, never).summary;
  EXPECT_EQ(summary.num_ok, 4);
  EXPECT_EQ(summary.num_failed, 0);
  EXPECT_EQ(summary.num_refused, 8);
  EXPECT_EQ(summary.num_with_retry_after, 8);
  EXPECT_EQ(summary.refusals.at(503).example, "queue full");
  EXPECT_EQ(summary.e2e_ms.count, 4);
}

TEST(ServeBench, GivesUpOnARequestAfterItsTime) {
  FakeOpenAiServer server([](const FakeRequest& request) {
    FakeAnswer answer = complete(request);
    if (!is_probe(request)) answer[3].delay_ms = 600'000;
    return answer;
  });
  Options options = small_load(server);
  options.num_requests = 3;
  options.timeout_s = 0.3;
  const Summary summary = measure(options, never).summary;
  EXPECT_EQ(summary.num_failed, 3);
  EXPECT_EQ(summary.failures.at("timeout").count, 3);
}

TEST(ServeBench, DisconnectsTheShareItIsAskedTo) {
  FakeOpenAiServer server(complete);
  Options options = small_load(server);
  options.num_requests = 60;
  options.abort_share = 0.5;
  options.output_tokens = 40;
  const Summary summary = measure(options, never).summary;
  EXPECT_EQ(summary.num_failed, 0);
  EXPECT_EQ(summary.num_ok + summary.num_aborted, 60);
  EXPECT_GT(summary.num_aborted, 10);
  EXPECT_GT(summary.num_ok, 10);
  EXPECT_EQ(summary.e2e_ms.count, summary.num_ok);
}

TEST(ServeBench, SendsAgainWhereAKeptConnectionHadBeenClosed) {
  FakeOpenAiServer server([](const FakeRequest& request) {
    FakeAnswer answer = complete(request);
    answer.back().then = FakeStep::Then::kClose;  // without having said so
    return answer;
  });
  Options options = small_load(server);
  options.concurrency = 1;
  const Report report = measure(options, never);
  EXPECT_EQ(report.summary.num_ok, 12);
  EXPECT_EQ(report.summary.num_failed, 0);
  EXPECT_GT(report.client.resent, 0);
}

TEST(ServeBench, MeasuresAnswersThatAreNotStreamed) {
  FakeOpenAiServer server([](const FakeRequest&) {
    return fake_json(
        200, R"({"choices":[{"text":"a b"}],"usage":{"prompt_tokens":16,"completion_tokens":5}})");
  });
  Options options = small_load(server);
  options.is_streamed = false;
  const Report report = measure(options, never);
  EXPECT_EQ(report.summary.num_ok, 12);
  EXPECT_EQ(report.summary.output_tokens, 60);
  EXPECT_EQ(report.summary.e2e_ms.count, 12);
  EXPECT_EQ(report.summary.ttft_ms.count, 0);
  EXPECT_THAT(format_table(report), testing::Not(HasSubstr("TTFT")));
}

TEST(ServeBench, StopsSendingWhenItsTimeIsUp) {
  FakeOpenAiServer server(complete);
  Options options = small_load(server);
  options.num_requests.reset();
  options.concurrency = 2;
  options.duration_s = 0.2;
  const Report report = measure(options, never);
  EXPECT_GT(report.summary.num_ok, 0);
  EXPECT_EQ(report.summary.num_ok, report.phase.num_sent);
  EXPECT_GE(report.summary.duration_s, 0.1);
}

TEST(ServeBench, TellsWhatItHasWhenInterrupted) {
  FakeOpenAiServer server([](const FakeRequest& request) {
    FakeAnswer answer = complete(request);
    if (request.post_idx > 3) answer[2].delay_ms = 600'000;
    return answer;
  });
  Options options = small_load(server);
  options.concurrency = 1;
  const Report report = measure(options, [&] { return server.requests().size() > 4; });
  EXPECT_TRUE(report.phase.is_interrupted);
  EXPECT_EQ(report.summary.num_ok, 3);
  EXPECT_EQ(report.summary.num_cut_off, 1);
}

TEST(ServeBench, FlushesTheCacheBeforeItMeasures) {
  FakeOpenAiServer server([](const FakeRequest& request) {
    if (request.path == "/flush_cache") return fake_json(200, "Cache flushed.");
    return complete(request);
  });
  Options options = small_load(server);
  options.flush_cache = true;
  options.num_warmups = 2;
  measure(options, never);
  EXPECT_EQ(server.requests().at(3).path, "/flush_cache");
}

std::string error_of(const Options& options) {
  return message_of<ConfigError>([&] { measure(options, never); });
}

TEST(ServeBench, SaysThatNobodyIsThere) {
  Options options;
  {
    FakeOpenAiServer server(complete);
    options = small_load(server);
  }
  EXPECT_THAT(error_of(options), HasSubstr("cannot be reached: Connection refused"));
  options.model = "named";
  options.vocab_size = 10;
  EXPECT_THAT(error_of(options), HasSubstr("connect failed: Connection refused"));
}

TEST(ServeBench, SaysWhyTheProbeFailed) {
  int status = 404;
  FakeOpenAiServer server([&](const FakeRequest&) {
    return fake_json(status, R"({"error":{"message":"The model 'x' does not exist."}})");
  });
  Options options = small_load(server);
  EXPECT_THAT(error_of(options), HasSubstr("HTTP 404: The model 'x' does not exist."));
  status = 401;
  EXPECT_THAT(error_of(options), HasSubstr("--api-key-file"));
  status = 503;
  EXPECT_THAT(error_of(options), HasSubstr("refused with HTTP 503"));
  options.flush_cache = true;
  options.allow_refusals = true;
  EXPECT_THAT(error_of(options), HasSubstr("/flush_cache: the server answered 503"));
}

TEST(ServeBench, SendsItsKey) {
  FakeOpenAiServer server(complete);
  TempFolder folder;
  Options options = small_load(server);
  options.api_key_file = folder.write("key", "bench 0123456789abcdef\n");
  options.num_requests = 1;
  measure(options, never);
  EXPECT_THAT(server.requests().back().header,
              HasSubstr("Authorization: Bearer 0123456789abcdef\r\n"));
}

class RunServeBenchTest : public testing::Test {
 protected:
  int run(const Options& options) {
    testing::internal::CaptureStdout();
    const int status = run_serve_bench(options);
    out_ = testing::internal::GetCapturedStdout();
    return status;
  }
  TempFolder folder_;
  std::string out_;
};

TEST_F(RunServeBenchTest, PrintsATableAndWritesItsFiles) {
  FakeOpenAiServer server(complete);
  Options options = small_load(server);
  options.json_file = folder_.file("figures.json");
  options.requests_file = folder_.file("requests.jsonl");
  options.goodput.e2e_ms = 1e9;
  EXPECT_EQ(run(options), 0);
  for (const char* row :
       {"Successful requests:", "Request throughput (req/s):", "Output token throughput (tok/s):",
        "Total input tokens:", "Total generated tokens:", "Mean TTFT (ms):", "Median TPOT (ms):",
        "P99 ITL (ms):", "Mean E2EL (ms):", "Request goodput (req/s):", "Concurrency:",
        "Maximum concurrency:", "Client CPU"})
    EXPECT_THAT(out_, HasSubstr(row));
  const json::value figures = json::parse(folder_.read("figures.json"));
  EXPECT_EQ(figures.at("completed"), 12);
  EXPECT_EQ(figures.at("total_output_tokens"), 60);
  EXPECT_EQ(figures.at("request_rate"), "inf");
  EXPECT_EQ(figures.at("max_concurrency"), 3);
  EXPECT_EQ(figures.at("request_goodput"), figures.at("request_throughput"));
  for (const char* name : {"ttft", "tpot", "itl", "e2el"})
    for (const char* statistic : {"mean", "median", "std", "p50", "p90", "p99", "max"})
      EXPECT_TRUE(figures.at(std::string(statistic) + "_" + name + "_ms").is_number());
  std::istringstream rows(folder_.read("requests.jsonl"));
  std::set<int64_t> numbers;
  for (std::string line; std::getline(rows, line);) {
    const json::value row = json::parse(line);
    numbers.insert(row.at("request").as_int64());
    EXPECT_EQ(row.at("outcome"), "ok");
    EXPECT_EQ(row.at("itl_ms").as_array().size(), 4u);
  }
  EXPECT_EQ(numbers.size(), 12u);
}

TEST_F(RunServeBenchTest, ExitsWithTwoWhereRequestsFailed) {
  FakeOpenAiServer server([](const FakeRequest& request) {
    return request.post_idx == 5 ? fake_json(500, "{}") : complete(request);
  });
  EXPECT_EQ(run(small_load(server)), 2);
}

TEST_F(RunServeBenchTest, TakesRefusalsForFailuresUnlessTheyAreAllowed) {
  FakeOpenAiServer server([](const FakeRequest& request) {
    return is_probe(request) ? complete(request) : fake_json(429, "{}");
  });
  Options options = small_load(server);
  EXPECT_EQ(run(options), 2);
  EXPECT_THAT(out_, HasSubstr("HTTP 429:"));
  options.allow_refusals = true;
  EXPECT_EQ(run(options), 0);
}

TEST_F(RunServeBenchTest, RefusesAFileItCannotWriteBeforeItMeasures) {
  FakeOpenAiServer server(complete);
  Options options = small_load(server);
  options.json_file = folder_.file("missing/figures.json");
  EXPECT_THAT(message_of<ConfigError>([&] { run_serve_bench(options); }), HasSubstr("--json"));
  EXPECT_TRUE(server.requests().empty());
}

}  // namespace
}  // namespace augur::serve_bench
