#include "tools/serve_bench/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cmath>

#include "configs/config_error.h"
#include "tests/temp_folder.h"
#include "tools/serve_bench/server_url.h"

namespace augur::serve_bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Options parse(std::vector<std::string> arguments) {
  CLI::App app("test");
  Options options;
  const auto finish = add_serve_options(app, options);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  app.parse(arguments);
  finish();
  return options;
}

std::string config_error(const std::vector<std::string>& arguments) {
  return message_of<ConfigError>([&] { parse(arguments); });
}

TEST(ServeCommandLine, HasDefaults) {
  const Options options = parse({});
  EXPECT_EQ(options.url, "http://127.0.0.1:8000");
  EXPECT_EQ(options.num_requests, std::nullopt);
  EXPECT_TRUE(std::isinf(options.rate));
  EXPECT_TRUE(options.is_streamed);
  EXPECT_EQ(options.ignore_eos, std::nullopt);
  EXPECT_THAT(options.percentiles, ElementsAre(50, 90, 99));
  EXPECT_FALSE(options.goodput.is_asked());
}

TEST(ServeCommandLine, ReadsItsOptions) {
  const Options options =
      parse({"--endpoint", "chat", "--requests", "7", "--rate", "2.5", "--burstiness", "0.5",
             "--abort-share", "0.1", "--goodput", "ttft:100,tpot:2.5,e2e:9000", "--percentiles",
             "50,99.9", "--no-ignore-eos", "--flush-cache", "--allow-refusals", "--seed", "9"});
  EXPECT_EQ(options.endpoint, Endpoint::kChat);
  EXPECT_EQ(options.num_requests, 7);
  EXPECT_EQ(options.rate, 2.5);
  EXPECT_EQ(options.burstiness, 0.5);
  EXPECT_EQ(options.abort_share, 0.1);
  EXPECT_EQ(options.goodput.ttft_ms, 100);
  EXPECT_EQ(options.goodput.tpot_ms, 2.5);
  EXPECT_EQ(options.goodput.e2e_ms, 9000);
  EXPECT_THAT(options.percentiles, ElementsAre(50, 99.9));
  EXPECT_EQ(options.ignore_eos, false);
  EXPECT_TRUE(options.flush_cache);
  EXPECT_TRUE(options.allow_refusals);
  EXPECT_EQ(options.seed, 9u);
  EXPECT_FALSE(parse({"--no-stream"}).is_streamed);
  EXPECT_EQ(parse({"--ignore-eos"}).ignore_eos, true);
  EXPECT_EQ(parse({"--rate", "5", "--arrival", "constant"}).arrival, Arrival::kConstant);
}

TEST(ServeCommandLine, KnowsTheNamesOfOtherTools) {
  const Options options =
      parse({"--base-url", "http://h:1", "--num-prompts", "7", "--request-rate", "2.5",
             "--max-concurrency", "3", "--random-input-len", "11", "--random-output-len", "12",
             "--random-range-ratio", "0.25", "--num-warmups", "4", "--metric-percentiles", "99"});
  EXPECT_EQ(options.url, "http://h:1");
  EXPECT_EQ(options.num_requests, 7);
  EXPECT_EQ(options.rate, 2.5);
  EXPECT_EQ(options.concurrency, 3);
  EXPECT_EQ(options.input_tokens, 11);
  EXPECT_EQ(options.output_tokens, 12);
  EXPECT_EQ(options.range_ratio, 0.25);
  EXPECT_EQ(options.num_warmups, 4);
  EXPECT_THAT(options.percentiles, ElementsAre(99));
}

TEST(ServeCommandLine, SaysWhatIsWrong) {
  EXPECT_THAT(config_error({"--rate", "fast"}), HasSubstr("--rate: found 'fast', accepted: inf"));
  EXPECT_THAT(config_error({"--rate", "0"}), HasSubstr("--rate"));
  EXPECT_THAT(config_error({"--rate", "nan"}), HasSubstr("--rate"));
  EXPECT_THAT(config_error({"--goodput", "speed:3"}), HasSubstr("--goodput"));
  EXPECT_THAT(config_error({"--goodput", "ttft"}), HasSubstr("--goodput"));
  EXPECT_THAT(config_error({"--goodput", "ttft:1,ttft:2"}), HasSubstr("--goodput"));
  EXPECT_THAT(config_error({"--percentiles", "50,101"}), HasSubstr("--percentiles"));
  EXPECT_THAT(config_error({"--percentiles", "50,"}), HasSubstr("--percentiles"));
  EXPECT_THAT(config_error({"--duration", "5"}), HasSubstr("needs --rate, --concurrency"));
  EXPECT_THAT(config_error({"--abort-share", "0.5", "--no-stream"}), HasSubstr("--no-stream"));
  EXPECT_THAT(config_error({"--arrival", "constant"}), HasSubstr("need a rate"));
  EXPECT_THAT(config_error({"--dataset", "d", "--shared-prefix", "9"}), HasSubstr("--dataset"));
  EXPECT_THAT(config_error({"--url", "https://h"}), HasSubstr("TLS"));
}

TEST(ServeCommandLine, RefusesNumbersOutOfRange) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"--requests", "0"},
                                                    {"--concurrency", "-1"},
                                                    {"--input-tokens", "0"},
                                                    {"--input-tokens", "99999999999"},
                                                    {"--abort-share", "1.5"},
                                                    {"--endpoint", "embeddings"},
                                                    {"--timeout", "0"},
                                                    {"--range-ratio", "2"}})
    EXPECT_THROW(parse(arguments), CLI::ValidationError) << arguments[0] << " " << arguments[1];
}

TEST(ServerUrl, IsTakenApart) {
  const ServerUrl url = parse_server_url("http://example.org:81/base/v1/");
  EXPECT_EQ(url.host, "example.org");
  EXPECT_EQ(url.port, 81);
  EXPECT_EQ(url.path_prefix, "/base");
  EXPECT_EQ(url.authority(), "example.org:81");
  EXPECT_EQ(parse_server_url("http://h").port, 80);
  EXPECT_EQ(parse_server_url("http://h/v1").path_prefix, "");
  const ServerUrl v6 = parse_server_url("http://[::1]:8000");
  EXPECT_EQ(v6.host, "::1");
  EXPECT_EQ(v6.authority(), "[::1]:8000");
}

TEST(ServerUrl, RefusesOthers) {
  for (const char* url : {"", "h:80", "ftp://h", "http://", "http://:80", "http://h:", "http://h:0",
                          "http://h:65536", "http://h:8x", "http://u@h", "http://h/?q",
                          "http://[::1", "http://h o", "http://h\r\nX: 1", "http://[::1]80"})
    EXPECT_THAT(message_of<ConfigError>([&] { parse_server_url(url); }),
                HasSubstr("accepted: http://HOST"))
        << url;
}

TEST(ApiKeyFile, HoldsAKeyWithOrWithoutName) {
  TempFolder folder;
  EXPECT_EQ(read_api_key(folder.write("a", "secret-key\n")), "secret-key");
  EXPECT_EQ(read_api_key(folder.write("b", "# keys\n\nalice key-of-alice admin\nbob k\n")),
            "key-of-alice");
  for (const char* text : {"", "# none\n", "k\xC3\xA9y\n"})
    EXPECT_FALSE(message_of<ConfigError>([&] { read_api_key(folder.write("c", text)); }).empty());
}

}  // namespace
}  // namespace augur::serve_bench
