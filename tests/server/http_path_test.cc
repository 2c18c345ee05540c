#include "engine/server/http_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "engine/server/api_error.h"

namespace augur::server {
namespace {

using ::testing::HasSubstr;

std::string path_of(std::string_view target) {
  return normalise_target(target).path;
}

std::string refusal_of(std::string_view target) {
  try {
    return "accepted as " + normalise_target(target).path;
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.code, "invalid_target");
    return error.message;
  }
}

TEST(HttpPath, HasOneSpelling) {
  for (const char* target :
       {"/v1/models", "/v1/models/", "//v1//models", "/./v1/./models/.", "/v1/x/../models",
        "/v1/%6dodels", "/%76%31/models", "/v1/x/%2e%2e/models", "/%2e/v1/models", "/v1/%2E/models",
        "/v1/x/.%2e/models", "/v1/x/y/../../models/", "http://host/v1/models",
        "HTTP://host:8000//v1/models", "/health/../v1/models", "/v1/models?",
        "/v1/models/?a=/../b"}) {
    EXPECT_EQ(path_of(target), "/v1/models") << target;
  }
}

TEST(HttpPath, OfTheRoot) {
  for (const char* target : {"/", "//", "/.", "/a/..", "http://h", "http://h/", "http://h?a"}) {
    EXPECT_EQ(path_of(target), "/") << target;
  }
}

TEST(HttpPath, IsDecodedOnce) {
  EXPECT_EQ(path_of("/%252e%252e/a"), "/%2e%2e/a");
  EXPECT_EQ(path_of("/%252f"), "/%2f");
  EXPECT_EQ(path_of("/a%3fb%23c%20d"), "/a?b#c d");
  EXPECT_EQ(path_of("/v1/models/caf%C3%A9"), "/v1/models/caf\xc3\xa9");
  EXPECT_EQ(path_of("/..."), "/...");
  EXPECT_EQ(path_of("/.../..a"), "/.../..a");
}

TEST(HttpPath, KeepsTheQueryAsItWas) {
  EXPECT_EQ(normalise_target("/a?x=%2f..&y=?").query, "x=%2f..&y=?");
  EXPECT_EQ(normalise_target("http://h?x").query, "x");
  EXPECT_EQ(normalise_target("/a").query, "");
}

TEST(HttpPath, CanBeAnAsterisk) {
  EXPECT_EQ(path_of("*"), "*");
}

TEST(HttpPath, RefusesWhatOthersCouldReadOtherwise) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "has to begin"},
      {"v1/models", "has to begin"},
      {"host:443", "has to begin"},
      {"**", "has to begin"},
      {"https://h/a", "has to begin"},
      {"ftp://h/a", "has to begin"},
      {"http:/a", "has to begin"},
      {"http://", "has to begin"},
      {"http:///a", "no plain host"},
      {"http://user@h/a", "no plain host"},
      {"http://h\\@x/a", "no plain host"},
      {"/a%2fb", "encoded slash"},
      {"/a%2Fb", "encoded slash"},
      {"/a%5cb", "backslash"},
      {"/a\\b", "backslash"},
      {"/a%00", "control"},
      {"/a%0d%0a", "control"},
      {"/a%7f", "control"},
      {"/a%", "two hexadecimal"},
      {"/a%4", "two hexadecimal"},
      {"/a%4g", "two hexadecimal"},
      {"/a%%41", "two hexadecimal"},
      {"/a%u002f", "two hexadecimal"},
      {"/..", "above the root"},
      {"/a/../..", "above the root"},
      {"/%2e%2e/a", "above the root"},
      {"/a#b", "fragment"},
      {"/a?b#c", "fragment"},
      {"/a b", "0x20"},
      {"/a?b c", "0x20"},
      {"/caf\xc3\xa9", "0xc3"},
      {std::string("/a\0b", 4), "0x00"},
      {"/a\tb", "0x09"},
      {"/%c3", "not UTF-8"},
      {"/%c0%af", "not UTF-8"},
      {"/%ed%a0%80", "not UTF-8"},
  };
  for (const auto& [target, reason] : cases) {
    EXPECT_THAT(refusal_of(target), HasSubstr(reason)) << target;
  }
}

}  // namespace
}  // namespace augur::server
