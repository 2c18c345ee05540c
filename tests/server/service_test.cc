// The whole server over the demo model: what is answered at each path, and who may ask.
#include "engine/server/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "tests/server/demo_server.h"
#include "tests/temp_folder.h"

namespace augur::server {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const std::string kLong =
    R"({"prompt":"A text that goes on","max_tokens":3000,"ignore_eos":true,"stream":true})";

std::string error_code(const DemoServer& server, const RawResponse& response) {
  const boost::json::value body = server.json(response);
  return std::string(body.at("error").at("code").as_string());
}

TEST(ServiceTest, AnswersACompletion) {
  const DemoServer server;
  const RawResponse response = server.post(
      "/v1/completions", R"({"prompt":"The capital of France is","temperature":0,"max_tokens":2})");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(server.json(response).at("choices").at(0).at("text").as_string(), " Paris");
}

TEST(ServiceTest, StreamsAChatToItsEnd) {
  const DemoServer server;
  const RawResponse response = server.post(
      "/v1/chat/completions",
      R"({"messages":[{"role":"user","content":"Name the capital of Japan."}],"stream":true,)"
      R"("temperature":0,"max_tokens":8})");
  EXPECT_EQ(response.header("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_THAT(response.body, HasSubstr(R"("role":"assistant")"));
  EXPECT_THAT(response.body, testing::EndsWith("data: [DONE]\n\n"));
}

TEST(ServiceTest, TellsWhereNothingIsAndWhatAPathTakes) {
  const DemoServer server;
  EXPECT_EQ(server.get("/v2/completions").status, 404);
  EXPECT_EQ(server.get("/v1/completions").status, 405);
  EXPECT_EQ(server.post("/health", "{}").status, 405);
  EXPECT_EQ(server.get("/v1/models/other").status, 404);
  EXPECT_EQ(server.get("/v1/models/tiny-glm4-moe").status, 200);
  RawClient client(server.port());
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
      "Content-Length: 2\r\n\r\n{}");
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(error_code(server, response), "unsupported_content_type");
}

TEST(ServiceTest, SaysThatItLoadsUntilTheModelIsThere) {
  DemoServer server({}, /*loads=*/false);
  const RawResponse health = server.get("/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_THAT(health.body, HasSubstr("loading"));
  EXPECT_THAT(server.get("/stats").body, HasSubstr(R"("state":"loading")"));
  const RawResponse refused = server.post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(error_code(server, refused), "model_loading");
  EXPECT_NE(refused.header("retry-after"), "");
  EXPECT_THAT(server.get("/").body, HasSubstr("<html"));
  server.load();
  EXPECT_EQ(server.get("/health").status, 200);
}

TEST(ServiceTest, ProvesThatTheEngineAnswers) {
  const DemoServer server;
  const RawResponse response = server.get("/health_generate");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, R"({"status":"ok"})");
}

TEST(ServiceTest, FreesWhatAClientThatLeavesHeld) {
  DemoServer server;
  {
    RawClient client(server.port());
    client.send(DemoServer::post_text("/v1/completions", kLong));
    client.read_until("data: ");
    client.reset();
  }
  EXPECT_TRUE(server.becomes_idle());
  {
    RawClient client(server.port());  // one that is not streamed: nothing is written meanwhile
    client.send(DemoServer::post_text("/v1/completions",
                                      R"({"prompt":"A","max_tokens":3000,"ignore_eos":true})"));
    while (server.service().loop()->num_requests() == 0) std::this_thread::yield();
    client.close();
  }
  EXPECT_TRUE(server.becomes_idle());
}

TEST(ServiceTest, RefusesWhatTheQueueHasNoRoomFor) {
  DemoServer server({"execution.max_batch_size=1", "server.limits.max_queued_requests=1"});
  std::vector<RawClient> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back(server.port());
    clients.back().send(DemoServer::post_text("/v1/completions", kLong));
    if (i == 0) clients.back().read_until("data: ");  // it runs
  }
  while (server.service().loop()->num_queued_requests() == 0) std::this_thread::yield();
  const RawResponse response = server.post("/v1/completions", kLong);
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(error_code(server, response), "server_is_overloaded");
  EXPECT_GE(std::stoi(response.header("retry-after")), 1);
  for (RawClient& client : clients) client.reset();
  EXPECT_TRUE(server.becomes_idle());
}

TEST(ServiceTest, LetsGoOfWhatWaitsTooLong) {
  DemoServer server({"execution.max_batch_size=1", "server.limits.waiting_timeout_s=0.05"});
  RawClient first(server.port());
  first.send(DemoServer::post_text("/v1/completions", kLong));
  first.read_until("data: ");
  const RawResponse response = server.post("/v1/completions", kLong);
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(error_code(server, response), "server_is_overloaded");
  EXPECT_NE(response.header("retry-after"), "");
}

TEST(ServiceTest, EndsWhatRunsTooLongWithWhatThereIs) {
  const DemoServer server({"server.limits.running_timeout_s=0.05"});
  const RawResponse response =
      server.post("/v1/completions", R"({"prompt":"A","max_tokens":3000,"ignore_eos":true})");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(server.json(response).at("choices").at(0).at("finish_reason").as_string(), "abort");
}

TEST(ServiceTest, AbortsByTheIdAClientGave) {
  DemoServer server;
  RawClient client(server.port());
  client.send(DemoServer::post_text(
      "/generate", R"({"text":"A","rid":"mine","sampling_params":{"max_new_tokens":3000,)"
                   R"("ignore_eos":true}})"));
  while (server.service().loop()->num_requests() == 0) std::this_thread::yield();
  EXPECT_EQ(server.post("/abort_request", R"({"rid":"other"})").body, R"({"aborted":0})");
  EXPECT_EQ(server.post("/abort_request", R"({"rid":"mine"})").body, R"({"aborted":1})");
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.body, HasSubstr(R"("type":"abort")"));
  EXPECT_EQ(server.post("/abort_request", "{}").status, 400);
}

