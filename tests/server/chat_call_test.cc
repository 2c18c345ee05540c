#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/server/api_fixture.h"

namespace augur::server::test {
namespace {

using ::testing::HasSubstr;

ApiCall parse(const std::string& body, const ApiContext& context = demo_context()) {
  return parse_chat_call(body, context, identity());
}

ApiError refused(const std::string& body, const ApiContext& context = demo_context()) {
  const auto error =
      refusal([](std::string_view text,
                 const ApiContext& asked) { parse_chat_call(text, asked, identity()); },
              body, context);
  EXPECT_TRUE(error) << body;
  return error.value_or(bad_request("", ""));
}

/// The text of the prompt that a body comes to.
std::string prompt_of(const std::string& body, const ApiContext& context = demo_context()) {
  return context.tokenizer->decode(parse(body, context).requests.at(0).prompt_ids,
                                   /*skip_special_tokens=*/false);
}

std::string with_message(const std::string& message) {
  return R"({"messages":[)" + message + "]}";
}

/// A context whose template prints what it is given, as JSON.
ApiContext printing_context() {
  static const ChatTemplate chat_template(
      "{{ messages | tojson }}|{{ tools | tojson }}|{{ add_generation_prompt }}|"
      "{{ enable_thinking }}|{{ reasoning_effort }}",
      "printing template");
  ApiContext context = demo_context();
  context.chat_template = &chat_template;
  return context;
}

TEST(ChatCallTest, RendersTheConversation) {
  EXPECT_EQ(prompt_of(R"({"messages":[{"role":"system","content":"Be brief."},
                                      {"role":"user","content":"Hello"}]})"),
            "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHello<|assistant|>\n");
  EXPECT_EQ(prompt_of(R"({"messages":[{"role":"user","content":"Hello"}],
                          "add_generation_prompt":false})"),
            "[gMASK]<sop><|user|>\nHello");
}

TEST(ChatCallTest, JoinsTextPartsAndTakesNullForNoText) {
  EXPECT_EQ(prompt_of(R"({"messages":[{"role":"user","content":[
                          {"type":"text","text":"one"},{"type":"text","text":"two"}]},
                          {"role":"assistant","content":null},
                          {"role":"user","content":[]}]})"),
            "[gMASK]<sop><|user|>\none\ntwo<|assistant|>\n<|user|>\n<|assistant|>\n");
}

TEST(ChatCallTest, TellsDeveloperMessagesAsSystemMessages) {
  EXPECT_EQ(prompt_of(R"({"messages":[{"role":"developer","content":"Be brief."}]})"),
            "[gMASK]<sop><|system|>\nBe brief.<|assistant|>\n");
}

TEST(ChatCallTest, RefusesMessagesByPlace) {
  EXPECT_EQ(refused(R"({"messages":[]})").param, "messages");
  EXPECT_EQ(refused(with_message("1")).param, "messages[0]");
  EXPECT_EQ(refused(with_message("{}")).param, "messages[0].role");
  EXPECT_EQ(refused(with_message(R"({"role":7,"content":"a"})")).param, "messages[0].role");
  EXPECT_EQ(refused(with_message(R"({"role":"","content":"a"})")).param, "messages[0].role");
  EXPECT_EQ(refused(with_message(R"({"role":"user"})")).param, "messages[0].content");
  EXPECT_EQ(refused(with_message(R"({"role":"user","content":7})")).param, "messages[0].content");
  EXPECT_EQ(
      refused(with_message(R"({"role":"user","content":"a"},{"role":"user","content":{}})")).param,
      "messages[1].content");
  EXPECT_EQ(refused(with_message(R"({"role":"user","content":["a"]})")).param,
            "messages[0].content[0]");
  EXPECT_EQ(refused(with_message(R"({"role":"user","content":[{"type":"text"}]})")).param,
            "messages[0].content[0].text");
  const ApiError image = refused(with_message(
      R"({"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x"}}]})"));
  EXPECT_EQ(image.param, "messages[0].content[0].type");
  EXPECT_EQ(image.code, "unsupported_value");
  EXPECT_THAT(image.message, HasSubstr("image_url"));
}

