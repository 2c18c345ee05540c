// Our engine against what Jinja2 itself made of the same templates.
#include <gtest/gtest.h>

#include "tests/text/template_case.h"

namespace augur {
namespace {

namespace json = boost::json;

class TemplateFamily : public ::testing::TestWithParam<std::string> {};

TEST_P(TemplateFamily, RendersEveryConversationAsJinja2Does) {
  const std::string source = read_data("templates/" + GetParam() + ".jinja");
  const json::object conversations = read_json("template_conversations.json");
  const json::object all = read_json("template_expected.json");
  const json::object& expected = all.at(GetParam()).as_object();
  ASSERT_EQ(expected.size(), conversations.size());
  for (const auto& [name, value] : conversations) {
    SCOPED_TRACE(std::string(name));
    const json::object& conversation = value.as_object();
    ChatInput input;
    input.messages = conversation.at("messages").as_array();
    if (conversation.contains("tools")) input.tools = conversation.at("tools").as_array();
    if (conversation.contains("variables")) {
      input.variables = conversation.at("variables").as_object();
    }
    input.add_generation_prompt = conversation.contains("add_generation_prompt") &&
                                  conversation.at("add_generation_prompt").as_bool();
    input.now = case_time();
    expect_case(source, {{"bos_token", "<s>"}, {"eos_token", "</s>"}}, input,
                expected.at(name).as_object());
  }
}

INSTANTIATE_TEST_SUITE_P(All,
                         TemplateFamily,
                         ::testing::Values("chatml_generation",
                                           "deepseek_r1",
                                           "deepseek_v3",
                                           "glm4_5",
                                           "llama3",
                                           "llama3_1",
                                           "mistral_tools",
                                           "mixtral",
                                           "qwen3",
                                           "tiny_glm4_moe"),
                         [](const auto& info) { return info.param; });

TEST(JinjaSnippets, DoWhatJinja2Does) {
  const json::object file = read_json("template_snippets.json");
  const json::array& cases = file.at("cases").as_array();
  ASSERT_GE(cases.size(), 200u);
  ChatInput input;
  input.variables = file.at("variables").as_object();
  input.now = case_time();
  for (const json::value& value : cases) {
    const std::string source(value.as_object().at("source").as_string());
    SCOPED_TRACE(source);
    expect_case(source, {}, input, value.as_object());
  }
}

}  // namespace
}  // namespace augur