TEST(ServiceTest, DrainsWhatItLetIn) {
  DemoServer server;
  RawClient client(server.port());
  client.send(DemoServer::post_text(
      "/v1/completions", R"({"prompt":"A","max_tokens":50,"ignore_eos":true,"stream":true})"));
  EXPECT_EQ(client.read_response_head().status, 200);
  const std::jthread drain([&] { server.service().drain(std::chrono::seconds(20)); });
  RawResponse response;
  while (client.read_chunk(response)) {
  }
  EXPECT_THAT(response.body, testing::EndsWith("data: [DONE]\n\n"));
}

TEST(ServiceTest, EndsWhatIsLeftAtTheDrainsDeadline) {
  DemoServer server;
  RawClient client(server.port());
  client.send(DemoServer::post_text("/v1/completions", kLong));
  const RawResponse head = client.read_response_head();
  EXPECT_EQ(head.status, 200);
  const std::jthread drain([&] { server.service().drain(std::chrono::milliseconds(1)); });
  RawResponse rest;
  while (client.read_chunk(rest)) {
  }
  EXPECT_THAT(rest.body, HasSubstr(R"("finish_reason":"abort")"));
  EXPECT_THAT(rest.body, testing::EndsWith("data: [DONE]\n\n"));
}

TEST(ServiceTest, TellsOfItself) {
  const DemoServer server({"server.served_model_names=[one, two]"});
  const boost::json::value info = server.json(server.get("/server_info"));
  EXPECT_EQ(info.at("served_model_name").as_string(), "one");
  EXPECT_GT(info.at("limits").at("num_kv_blocks").as_int64(), 0);
  EXPECT_EQ(info.at("config").at("server.port").as_string(), "8000");
  EXPECT_THAT(server.get("/v1/models").body, HasSubstr(R"("id":"two")"));
  EXPECT_EQ(server.post("/v1/completions", R"({"model":"two","prompt":"a","max_tokens":1})").status,
            200);
  EXPECT_EQ(server.post("/v1/completions", R"({"model":"tiny","prompt":"a"})").status, 404);
}

class KeyedServiceTest : public testing::Test {
 protected:
  static std::string make_keys(const TempFolder& folder) {
    const std::filesystem::path file = folder.path() / "keys";
    std::ofstream(file) << "ann ann-0123456789abcdef\nbob bob-0123456789abcdef\n"
                           "root root-0123456789abcdef admin\n";
    std::filesystem::permissions(file, std::filesystem::perms::owner_read);
    return file.string();
  }
  static std::string bearer(const std::string& name) {
    return "Authorization: Bearer " + name + "-0123456789abcdef\r\n";
  }

  TempFolder folder_;
  DemoServer server_{{"server.api_keys_file=" + make_keys(folder_)}};
};

TEST_F(KeyedServiceTest, OpensEachPathToKeysOnly) {
  for (const std::string path : {"/v1/models", "/stats", "/server_info", "/nothing"}) {
    EXPECT_EQ(server_.get(path).status, 401) << path;
    EXPECT_NE(server_.get(path, bearer("ann")).status, 401) << path;
  }
  EXPECT_EQ(server_.get("/health").status, 200);
}

TEST_F(KeyedServiceTest, LeavesControlToAdministrators) {
  EXPECT_EQ(server_.post("/flush_cache", "", bearer("ann")).status, 403);
  EXPECT_EQ(server_.post("/flush_cache", "", bearer("root")).status, 200);
  EXPECT_EQ(server_.post("/abort_request", R"({"abort_all":true})", bearer("ann")).status, 403);
}

TEST_F(KeyedServiceTest, AbortsNoRequestOfAnother) {
  RawClient client(server_.port());
  client.send(DemoServer::post_text(
      "/generate",
      R"({"text":"A","rid":"r","sampling_params":{"max_new_tokens":3000,"ignore_eos":true}})",
      bearer("ann")));
  while (server_.service().loop()->num_requests() == 0) std::this_thread::yield();
  EXPECT_EQ(server_.post("/abort_request", R"({"rid":"r"})", bearer("bob")).body,
            R"({"aborted":0})");
  EXPECT_EQ(server_.post("/abort_request", R"({"rid":"r"})", bearer("ann")).body,
            R"({"aborted":1})");
}

}  // namespace
}  // namespace augur::server
