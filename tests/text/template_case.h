// The committed cases of what Jinja2 makes of templates, and comparing with ours.
#pragma once

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <ctime>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>

#include "configs/config_error.h"
#include "engine/text/chat_template.h"

namespace augur {

inline std::string read_data(const std::string& name) {
  const std::string path = std::string(AUGUR_SOURCE_DIR) + "/tests/text/data/" + name;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline boost::json::object read_json(const std::string& name) {
  boost::json::parse_options options;
  options.max_depth = 64;
  return boost::json::parse(read_data(name), {}, options).as_object();
}

/// The moment that the committed cases were rendered at: 2024-07-26 13:05:09.
inline std::tm case_time() {
  std::tm time{};
  time.tm_year = 124;
  time.tm_mon = 6;
  time.tm_mday = 26;
  time.tm_hour = 13;
  time.tm_min = 5;
  time.tm_sec = 9;
  return time;
}

/// Renders and compares with {"output"} or {"error", "message"}.
inline void expect_case(const std::string& source,
                        const boost::json::object& variables,
                        const ChatInput& input,
                        const boost::json::object& expected) {
  const bool parses = !expected.contains("error") || expected.at("error").as_string() != "parse";
  std::optional<ChatTemplate> chat_template;
  try {
    chat_template.emplace(source, "template", variables);
  } catch (const ConfigError& error) {
    EXPECT_FALSE(parses) << "refused: " << error.what();
    EXPECT_TRUE(std::string(error.what()).starts_with("template:")) << error.what();
    return;
  }
  ASSERT_TRUE(parses) << "accepted what Jinja2 refuses";
  try {
    const std::string output = chat_template->render(input);
    ASSERT_TRUE(expected.contains("output")) << "rendered what Jinja2 refuses: " << output;
    EXPECT_EQ(output, expected.at("output").as_string());
  } catch (const TemplateError& error) {
    ASSERT_TRUE(expected.contains("error")) << "refused: " << error.what();
    if (expected.contains("message")) {
      EXPECT_EQ(error.message(), expected.at("message").as_string());
    }
    EXPECT_GT(error.line(), 0);
  }
}

}  // namespace augur
