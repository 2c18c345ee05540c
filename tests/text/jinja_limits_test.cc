// What keeps a template from running away with the process.
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "tests/text/template_case.h"

namespace augur {
namespace {

namespace json = boost::json;

std::string repeat(const std::string& text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

// The message of the TemplateError that rendering `source` ends in.
std::string render_error(const std::string& source,
                         const json::object& variables = {},
                         const TemplateLimits& limits = {}) {
  ChatInput input;
  input.variables = variables;
  try {
    ChatTemplate(source, "template").render(input, limits);
  } catch (const TemplateError& error) {
    return error.message();
  }
  return "no error";
}

std::string parse_error(const std::string& source) {
  try {
    ChatTemplate(source, "template");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST(JinjaLimits, StopsNestedLoopsAtTheStepLimit) {
  const std::string source =
      "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
  expect_contains(render_error(source), "more than 4000000 steps");
  TemplateLimits limits;
  limits.max_steps = 100;
  expect_contains(render_error("{% for a in range(1000) %}{{ a }}{% endfor %}", {}, limits),
                  "more than 100 steps");
}

TEST(JinjaLimits, StopsOutputAtItsLimit) {
  TemplateLimits limits;
  limits.max_output_bytes = 1000;
  expect_contains(render_error("{% for a in range(101) %}0123456789{% endfor %}", {}, limits),
                  "printed more than 1000 bytes");
  ChatInput input;
  const ChatTemplate fits("{% for a in range(100) %}0123456789{% endfor %}", "template");
  EXPECT_EQ(fits.render(input, limits).size(), 1000u);
}

TEST(JinjaLimits, StopsStringsAndListsThatGrow) {
  TemplateLimits limits;
  limits.max_work_bytes = 4 << 20;
  for (const std::string source : {
           "{{ 'x' * 1000000000000 }}",
           "{{ 'abc' * 9223372036854775807 }}",
           "{{ [0] * 1000000000000 }}",
           "{{ 'x'.center(10 ** 15) }}",
           "{{ 'x'.ljust(10 ** 15)|length }}",
           "{{ '5'.zfill(10 ** 15) }}",
           "{{ '%1000000000d' % 1 }}",
           "{{ '{:1000000000}'.format(1) }}",
           "{{ 'x'|indent(10 ** 15, true) }}",
           "{{ 'x'|center(10 ** 15) }}",
           "{{ [1]|tojson(indent=10 ** 15) }}",
           "{{ range(7)|batch(10 ** 15, 'x')|list }}",
           "{% set n = namespace(s='0123456789') %}{% for i in range(100) %}"
           "{% set n.s = n.s + n.s %}{% endfor %}",
           "{% set n = namespace(s=[1]) %}{% for i in range(100) %}"
           "{% set n.s = n.s + n.s %}{% endfor %}",
           "{% set n = namespace(s='0123456789') %}{% for i in range(100) %}"
           "{% set n.s = n.s.replace('', n.s) %}{% endfor %}",
           "{% set n = namespace(s='0123456789') %}{% for i in range(100) %}"
           "{% set n.s = n.s.join(n.s) %}{% endfor %}",
           "{% set n = namespace(s='ab') %}{% for i in range(100) %}"
           "{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
       }) {
    SCOPED_TRACE(source);
    const std::string error = render_error(source, {}, limits);
    EXPECT_TRUE(error.find("built more than 4194304 bytes") != std::string::npos ||
                error.find("steps") != std::string::npos)
        << error;
  }
  expect_contains(render_error("{{ range(7)|slice(10 ** 15)|list }}"), "steps");
}

TEST(JinjaLimits, RefusesWideNumberFormats) {
  expect_contains(render_error("{{ '%.5000f' % 1.0 }}"), "precision");
  expect_contains(render_error("{{ '{:.5000f}'.format(1.0) }}"), "precision");
}

TEST(JinjaLimits, RefusesHugeRanges) {
  expect_contains(render_error("{{ range(100001) }}"), "range() of more than 100000 items");
  expect_contains(render_error("{{ range(-(10 ** 30), 10 ** 30) }}"), "range() of more than");
  expect_contains(render_error("{{ range(10 ** 35) }}"), "out of range");
}

TEST(JinjaLimits, RefusesIntegersBeyond128Bits) {
  expect_contains(render_error("{{ 2 ** 127 }}"), "does not fit in 128 bits");
  expect_contains(render_error("{{ 10 ** 30 * 10 ** 30 }}"), "does not fit in 128 bits");
  expect_contains(render_error("{{ '9' * 40 }}{{ ('9' * 40)|int }}"), "does not fit in 128 bits");
  expect_contains(render_error("{{ 2 ** 126 + 2 ** 126 }}"), "does not fit in 128 bits");
  expect_contains(render_error("{{ -(2 ** 126) - 2 ** 126 - 1 }}"), "does not fit in 128 bits");
  expect_contains(parse_error("{{ " + std::string(50, '9') + " }}"), "does not fit in 128 bits");
  // The smallest integer divided by -1 is the one quotient that does not fit.
  expect_contains(render_error("{{ (-(2 ** 126) - 2 ** 126) // -1 }}"), "does not fit");
  EXPECT_EQ(ChatTemplate("{{ (-(2 ** 126) - 2 ** 126) % -1 }}", "template").render({}), "0");
}

TEST(JinjaLimits, StopsMacroRecursion) {
  expect_contains(render_error("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
                  "nested too deeply");
  expect_contains(render_error("{% macro f(n) %}{% call f(n) %}{{ caller() }}{% endcall %}"
                               "{% endmacro %}{{ f(1) }}"),
                  "nested too deeply");
}

TEST(JinjaLimits, RefusesSourceNestedTooDeeply) {
  for (const auto& [open, close] : {std::pair{"(", ")"},
                                    {"[", "]"},
                                    {"{'a':", "}"},
                                    {"f(", ")"},
                                    {"a[", "]"},
                                    {"not ", ""},
                                    {"- ", ""},
                                    {"1 if 1 else ", ""}}) {
    SCOPED_TRACE(open);
    expect_contains(parse_error("{{ " + repeat(open, 5000) + "1" + repeat(close, 5000) + " }}"),
                    "nested too deeply");
  }
  expect_contains(parse_error(repeat("{% if 1 %}", 5000)), "nested too deeply");
  expect_contains(parse_error(repeat("{% for x in y %}", 5000)), "nested too deeply");
  expect_contains(parse_error("{% for " + repeat("(", 5000)), "never closed");
  expect_contains(parse_error("{% for " + repeat("(", 5000) + repeat(")", 5000) + " %}"),
                  "nested too deeply");
  for (const std::string link : {" + 1", ".a", "|trim", "[0]", "()", " and 1"}) {
    SCOPED_TRACE(link);
    expect_contains(parse_error("{{ a" + repeat(link, 5000) + " }}"), "levels deep");
  }
}

TEST(JinjaLimits, AcceptsChainsOfOrdinaryLength) {
  const ChatTemplate sum("{{ 0" + repeat(" + 1", 200) + " }}", "template");
  EXPECT_EQ(sum.render({}), "200");
  const ChatTemplate concat("{{ ''" + repeat(" ~ 'a'", 2000) + " }}", "template");
  EXPECT_EQ(concat.render({}).size(), 2000u);
  const ChatTemplate nested(repeat("{% if 1 %}", 80) + "x" + repeat("{% endif %}", 80), "template");
  EXPECT_EQ(nested.render({}), "x");
}

TEST(JinjaLimits, RefusesInputNestedTooDeeply) {
  json::value deep = 1;
  for (int i = 0; i < 200; ++i) deep = json::array{deep};
  expect_contains(render_error("{{ deep }}", {{"deep", deep}}), "nested deeper than 100 levels");
}

TEST(JinjaLimits, RefusesValuesThatNestThemselves) {
  const std::string begin = "{% set n = namespace(v=[]) %}{% for i in range(1000) %}";
  expect_contains(render_error(begin + "{% set n.v = [n.v] %}{% endfor %}"), "nested deeper");
  expect_contains(render_error(begin + "{% set n.v = {'a': n.v} %}{% endfor %}"), "nested deeper");
  expect_contains(render_error(begin + "{% set n.v = (n.v,) %}{% endfor %}"), "nested deeper");
  expect_contains(render_error("{% set n = namespace() %}{% set n.v = n %}{{ n }}"),
                  "contains itself");
  // Every level holds the one below twice: few values, but 2**60 paths to print or compare.
  const std::string doubled =
      "{% set n = namespace(v=[], w=[]) %}{% for i in range(60) %}"
      "{% set n.v = [n.v, n.v] %}{% set n.w = [n.w, n.w] %}{% endfor %}";
  expect_contains(render_error(doubled + "{{ n.v }}"), "more than");
  expect_contains(render_error(doubled + "{{ n.v|tojson }}"), "more than");
  expect_contains(render_error(doubled + "{{ n.v == n.w }}"), "steps");
}

TEST(JinjaLimits, KeepsNamespacesAndMacrosThatReferToEachOther) {
  const ChatTemplate chat_template(
      "{% set n = namespace() %}{% macro f() %}{{ n.x }}{% endmacro %}{% set n.f = f %}"
      "{% for i in [1, 2] %}{% macro g() %}g{{ i }}{% endmacro %}{% set n.g = g %}{% endfor %}"
      "{% set n.x = 'X' %}{{ n.f() }}{{ n.g() }}",
      "template");
  EXPECT_EQ(chat_template.render({}), "Xg2");
}

TEST(JinjaLimits, SearchesLongTextInLinearTime) {
  // A quadratic search would compare 10**12 bytes.
  const json::object variables = {{"text", std::string(2'000'000, 'a')},
                                  {"word", std::string(1'000'000, 'a') + "b"}};
  ChatInput input;
  input.variables = variables;
  const ChatTemplate chat_template(
      "{{ word in text }} {{ text.find(word) }} {{ text.split(word)|length }} "
      "{{ text.count(word) }} {{ text.replace(word, '')|length }}",
      "template");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(chat_template.render(input), "False -1 1 0 2000000");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

}  // namespace
}  // namespace augur
