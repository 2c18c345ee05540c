#include "engine/server/api_error.h"

#include <gtest/gtest.h>

namespace augur::server {
namespace {

TEST(ApiErrorTest, HasTheNestedBody) {
  const ApiError error = bad_request("messages[2].role", "unknown role \"x\"", "unsupported_value");
  EXPECT_EQ(error.status, 400);
  EXPECT_EQ(error_body(error),
            R"({"error":{"message":"unknown role \"x\"","type":"invalid_request_error",)"
            R"("param":"messages[2].role","code":"unsupported_value"}})");
  EXPECT_EQ(error_event(error), "data: " + error_body(error) + "\n\n");
  EXPECT_STREQ(error.what(), "unknown role \"x\"");
}

TEST(ApiErrorTest, LeavesEmptyFieldsNull) {
  EXPECT_EQ(error_body(ApiError(500, "server_error", "", "", "")),
            R"({"error":{"message":"","type":"server_error","param":null,"code":null}})");
}

TEST(ApiErrorTest, IsJsonWhateverTheClientSent) {
  const std::string body =
      error_body(bad_request("\xff", "line\nbreak \x01 \xc3\x28 \xed\xa0\x80"));
  EXPECT_EQ(body,
            "{\"error\":{\"message\":\"line\\nbreak \\u0001 \xef\xbf\xbd( "
            "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\",\"type\":\"invalid_request_error\","
            "\"param\":\"\xef\xbf\xbd\",\"code\":null}}");
  EXPECT_EQ(error_event(bad_request("", "a\n\nb")).find("\n\n"),
            error_event(bad_request("", "a\n\nb")).size() - 2);
}

TEST(ApiErrorTest, BecomesAResponse) {
  ApiError error(429, "rate_limit_error", "slow_down", "", "later");
  error.retry_after_s = 7;
  const HttpResponse response = error_response(error);
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.content_type, "application/json");
  EXPECT_EQ(response.body, error_body(error));
  ASSERT_EQ(response.headers.size(), 1U);
  EXPECT_EQ(response.headers[0].first, "Retry-After");
  EXPECT_EQ(response.headers[0].second, "7");
}

}  // namespace
}  // namespace augur::server