TEST(ChatCallTest, GivesToolCallsToTheTemplateAsObjects) {
  const std::string prompt =
      prompt_of(with_message(R"({"role":"assistant","tool_calls":[{"id":"1","type":"function",
                                 "function":{"name":"f","arguments":"{\"x\": 1}"}}]},
                                {"role":"tool","tool_call_id":"1","content":"7"})"),
                printing_context());
  EXPECT_THAT(prompt, HasSubstr(R"("arguments": {"x": 1})"));
  EXPECT_THAT(prompt, HasSubstr(R"("tool_call_id": "1")"));
  EXPECT_EQ(refused(with_message(R"({"role":"assistant","tool_calls":[{"function":
                                     {"name":"f","arguments":"{x"}}]})"))
                .param,
            "messages[0].tool_calls[0].function.arguments");
  EXPECT_EQ(refused(with_message(R"({"role":"assistant","tool_calls":[{"function":{}}]})")).param,
            "messages[0].tool_calls[0].function.name");
  EXPECT_EQ(refused(with_message(R"({"role":"assistant","tool_calls":7})")).param,
            "messages[0].tool_calls");
}

TEST(ChatCallTest, DescribesToolsUnlessNoneMayBeCalled) {
  const std::string body = R"({"messages":[{"role":"user","content":"a"}],
      "tools":[{"type":"function","function":{"name":"weather"}}])";
  EXPECT_THAT(prompt_of(body + "}", printing_context()), HasSubstr("weather"));
  EXPECT_THAT(prompt_of(body + R"(,"tool_choice":"auto"})", printing_context()),
              HasSubstr("weather"));
  EXPECT_THAT(prompt_of(body + R"(,"tool_choice":"none"})", printing_context()),
              ::testing::Not(HasSubstr("weather")));
  for (const char* choice :
       {"\"required\"", R"({"type":"function","function":{"name":"weather"}})"}) {
    const ApiError error = refused(body + ",\"tool_choice\":" + choice + "}");
    EXPECT_EQ(error.param, "tool_choice");
    EXPECT_EQ(error.code, "unsupported_value");
  }
  const auto tools = [](const std::string& list) {
    return R"({"messages":[{"role":"user","content":"a"}],"tools":)" + list + "}";
  };
  EXPECT_EQ(refused(tools("[7]")).param, "tools[0]");
  EXPECT_EQ(refused(tools(R"([{"type":"retrieval"}])")).param, "tools[0].type");
  EXPECT_EQ(refused(tools(R"([{"type":"function","function":{"name":7}}])")).param,
            "tools[0].function.name");
}

TEST(ChatCallTest, PassesVariablesOfTheTemplateThatAreTheClientsToSet) {
  const auto body = [](const std::string& kwargs) {
    return R"({"messages":[{"role":"user","content":"a"}],"reasoning_effort":"low",
               "chat_template_kwargs":)" +
           kwargs + "}";
  };
  EXPECT_THAT(prompt_of(body(R"({"enable_thinking":false,"other":1.5})"), printing_context()),
              ::testing::EndsWith("|True|False|low"));
  for (const char* name : {"messages", "tools", "add_generation_prompt", "documents", "tokenize",
                           "chat_template", "bos_token", "strftime_now", "", "a-b", "1a"}) {
    EXPECT_EQ(refused(body(R"({")" + std::string(name) + R"(":true})")).param,
              "chat_template_kwargs")
        << name;
  }
  EXPECT_EQ(refused(body(R"({"x":[1]})")).param, "chat_template_kwargs.x");
  EXPECT_EQ(refused(body(R"({"x":")" + std::string(1025, 'x') + R"("})")).param,
            "chat_template_kwargs.x");
  std::string many = "{";
  for (int i = 0; i < 33; ++i) many += (i == 0 ? "\"v" : ",\"v") + std::to_string(i) + "\":1";
  EXPECT_EQ(refused(body(many + "}")).param, "chat_template_kwargs");
}

TEST(ChatCallTest, TellsWhatTheTemplateRefuses) {
  const ChatTemplate picky("{{ raise_exception('roles must alternate') }}", "picky");
  ApiContext context = demo_context();
  context.chat_template = &picky;
  const ApiError error = refused(with_message(R"({"role":"user","content":"a"})"), context);
  EXPECT_EQ(error.status, 400);
  EXPECT_EQ(error.param, "messages");
  EXPECT_THAT(error.message, HasSubstr("roles must alternate"));
  const ChatTemplate silent("{% if false %}x{% endif %}", "silent");
  context.chat_template = &silent;
  EXPECT_EQ(refused(with_message(R"({"role":"user","content":"a"})"), context).param, "messages");
  context.chat_template = nullptr;
  EXPECT_EQ(refused(with_message(R"({"role":"user","content":"a"})"), context).param, "messages");
}

