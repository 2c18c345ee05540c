#include "engine/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "configs/config_error.h"
#include "tests/text/template_case.h"

namespace augur {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
namespace json = boost::json;

ChatInput question() {
  ChatInput input;
  input.messages = {{{"role", "user"}, {"content", "Hi"}}};
  return input;
}

std::string parse_error(const std::string& source) {
  try {
    ChatTemplate(source, "model/chat_template.jinja");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(ChatTemplateTest, SaysWhereASyntaxErrorIs) {
  EXPECT_EQ(parse_error("a\n{% if x %}\n  é{{ 1 + }}"),
            "model/chat_template.jinja:3:11: expected an expression, got '}}'");
  EXPECT_EQ(parse_error("\n{{ 'abc }}"),
            "model/chat_template.jinja:2:4: the string that begins here is never closed");
  EXPECT_EQ(parse_error("{# x\n"),
            "model/chat_template.jinja:1:1: the comment that begins here has no closing #}");
  EXPECT_EQ(parse_error("{% if x %}\n{% for y in z %}\n{% endif %}"),
            "model/chat_template.jinja:3:4: 'endif' without the tag that it belongs to");
  EXPECT_EQ(
      parse_error("{% if x %}\n\n"),
      "model/chat_template.jinja:2:1: the template ends where 'elif' or 'else' or 'endif' was "
      "expected");
  EXPECT_EQ(parse_error("{{ (a\n"), "model/chat_template.jinja:1:4: '(' is never closed");
}

TEST(ChatTemplateTest, SaysWhichFilterTestOrTagIsUnknown) {
  EXPECT_THAT(parse_error("\n\n  {{ x | shout }}"), HasSubstr(":3:10: no filter named 'shout'"));
  EXPECT_THAT(parse_error("{{ x is loud }}"), HasSubstr(":1:9: no test named 'loud'"));
  EXPECT_THAT(parse_error("{% shout %}"), HasSubstr(":1:4: unknown tag 'shout'"));
  EXPECT_THAT(parse_error("{% include 'x' %}"), HasSubstr("'include' is not supported"));
  EXPECT_THAT(parse_error("{% extends 'x' %}"), HasSubstr("'extends' is not supported"));
  EXPECT_THAT(parse_error("{% for x in y recursive %}{% endfor %}"),
              HasSubstr(":1:15: recursive loops are not supported"));
}

TEST(ChatTemplateTest, RefusesInvalidUtf8) {
  EXPECT_THAT(parse_error("ab\xff"), HasSubstr(":1:3: the template is not valid UTF-8"));
  EXPECT_THAT(parse_error("{{ '\\ud800' }}"), HasSubstr("no Unicode code point"));
}

TEST(ChatTemplateTest, SaysWhereRenderingFailed) {
  const ChatTemplate chat_template("a\nb\n{{ messages[0].content.x.y }}", "t.jinja");
  try {
    chat_template.render(question());
    FAIL() << "rendered";
  } catch (const TemplateError& error) {
    EXPECT_EQ(error.message(), "'str object' has no attribute 'x'");
    EXPECT_EQ(error.line(), 3);
    EXPECT_STREQ(error.what(), "t.jinja:3: 'str object' has no attribute 'x'");
  }
}

TEST(ChatTemplateTest, PassesOnTheWordsOfRaiseException) {
  const ChatTemplate chat_template(
      "{% for m in messages %}\n{% if m.role == 'user' %}\n"
      "{{ raise_exception('no ' ~ m.role ~ ' here') }}{% endif %}{% endfor %}",
      "t.jinja");
  try {
    chat_template.render(question());
    FAIL() << "rendered";
  } catch (const TemplateError& error) {
    EXPECT_EQ(error.message(), "no user here");
    EXPECT_EQ(error.line(), 3);
  }
}

TEST(ChatTemplateTest, RefusesVariablesOfTheConversationItself) {
  const ChatTemplate chat_template("{{ messages|length }}", "t.jinja");
  ChatInput input = question();
  input.variables = {{"messages", json::array()}};
  EXPECT_THROW(chat_template.render(input), TemplateError);
}

TEST(ChatTemplateTest, LetsVariablesReplaceSpecialTokens) {
  const ChatTemplate chat_template("{{ bos_token }}|{{ eos_token }}", "t.jinja",
                                   {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  EXPECT_EQ(chat_template.render({}), "<s>|</s>");
  ChatInput input;
  input.variables = {{"bos_token", "B"}};
  EXPECT_EQ(chat_template.render(input), "B|</s>");
}

TEST(ChatTemplateTest, GivesNoneForToolsAndDocumentsThatAreAbsent) {
  const ChatTemplate chat_template("{{ tools }} {{ documents }} {{ add_generation_prompt }}", "t");
  EXPECT_EQ(chat_template.render({}), "None None False");
}

TEST(ChatTemplateTest, KeepsBytesThatAreNoUtf8) {
  ChatInput input;
  input.variables = {{"text", "a\xff\xc3z"}};
  const ChatTemplate chat_template("{{ text }}|{{ text[::-1] }}|{{ text|length }}|{{ text|upper }}",
                                   "t");
  EXPECT_EQ(chat_template.render(input),
            "a\xff\xc3z|z\xc3\xff"
            "a|4|A\xff\xc3Z");
}

TEST(ChatTemplateTest, RendersInSeveralThreadsAtOnce) {
  const ChatTemplate chat_template(read_data("templates/qwen3.jinja"), "t", {});
  const std::string expected = chat_template.render(question());
  std::vector<std::thread> threads;
  std::vector<int> num_equal(4, 0);
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 50; ++i)
        num_equal[thread] += chat_template.render(question()) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_equal, (std::vector<int>(4, 50)));
}

class ChatTemplateFolder : public ::testing::Test {
 protected:
  ChatTemplateFolder() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              (std::string("augur_chat_template_") + test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~ChatTemplateFolder() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  std::string render(const ChatInput& input = question()) {
    return ChatTemplate::from_folder(folder_).value().render(input);
  }
  std::string error() {
    try {
      ChatTemplate::from_folder(folder_);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no error";
  }

  std::filesystem::path folder_;
};

TEST_F(ChatTemplateFolder, HasNoTemplateInAnEmptyFolder) {
  EXPECT_FALSE(ChatTemplate::from_folder(folder_).has_value());
  write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  EXPECT_FALSE(ChatTemplate::from_folder(folder_).has_value());
  write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_FALSE(ChatTemplate::from_folder(folder_).has_value());
}

TEST_F(ChatTemplateFolder, TakesTheStringOfTheTokenizerConfig) {
  write("tokenizer_config.json",
        R"({"chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
            "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}})");
  EXPECT_EQ(render(), "<s>Hi</s>");
}

TEST_F(ChatTemplateFolder, PrefersTheTemplateFile) {
  write("tokenizer_config.json", R"({"chat_template": "config", "pad_token": "P"})");
  write("chat_template.jinja", "file {{ pad_token }}\n");
  EXPECT_EQ(render(), "file P");
}

TEST_F(ChatTemplateFolder, NeedsNoTokenizerConfigBesideTheTemplateFile) {
  write("chat_template.jinja", "[{{ bos_token }}]");
  EXPECT_EQ(render(), "[]");
}

TEST_F(ChatTemplateFolder, TakesTheToolTemplateForTools) {
  write("tokenizer_config.json", R"({"chat_template": [
      {"name": "default", "template": "plain"},
      {"name": "tool_use", "template": "{{ tools|length }} tools"},
      {"name": "rag", "template": "unused"}]})");
  ChatInput input = question();
  EXPECT_EQ(render(input), "plain");
  input.tools = json::array{1, 2};
  EXPECT_EQ(render(input), "2 tools");
}

TEST_F(ChatTemplateFolder, TakesTheToolTemplateFileForTools) {
  write("chat_template.jinja", "plain");
  write("additional_chat_templates/tool_use.jinja", "tools");
  ChatInput input = question();
  EXPECT_EQ(render(input), "plain");
  input.tools = json::array{1};
  EXPECT_EQ(render(input), "tools");
}

TEST_F(ChatTemplateFolder, SaysWhenOnlyToolsHaveATemplate) {
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "tools"}]})");
  EXPECT_THROW(render(), TemplateError);
}

