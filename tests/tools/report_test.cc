#include "tools/score/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <boost/json/parse.hpp>

#include <array>

namespace augur::score {
namespace {

using testing::ElementsAre;

TEST(ProgressText, ShowsShareRateAndTimeLeft) {
  const JobProgress progress{.run = {.documents = 1234, .input_bytes = 250, .tokens = 501000},
                             .passed_bytes = 250,
                             .total_bytes = 1000,
                             .seconds = 10};
  EXPECT_EQ(progress_text(Mode::kScore, progress),
            "scoring [############------------]  50 %  1,234 documents  50.1k tokens/s  0:20 left");
}

TEST(ProgressText, HasNoBarWithoutAKnownTotal) {
  const JobProgress progress{.run = {.documents = 3, .bad_lines = 1, .tokens = 50}, .seconds = 1};
  EXPECT_EQ(progress_text(Mode::kGenerate, progress),
            "generating  3 documents  1 bad lines  50 tokens/s");
}

JobResult scored() {
  return {.totals = {.documents = 10,
                     .bad_lines = 2,
                     .prompt_tokens = 1010,
                     .scored_tokens = 1000,
                     .logprob_sum = -1000},
          .written = {.documents = 4, .prompt_tokens = 500},
          .seconds = 2};
}

TEST(Summary, IsAFewLines) {
  EXPECT_THAT(
      summary_lines(Mode::kScore, scored()),
      ElementsAre("10 documents, 1,010 tokens (1,000 scored)",
                  "2.00 s, 250 tokens/s for the 4 documents of this run", "perplexity 2.7183"));
  const JobResult generated{.totals = {.documents = 1, .prompt_tokens = 3, .completion_tokens = 4},
                            .written = {.documents = 1, .prompt_tokens = 3, .completion_tokens = 4},
                            .seconds = 1};
  EXPECT_THAT(summary_lines(Mode::kGenerate, generated),
              ElementsAre("1 documents, 7 tokens (4 generated)", "1.00 s, 7 tokens/s"));
}

TEST(Summary, SaysHowManyLinesWereBadAndWhere) {
  EXPECT_EQ(bad_lines_text(scored(), "out.errors.jsonl"), "2 bad lines: out.errors.jsonl");
  EXPECT_EQ(bad_lines_text(scored(), ""), "2 bad lines");
  EXPECT_EQ(bad_lines_text({.totals = {.bad_lines = 1}}, ""), "1 bad line");
  EXPECT_EQ(bad_lines_text({}, "out.errors.jsonl"), "");
}

TEST(Summary, AsJsonHasEveryFigure) {
  const boost::json::value summary = boost::json::parse(summary_json(Mode::kScore, scored(), ""));
  EXPECT_EQ(summary.at("documents"), 10);
  EXPECT_EQ(summary.at("documents_of_this_run"), 4);
  EXPECT_EQ(summary.at("bad_lines"), 2);
  EXPECT_EQ(summary.at("tokens"), 1010);
  EXPECT_EQ(summary.at("scored_tokens"), 1000);
  EXPECT_EQ(summary.at("logprob_sum"), -1000);
  EXPECT_EQ(summary.at("tokens_per_second"), 250.0);
  EXPECT_EQ(summary.at("is_complete"), true);
  EXPECT_NEAR(summary.at("perplexity").as_double(), 2.718281828, 1e-9);
  JobResult interrupted = scored();
  interrupted.signal = 2;
  interrupted.totals.scored_tokens = 0;
  const boost::json::value half = boost::json::parse(summary_json(Mode::kScore, interrupted, ""));
  EXPECT_EQ(half.at("is_complete"), false);
  EXPECT_TRUE(half.at("perplexity").is_null());
  EXPECT_FALSE(half.as_object().contains("experts"));
  const boost::json::value with_experts =
      boost::json::parse(summary_json(Mode::kScore, scored(), "{\"expert_uses\":7}"));
  EXPECT_EQ(with_experts.at("experts").at("expert_uses"), 7);
}

TEST(JobResult, TheExitStatusSaysHowItEnded) {
  EXPECT_EQ(JobResult{}.exit_status(), 0);
  EXPECT_EQ(scored().exit_status(), 2);
  EXPECT_EQ((JobResult{.strict_stop = StrictStop{}}).exit_status(), 2);
  EXPECT_EQ((JobResult{.signal = 2}).exit_status(), 130);
  EXPECT_EQ((JobResult{.signal = 15}).exit_status(), 143);
}

TEST(ResumeCommand, CanBePastedIntoAShell) {
  const std::array arguments = {"augur-score",     "--overwrite", "--output",
                                "it's here.jsonl", "--stop",      ""};
  EXPECT_EQ(resume_command(static_cast<int>(arguments.size()), arguments.data()),
            "augur-score --output 'it'\\''s here.jsonl' --stop '' --resume");
}

}  // namespace
}  // namespace augur::score