TEST(ChatCallTest, FillsTheContextUnlessToldOtherwise) {
  const std::string body = R"({"messages":[{"role":"user","content":"Hello"}])";
  const Request request = parse(body + "}").requests.at(0);
  EXPECT_EQ(request.sampling.max_tokens + static_cast<int64_t>(request.prompt_ids.size()), 256);
  EXPECT_EQ(parse(body + R"(,"max_tokens":3})").requests.at(0).sampling.max_tokens, 3);
  EXPECT_EQ(parse(body + R"(,"max_tokens":3,"max_completion_tokens":4})")
                .requests.at(0)
                .sampling.max_tokens,
            4);
  const ApiError error = refused(body + R"(,"max_completion_tokens":256})");
  EXPECT_EQ(error.code, "context_length_exceeded");
  EXPECT_EQ(error.param, "max_completion_tokens");
  std::string words;
  for (int i = 0; i < 300; ++i) words += " word";
  EXPECT_EQ(refused(with_message(R"({"role":"user","content":")" + words + "\"}")).code,
            "context_length_exceeded");
}

TEST(ChatCallTest, ReadsLogprobs) {
  const std::string body = R"({"messages":[{"role":"user","content":"Hello"}])";
  EXPECT_EQ(parse(body + "}").requests.at(0).sampling.logprobs, -1);
  EXPECT_EQ(parse(body + R"(,"logprobs":true})").requests.at(0).sampling.logprobs, 0);
  EXPECT_EQ(parse(body + R"(,"logprobs":true,"top_logprobs":20})").requests.at(0).sampling.logprobs,
            20);
  EXPECT_EQ(refused(body + R"(,"logprobs":true,"top_logprobs":21})").param, "top_logprobs");
  EXPECT_EQ(refused(body + R"(,"top_logprobs":2})").param, "top_logprobs");
}

TEST(ChatAnswerTest, HasTheShapeOfOpenAi) {
  const ApiContext context = toy_context();
  const Played played =
      play(parse(R"({"messages":[{"role":"user","content":"ab"}],"n":2,"max_tokens":6,
                     "ignore_eos":true,"logprobs":true,"top_logprobs":2,"return_token_ids":true})",
                 context),
           context);
  const json::object& body = played.body.as_object();
  EXPECT_EQ(body.at("object"), "chat.completion");
  EXPECT_EQ(body.at("id"), "call-1");
  EXPECT_EQ(body.at("usage").at("completion_tokens"), 12);
  EXPECT_TRUE(body.at("prompt_token_ids").is_array());
  ASSERT_EQ(body.at("choices").as_array().size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const json::value& choice = body.at("choices").at(i);
    const Completion& completion = played.results[0].completions[i];
    EXPECT_EQ(choice.at("index"), i);
    EXPECT_EQ(choice.at("message").at("role"), "assistant");
    EXPECT_EQ(choice.at("message").at("content"), json::value(completion.text));
    EXPECT_EQ(choice.at("finish_reason"), "length");
    EXPECT_TRUE(choice.at("stop_reason").is_null());
    const json::array& content = choice.at("logprobs").at("content").as_array();
    ASSERT_EQ(content.size(), 6u);
    std::string bytes;
    for (size_t k = 0; k < content.size(); ++k) {
      EXPECT_EQ(static_cast<float>(content[k].at("logprob").to_number<double>()),
                completion.logprobs[k].logprob);
      EXPECT_EQ(content[k].at("top_logprobs").as_array().size(), 2u);
      for (const json::value& byte : content[k].at("bytes").as_array()) {
        bytes.push_back(static_cast<char>(byte.to_number<int>()));
      }
    }
    // The bytes of the tokens are the text, before halves of characters are repaired.
    std::string expected;
    for (const int32_t id : completion.output_ids) {
      const std::string_view token = context.tokenizer->id_to_token(id);
      for (size_t at = 0; at < token.size();) {
        const std::string_view rest = token.substr(at);
        const std::pair<std::string_view, char> stand_ins[] = {
            {"\u0120", ' '}, {"\u010A", '\n'}, {"\u00C3", '\xC3'}, {"\u00A9", '\xA9'}};
        size_t taken = 0;
        for (const auto& [stand_in, byte] : stand_ins) {
          if (!rest.starts_with(stand_in)) continue;
          expected.push_back(byte);
          taken = stand_in.size();
        }
        if (taken == 0) expected.push_back(rest[taken++]);
        at += taken;
      }
    }
    EXPECT_EQ(bytes, expected);
  }
}

}  // namespace
}  // namespace augur::server::test