TEST_F(ChatTemplateFolder, TakesTokensFromTheSpecialTokensMapWhenTheConfigHasNone) {
  write("tokenizer_config.json",
        R"({"chat_template": "{{ bos_token }}{{ eos_token }}{{ additional_special_tokens }}",
            "bos_token": "<s>", "eos_token": null,
            "additional_special_tokens": ["<x>", {"content": "<y>"}]})");
  write("special_tokens_map.json", R"({"bos_token": "unused", "eos_token": "</s>"})");
  EXPECT_EQ(render(), "<s></s>['<x>', '<y>']");
}

TEST_F(ChatTemplateFolder, SaysWhatIsWrongWithItsFiles) {
  write("tokenizer_config.json", "{\n\"a\": 1,\n}");
  EXPECT_THAT(error(), HasSubstr("tokenizer_config.json:3: is not valid JSON"));
  write("tokenizer_config.json", "[]");
  EXPECT_THAT(error(), HasSubstr("must hold a JSON object"));
  write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_THAT(error(), HasSubstr("must be a string or a list"));
  write("tokenizer_config.json", R"({"chat_template": [{"name": "default"}]})");
  EXPECT_THAT(error(), HasSubstr("every entry must have"));
  write("tokenizer_config.json", R"({"chat_template": [{"name": "x", "template": ""}]})");
  EXPECT_THAT(error(), HasSubstr("no template named \"default\""));
  write("tokenizer_config.json", R"({"chat_template": "", "bos_token": 1})");
  EXPECT_THAT(error(), HasSubstr("bos_token: must be a string"));
  write("tokenizer_config.json", R"({"chat_template": "\n{{"})");
  EXPECT_THAT(error(), HasSubstr("tokenizer_config.json: chat_template:2:1: "));
  write("chat_template.jinja", "\n{% oops %}");
  EXPECT_THAT(error(), HasSubstr("chat_template.jinja:2:4: unknown tag 'oops'"));
  EXPECT_THAT(error(), StartsWith(folder_.string()));
}

}  // namespace
}  // namespace augur
