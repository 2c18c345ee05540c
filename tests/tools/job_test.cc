#include "tools/score/job.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "configs/config_error.h"
#include "tests/tools/toy_job.h"

namespace augur::score {
namespace {

using testing::HasSubstr;

using JobTest = ToyJobTest;

TEST_F(JobTest, ScoresEveryDocumentAsTheModelDoesAlone) {
  folder_.write("in.jsonl", documents(30));
  options_.token_logprobs = true;
  const JobResult result = run();
  EXPECT_EQ(result.exit_status(), 0);
  EXPECT_EQ(result.totals.documents, 30);

  const std::vector<std::string> rows = output_lines();
  ASSERT_EQ(rows.size(), 30u);
  std::istringstream input(folder_.read("in.jsonl"));
  Totals totals;
  for (const std::string& row_text : rows) {
    std::string line;
    std::getline(input, line);
    const boost::json::value row = boost::json::parse(row_text);
    const boost::json::value document = boost::json::parse(line);
    EXPECT_EQ(row.at("id"), document.at("id"));
    const std::vector<int32_t> ids =
        LetterCodec().encode(std::string(document.at("text").as_string()), true);
    ASSERT_EQ(row.at("num_tokens").as_int64(), static_cast<int64_t>(ids.size()));
    Request request{.id = "x", .prompt_ids = ids, .score_prompt = true};
    request.sampling.max_tokens = 0;
    const RequestResult expected =
        ids.size() > 1 ? test::expected_result(request, 64, {}) : RequestResult{};
    double sum = 0;
    const boost::json::array& logprobs = row.at("token_logprobs").as_array();
    ASSERT_EQ(logprobs.size(), ids.size() - 1);
    for (size_t i = 0; i < logprobs.size(); ++i) {
      EXPECT_EQ(static_cast<float>(logprobs[i].to_number<double>()),
                expected.prompt_logprobs[i].logprob);
      sum += static_cast<double>(expected.prompt_logprobs[i].logprob);
    }
    EXPECT_DOUBLE_EQ(row.at("logprob_sum").to_number<double>(), sum);
    if (ids.size() > 1) {
      EXPECT_DOUBLE_EQ(row.at("perplexity").to_number<double>(),
                       std::exp(-sum / static_cast<double>(ids.size() - 1)));
    }
    totals.logprob_sum += sum;
    totals.scored_tokens += static_cast<int64_t>(ids.size()) - 1;
  }
  EXPECT_EQ(result.totals.scored_tokens, totals.scored_tokens);
  EXPECT_NEAR(result.totals.logprob_sum, totals.logprob_sum, 1e-9);
}

TEST_F(JobTest, UnorderedRowsAreTheSameRows) {
  folder_.write("in.jsonl", documents(40));
  run();
  std::vector<std::string> ordered = output_lines();
  options_.unordered = true;
  options_.overwrite = true;
  run();
  std::vector<std::string> unordered = output_lines();
  std::sort(ordered.begin(), ordered.end());
  std::sort(unordered.begin(), unordered.end());
  EXPECT_EQ(ordered, unordered);
}

TEST_F(JobTest, ScoresOnlyTheCompletion) {
  folder_.write(
      "in.jsonl",
      "{\"id\":1,\"prompt\":\"abc\",\"completion\":\"de\"}\n{\"id\":2,\"text\":\"abcde\"}\n");
  options_.token_logprobs = true;
  run();
  const boost::json::value part = boost::json::parse(output_lines().at(0));
  const boost::json::value whole = boost::json::parse(output_lines().at(1));
  EXPECT_EQ(part.at("num_tokens"), 5);
  EXPECT_EQ(part.at("num_scored_tokens"), 2);
  ASSERT_EQ(part.at("token_logprobs").as_array().size(), 2u);
  EXPECT_EQ(part.at("token_logprobs").at(0), whole.at("token_logprobs").at(2));
  EXPECT_EQ(part.at("token_logprobs").at(1), whole.at("token_logprobs").at(3));
}

TEST_F(JobTest, ListsTheLikeliestTokens) {
  folder_.write("in.jsonl", "{\"id\":1,\"text\":\"abcd\"}\n");
  options_.top_logprobs = 3;
  run();
  const boost::json::value row = boost::json::parse(output_lines().at(0));
  ASSERT_EQ(row.at("top_logprobs").as_array().size(), 3u);
  for (const boost::json::value& likely : row.at("top_logprobs").as_array()) {
    ASSERT_EQ(likely.as_array().size(), 3u);
    EXPECT_GE(likely.at(0).at(1).to_number<double>(), likely.at(1).at(1).to_number<double>());
  }
  EXPECT_FALSE(row.as_object().contains("token_logprobs"));
}

TEST_F(JobTest, BadLinesGoToASideFileAndTheRestIsDone) {
  folder_.write("in.jsonl",
                "{\"id\":\"a\",\"text\":\"abc\"}\n"
                "\n"
                "{\"id\":\"b\",\"text\":\"\"}\n"
                "not json\n"
                "{\"id\":\"c\",\"input_ids\":[1,99]}\n"
                "{\"id\":\"d\",\"text\":\"" +
                    std::string(65, 'a') +
                    "\"}\n"
                    "{\"id\":\"e\",\"messages\":[{\"role\":\"user\"}]}\n"
                    "{\"text\":\"abc\xff\"}\n"
                    "{\"text\":\"abcd\"}");
  const JobResult result = run();
  EXPECT_EQ(result.exit_status(), 2);
  EXPECT_EQ(result.totals.documents, 2);
  EXPECT_EQ(result.totals.bad_lines, 6);
  ASSERT_EQ(output_lines().size(), 2u);
  EXPECT_EQ(boost::json::parse(output_lines()[0]).at("id"), "a");
  EXPECT_EQ(boost::json::parse(output_lines()[1]).at("id"), 9);  // its line number
  EXPECT_THAT(errors(), HasSubstr("{\"line\":3,\"id\":\"b\",\"error\":\"\\\"text\\\" is empty\"}"));
  EXPECT_THAT(errors(), HasSubstr("{\"line\":4,\"error\":\"is not valid JSON"));
  EXPECT_THAT(errors(), HasSubstr("{\"line\":5,\"id\":\"c\",\"error\":\"prompt_ids[1] is 99"));
  EXPECT_THAT(errors(), HasSubstr("\"id\":\"d\",\"error\":\"the prompt has 65 tokens; accepted: at "
                                  "most 64"));
  EXPECT_THAT(errors(), HasSubstr("no chat template"));
  EXPECT_THAT(errors(), HasSubstr("{\"line\":8,\"error\":\"is not valid JSON"));
}

TEST_F(JobTest, WithoutBadLinesThereIsNoSideFile) {
  folder_.write("in.jsonl", documents(3));
  run();
  EXPECT_FALSE(folder_.has("out.jsonl.errors.jsonl"));
}

TEST_F(JobTest, AStrictRunStopsAtABadLineAndGoesOnOnceItIsMended) {
  const std::string good = documents(12);
  const size_t second = good.find('\n') + 1;
  const size_t third = good.find('\n', second) + 1;
  folder_.write("in.jsonl", good.substr(0, second) + "broken\n" + good.substr(third));
  options_.strict = true;
  const JobResult result = run();
  EXPECT_EQ(result.exit_status(), 2);
  ASSERT_TRUE(result.strict_stop.has_value());
  EXPECT_EQ(result.strict_stop->line_number, 2);
  EXPECT_THAT(result.strict_stop->reason, HasSubstr("is not valid JSON"));
  EXPECT_FALSE(folder_.has("out.jsonl.errors.jsonl"));

  folder_.write("in.jsonl", good);
  options_.resume = true;
  EXPECT_EQ(run().exit_status(), 0);
  const std::string mended = output();
  options_.resume = false;
  options_.overwrite = true;
  run();
  EXPECT_EQ(mended, output());
}

TEST_F(JobTest, AnEmptyInputGivesAnEmptyOutput) {
  folder_.write("in.jsonl", "");
  const JobResult result = run();
  EXPECT_EQ(result.exit_status(), 0);
  EXPECT_EQ(result.totals.documents, 0);
  EXPECT_EQ(result.totals.perplexity(), std::nullopt);
  EXPECT_EQ(output(), "");
}

TEST_F(JobTest, GeneratesWhatTheModelDoesAlone) {
  folder_.write("in.jsonl", documents(9));
  options_.mode = Mode::kGenerate;
  sampling_.max_tokens = 12;
  sampling_.temperature = 0.8f;
  sampling_.seed = 3;
  sampling_.logprobs = 2;
  const JobResult result = run();
  ASSERT_EQ(output_lines().size(), 9u);
  std::istringstream input(folder_.read("in.jsonl"));
  int64_t line_number = 0;
  int64_t num_generated = 0;
  for (const std::string& row_text : output_lines()) {
    std::string line;
    std::getline(input, line);
    const boost::json::value row = boost::json::parse(row_text);
    Request request{.id = "x",
                    .prompt_ids = LetterCodec().encode(
                        std::string(boost::json::parse(line).at("text").as_string()), true),
                    .sampling = sampling_};
    request.sampling.seed = seed_of_line(3, ++line_number);
    const Completion expected =
        test::expected_result(request, 64, engine_options_.eos_token_ids).completions.at(0);
    EXPECT_EQ(row.at("text").as_string(), expected.text);
    std::vector<int32_t> ids;
    for (const auto& id : row.at("output_ids").as_array())
      ids.push_back(static_cast<int32_t>(id.as_int64()));
    EXPECT_EQ(ids, expected.output_ids);
    EXPECT_EQ(row.at("finish_reason"),
              expected.finish_reason == FinishReason::kStop ? "stop" : "length");
    EXPECT_EQ(row.at("token_logprobs").as_array().size(), ids.size());
    EXPECT_EQ(row.at("usage").at("completion_tokens"), static_cast<int64_t>(ids.size()));
    num_generated += static_cast<int64_t>(ids.size());
  }
  EXPECT_EQ(result.totals.completion_tokens, num_generated);
  EXPECT_EQ(result.totals.perplexity(), std::nullopt);
}

TEST_F(JobTest, TheSameSeedGivesTheSameOutputInAnyBatch) {
  folder_.write("in.jsonl", documents(9));
  options_.mode = Mode::kGenerate;
  sampling_.max_tokens = 6;
  sampling_.n = 3;
  sampling_.seed = 3;
  run();
  const std::string together = output();
  EXPECT_THAT(together, HasSubstr("\"choices\":[{\"index\":0"));
  options_.overwrite = true;
  limits_.max_seqs = engine_options_.max_batch_size = 1;
  run();
  EXPECT_EQ(output(), together);
}

TEST_F(JobTest, ReadsAndWritesPipesAndDevices) {
  folder_.write("in.jsonl", documents(3));
  options_.output = "/dev/null";
  EXPECT_EQ(run().totals.documents, 3);
  EXPECT_FALSE(std::filesystem::exists("/dev/null.state"));
}

TEST_F(JobTest, AFullDeviceIsAnError) {
  folder_.write("in.jsonl", documents(3));
  options_.output = "/dev/full";
  EXPECT_THROW(run(), OutputError);
}

TEST_F(JobTest, WhatIsWrongWithTheFilesIsKnownBeforeTheModel) {
  const boost::json::object settings = row_settings(options_, EngineConfig(), "toy");
  EXPECT_THROW(Job(options_, settings), ConfigError);  // no input
  folder_.write("in.jsonl", "");
  options_.output = options_.input;
  EXPECT_THROW(Job(options_, settings), ResumeError);
  options_.output = folder_.file("absent/out");
  EXPECT_THROW(Job(options_, settings), OutputError);
  options_.output = "/dev/null";
  options_.resume = true;
  EXPECT_THROW(Job(options_, settings), ResumeError);
}

TEST_F(JobTest, ReportsHowFarItIs) {
  const std::string input = documents(20);
  folder_.write("in.jsonl", input + "\n");
  JobProgress last;
  run([&](const JobProgress& progress) {
    EXPECT_GE(progress.run.input_bytes, last.run.input_bytes);
    last = progress;
  });
  EXPECT_EQ(last.run.documents, 20);
  EXPECT_EQ(last.run.tokens, num_rows_run_);
  EXPECT_EQ(last.run.input_bytes, static_cast<int64_t>(input.size()));
  EXPECT_EQ(last.passed_bytes, 1);  // the blank line
  EXPECT_EQ(last.total_bytes, static_cast<int64_t>(input.size()) + 1);
}

}  // namespace
}  // namespace augur::score
