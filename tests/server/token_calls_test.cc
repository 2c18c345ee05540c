#include <gtest/gtest.h>

#include <string>

#include "tests/server/api_fixture.h"

namespace augur::server::test {
namespace {

TEST(TokenCallsTest, TokenizesText) {
  const ApiContext context = demo_context();
  const json::value answer = json::parse(tokenize(R"({"prompt":"Once upon"})", context));
  const auto ids = json::value_to<std::vector<int32_t>>(answer.at("tokens"));
  EXPECT_EQ(ids, demo_tokenizer().encode("Once upon"));
  EXPECT_EQ(answer.at("count"), ids.size());
  EXPECT_EQ(answer.at("max_model_len"), 256);
  EXPECT_TRUE(answer.at("token_strs").is_null());
}

TEST(TokenCallsTest, ShowsTokensAsTheTokenizerWritesThem) {
  const ApiContext context = toy_context();
  const json::value answer =
      json::parse(tokenize(R"({"prompt":"ab a\n","return_token_strs":true})", context));
  const auto ids = json::value_to<std::vector<int32_t>>(answer.at("tokens"));
  ASSERT_EQ(answer.at("token_strs").as_array().size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(answer.at("token_strs").at(i), json::value(context.tokenizer->id_to_token(ids[i])));
  }
}

TEST(TokenCallsTest, TokenizesConversations) {
  const ApiContext context = demo_context();
  const std::string body = R"({"messages":[{"role":"user","content":"Hello"}]})";
  const json::value answer = json::parse(tokenize(body, context));
  EXPECT_EQ(json::value_to<std::vector<int32_t>>(answer.at("tokens")),
            parse_chat_call(body, context, identity()).requests.at(0).prompt_ids);
}

TEST(TokenCallsTest, DetokenizesWhatItTokenized) {
  const ApiContext context = demo_context();
  for (const std::string text : {"", "Once upon a \u00e9\u4f60 \"time\"\n", "<|user|>\nHi"}) {
    const std::string body = json::serialize(json::object{{"prompt", text}});
    const json::value tokens = json::parse(tokenize(body, context));
    const std::string back =
        detokenize(json::serialize(json::object{{"tokens", tokens.at("tokens")}}), context);
    EXPECT_EQ(json::parse(back).at("prompt"), json::value(text));
  }
}

TEST(TokenCallsTest, RefuseUnknownTokensByPlace) {
  const ApiContext context = demo_context();
  const auto refused =
      refusal([](std::string_view body, const ApiContext& asked) { detokenize(body, asked); },
              R"({"tokens":[1,8192]})", context);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->param, "tokens[1]");
}

TEST(ModelListTest, NamesEveryModelServed) {
  const ApiContext context = demo_context();
  const json::value list = json::parse(models_body(context, 1700000000));
  EXPECT_EQ(list.at("object"), "list");
  ASSERT_EQ(list.at("data").as_array().size(), 2u);
  const json::value& model = list.at("data").at(1);
  EXPECT_EQ(model.at("id"), "tiny");
  EXPECT_EQ(model.at("object"), "model");
  EXPECT_EQ(model.at("created"), 1700000000);
  EXPECT_EQ(model.at("owned_by"), "augur");
  EXPECT_EQ(model.at("max_model_len"), 256);
  EXPECT_EQ(json::parse(model_body("tiny", context, 1700000000)), model);
  const auto refused =
      refusal([](std::string_view name, const ApiContext& asked) { model_body(name, asked, 0); },
              "other", context);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 404);
  EXPECT_EQ(refused->code, "model_not_found");
}

TEST(ApiErrorTest, HasOpenAisBody) {
  ApiError error(503, "server_error", "server_is_overloaded", "", "busy \"now\"\n");
  error.retry_after_s = 7;
  EXPECT_EQ(error_body(error),
            R"({"error":{"message":"busy \"now\"\n","type":"server_error","param":null,)"
            R"("code":"server_is_overloaded"}})");
  const HttpResponse response = error_response(error);
  EXPECT_EQ(response.status, 503);
  ASSERT_EQ(response.headers.size(), 1u);
  EXPECT_EQ(response.headers[0].first, "Retry-After");
  EXPECT_EQ(response.headers[0].second, "7");
  EXPECT_EQ(error_event(error), "data: " + error_body(error) + "\n\n");
}

}  // namespace
}  // namespace augur::server::test
