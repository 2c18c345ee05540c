#include "tools/score/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "configs/config_error.h"

namespace augur::score {
namespace {

struct Parsed {
  CommandLine command;
  std::string out;
  std::string err;
};

Parsed parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "augur-score");
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Parsed parsed;
  parsed.command = parse_command_line(static_cast<int>(arguments.size()), arguments.data());
  parsed.out = testing::internal::GetCapturedStdout();
  parsed.err = testing::internal::GetCapturedStderr();
  return parsed;
}

TEST(CommandLine, ReadsTheOptionsOfAScoringRun) {
  const CommandLine command = parse({"--model",
                                     "/m",
                                     "--input",
                                     "a",
                                     "--output",
                                     "b",
                                     "--token-logprobs",
                                     "--top-logprobs",
                                     "5",
                                     "--max-tokens-per-document",
                                     "1024",
                                     "--unordered",
                                     "--strict",
                                     "--set",
                                     "execution.num_threads=2",
                                     "--set",
                                     "kv_cache.bytes=1GiB",
                                     "--expert-report",
                                     "e",
                                     "--record-routing",
                                     "r"})
                                  .command;
  ASSERT_EQ(command.exit_status, std::nullopt);
  const Options& options = command.options;
  EXPECT_EQ(options.mode, Mode::kScore);
  EXPECT_EQ(options.input, "a");
  EXPECT_EQ(options.output, "b");
  EXPECT_EQ(options.expert_report, "e");
  EXPECT_EQ(options.record_routing, "r");
  EXPECT_TRUE(options.token_logprobs);
  EXPECT_EQ(options.top_logprobs, 5);
  EXPECT_EQ(options.max_tokens_per_document, 1024);
  EXPECT_TRUE(options.unordered);
  EXPECT_TRUE(options.strict);
  ASSERT_EQ(options.overrides.size(), 3u);
  EXPECT_EQ(options.overrides[1].path, "kv_cache.bytes");
  EXPECT_EQ(options.overrides[2].path, "model.path");
  EXPECT_EQ(options.overrides[2].option, "--model /m");
}

TEST(CommandLine, ReadsTheOptionsOfAGeneratingRun) {
  const CommandLine command = parse({"-i",
                                     "a",
                                     "-o",
                                     "b",
                                     "--mode",
                                     "generate",
                                     "--max-tokens",
                                     "9",
                                     "--temperature",
                                     "0.5",
                                     "--top-k",
                                     "3",
                                     "--stop",
                                     "a",
                                     "--stop",
                                     "b c",
                                     "--stop-token-id",
                                     "7",
                                     "--logit-bias",
                                     "42=-1.5",
                                     "--logit-bias",
                                     "43=-inf",
                                     "--ignore-eos",
                                     "--n",
                                     "2",
                                     "--logprobs",
                                     "0",
                                     "--seed",
                                     "18446744073709551615"})
                                  .command;
  ASSERT_EQ(command.exit_status, std::nullopt);
  const SamplingFlags& flags = command.options.sampling;
  EXPECT_EQ(command.options.mode, Mode::kGenerate);
  EXPECT_EQ(flags.max_tokens, 9);
  EXPECT_EQ(flags.temperature, 0.5f);
  EXPECT_EQ(flags.top_k, 3);
  EXPECT_EQ(flags.top_p, std::nullopt);
  EXPECT_EQ(flags.stop, (std::vector<std::string>{"a", "b c"}));
  EXPECT_EQ(flags.stop_token_ids, (std::vector<int32_t>{7}));
  ASSERT_EQ(flags.logit_bias.size(), 2u);
  EXPECT_EQ(flags.logit_bias[0].token_id, 42);
  EXPECT_EQ(flags.logit_bias[0].bias, -1.5f);
  EXPECT_EQ(flags.logit_bias[1].bias, -INFINITY);
  EXPECT_TRUE(flags.ignore_eos);
  EXPECT_EQ(flags.n, 2);
  EXPECT_EQ(flags.logprobs, 0);
  EXPECT_EQ(flags.seed, UINT64_MAX);
}

TEST(CommandLine, HelpShowsEveryKeyAndTheExitStatus) {
  const Parsed parsed = parse({"--help"});
  EXPECT_EQ(parsed.command.exit_status, 0);
  EXPECT_THAT(parsed.out, testing::HasSubstr("--max-tokens-per-document N"));
  EXPECT_THAT(parsed.out, testing::HasSubstr("kv_cache.block_size"));
  EXPECT_THAT(parsed.out, testing::HasSubstr("Exit status"));
  EXPECT_EQ(parse({"--version"}).command.exit_status, 0);
}

TEST(CommandLine, PrintConfigNeedsNoFiles) {
  EXPECT_EQ(parse({"--print-config"}).command.exit_status, std::nullopt);
}

class WrongCommandLineTest : public testing::TestWithParam<std::vector<const char*>> {};

TEST_P(WrongCommandLineTest, EndsWithStatusOneAndSaysWhy) {
  std::vector<const char*> arguments = {"--input", "a", "--output", "b"};
  arguments.insert(arguments.end(), GetParam().begin(), GetParam().end());
  const Parsed parsed = parse(arguments);
  EXPECT_EQ(parsed.command.exit_status, 1);
  EXPECT_THAT(parsed.err, testing::HasSubstr(GetParam().front()));
}

INSTANTIATE_TEST_SUITE_P(
    Options,
    WrongCommandLineTest,
    testing::Values(std::vector<const char*>{"--no-such-option"},
                    std::vector<const char*>{"--mode", "sing"},
                    std::vector<const char*>{"--top-logprobs", "0"},
                    std::vector<const char*>{"--top-logprobs", "many"},
                    std::vector<const char*>{"--max-tokens-per-document", "-3"},
                    std::vector<const char*>{"--temperature", "1"},
                    std::vector<const char*>{"--stop", "x"},
                    std::vector<const char*>{"--max-tokens", "5"},
                    std::vector<const char*>{"--token-logprobs", "--mode", "generate"},
                    std::vector<const char*>{"--logit-bias", "x=1", "--mode", "generate"},
                    std::vector<const char*>{"--logit-bias", "3", "--mode", "generate"},
                    std::vector<const char*>{"--logit-bias", "3=nan", "--mode", "generate"},
                    std::vector<const char*>{"--n", "0", "--mode", "generate"},
                    std::vector<const char*>{"--resume", "--overwrite"}));

TEST(CommandLine, RefusesARunWithoutFiles) {
  EXPECT_THAT(parse({"--output", "b"}).err, testing::HasSubstr("--input"));
  EXPECT_THAT(parse({"--input", "b"}).err, testing::HasSubstr("--output"));
}

TEST(CommandLine, RefusesASettingWithoutAValue) {
  EXPECT_THROW(
      parse_command_line(7, std::array{"augur-score", "-i", "a", "-o", "b", "--set", "x"}.data()),
      ConfigError);
}

}  // namespace
}  // namespace augur::score
