// Interrupted runs: nothing is lost and nothing is done twice.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>

#include "tests/tools/toy_job.h"

namespace augur::score {
namespace {

using testing::HasSubstr;

class ResumeTest : public ToyJobTest {
 protected:
  /// What an uninterrupted run gives.
  std::string expected_output() {
    options_.overwrite = true;
    options_.resume = false;
    totals_ = run().totals;
    options_.overwrite = false;
    const std::string text = output();
    for (const char* name : {"out.jsonl", "out.jsonl.state", "out.jsonl.errors.jsonl"})
      std::filesystem::remove(folder_.file(name));
    return text;
  }
  /// Runs until `num_steps` steps are done, as SIGINT would.
  JobResult run_interrupted(int num_steps) {
    int steps = 0;
    return run([&](const JobProgress&) {
      if (++steps == num_steps) set_caught_signal(SIGINT);
    });
  }
  std::string error_of_run() {
    try {
      run();
    } catch (const ResumeError& error) {
      return error.what();
    }
    return "";
  }
  /// An ordered run of 30 documents, interrupted in the middle.
  void interrupt_in_the_middle() {
    folder_.write("in.jsonl", documents(30));
    options_.overwrite = true;
    ASSERT_EQ(run_interrupted(8).exit_status(), 130);
    options_.overwrite = false;
    options_.resume = true;
    const auto rows = output_lines().size();
    ASSERT_GT(rows, 0u);
    ASSERT_LT(rows, 30u);
  }
  Totals totals_;  // of the uninterrupted run
};

TEST_F(ResumeTest, AfterAnyNumberOfInterruptionsTheOutputIsTheSame) {
  std::string input = documents(30);
  input.insert(input.find('\n') + 1, "bad line\n\n");
  folder_.write("in.jsonl", input);
  const std::string expected = expected_output();
  const int64_t all_rows = num_rows_run_;
  for (int num_steps = 1; num_steps <= 12; ++num_steps) {
    for (const char* name : {"out.jsonl", "out.jsonl.state", "out.jsonl.errors.jsonl"})
      std::filesystem::remove(folder_.file(name));
    options_.resume = true;
    int64_t documents_written = 0;
    int64_t rows_run = 0;
    JobResult result;
    int num_runs = 0;
    do {
      ASSERT_LT(++num_runs, 100) << "no progress with " << num_steps << " steps a run";
      // The first run is cut short after so many steps, the others have a little more.
      result = run_interrupted(num_steps + num_runs);
      documents_written += result.written.documents;
      rows_run += num_rows_run_;
      ASSERT_TRUE(expected.starts_with(output()));
    } while (result.signal != 0);
    EXPECT_EQ(output(), expected) << num_steps;
    EXPECT_EQ(documents_written, 30);
    EXPECT_EQ(result.totals.documents, 30);
    EXPECT_EQ(result.totals.bad_lines, 1);
    EXPECT_EQ(result.totals.scored_tokens, totals_.scored_tokens);
    EXPECT_NEAR(result.totals.logprob_sum, totals_.logprob_sum, 1e-9);
    EXPECT_EQ(result.exit_status(), 2);
    EXPECT_EQ(errors(), error_row(2, "", "is not valid JSON: syntax error"));
    // Only what was in flight when a run was stopped is computed again: at most a batch each.
    EXPECT_LE(rows_run, all_rows + num_runs * 4 * 23);
  }
}

TEST_F(ResumeTest, UnorderedRunsLoseAndRepeatNothingEither) {
  folder_.write("in.jsonl", documents(30));
  options_.unordered = true;
  options_.resume = true;
  JobResult result;
  do {
    result = run_interrupted(4);
  } while (result.signal != 0);
  std::vector<std::string> rows = output_lines();
  EXPECT_EQ(rows.size(), 30u);
  std::sort(rows.begin(), rows.end());
  EXPECT_EQ(std::unique(rows.begin(), rows.end()), rows.end());
}

TEST_F(ResumeTest, AFinishedRunHasNothingLeftToDo) {
  folder_.write("in.jsonl", documents(5));
  run();
  const std::string before = output();
  options_.resume = true;
  const JobResult result = run();
  EXPECT_EQ(result.written.documents, 0);
  EXPECT_EQ(result.totals.documents, 5);
  EXPECT_EQ(num_rows_run_, 0);
  EXPECT_EQ(output(), before);
}

TEST_F(ResumeTest, LinesAddedToTheInputAreDoneToo) {
  folder_.write("in.jsonl", documents(5));
  run();
  folder_.write("in.jsonl", documents(8));
  options_.resume = true;
  EXPECT_EQ(run().written.documents, 3);
  EXPECT_EQ(output_lines().size(), 8u);
}

TEST_F(ResumeTest, ResumingWhatWasNeverBegunBegins) {
  folder_.write("in.jsonl", documents(5));
  options_.resume = true;
  EXPECT_EQ(run().written.documents, 5);
}

TEST_F(ResumeTest, AnOutputThatIsThereIsNotOverwrittenUnasked) {
  folder_.write("in.jsonl", documents(5));
  folder_.write("out.jsonl", "precious\n");
  EXPECT_THAT(error_of_run(), HasSubstr("holds 9 bytes already; --resume goes on"));
  EXPECT_EQ(output(), "precious\n");
  options_.resume = true;
  EXPECT_THAT(error_of_run(), HasSubstr("cannot be resumed without"));
  EXPECT_EQ(output(), "precious\n");
  options_.resume = false;
  options_.overwrite = true;
  EXPECT_EQ(run().written.documents, 5);
}

TEST_F(ResumeTest, OverwritingForgetsTheErrorsOfBefore) {
  folder_.write("in.jsonl", "bad\n");
  run();
  EXPECT_NE(errors(), "");
  folder_.write("in.jsonl", documents(2));
  options_.overwrite = true;
  run();
  EXPECT_EQ(errors(), "");
}

TEST_F(ResumeTest, AHalfLineAtTheEndIsTakenOff) {
  interrupt_in_the_middle();
  const std::string before = output();
  folder_.write("out.jsonl", before.substr(0, before.size() - 3));
  run();
  const std::string resumed = output();
  EXPECT_EQ(resumed, expected_output());
}

TEST_F(ResumeTest, OtherSettingsAreRefused) {
  interrupt_in_the_middle();
  options_.token_logprobs = true;
  EXPECT_THAT(error_of_run(), HasSubstr("token_logprobs (false, now true)"));
}

TEST_F(ResumeTest, AChangedInputIsRefusedBeforeAnythingIsWritten) {
  interrupt_in_the_middle();
  const std::string before = output();
  std::string input = documents(30);
  input[input.find("text") + 8] ^= 1;  // a letter of the first document
  folder_.write("in.jsonl", input);
  EXPECT_THAT(error_of_run(), HasSubstr("have changed since"));
  folder_.write("in.jsonl", documents(2));
  EXPECT_THAT(error_of_run(), HasSubstr("the input ends at line 2, but line"));
  EXPECT_EQ(output(), before);
}

TEST_F(ResumeTest, LinesNotYetDoneMayChange) {
  interrupt_in_the_middle();
  folder_.write("in.jsonl", documents(30) + documents(1));
  EXPECT_EQ(run().totals.documents, 31);
}

TEST_F(ResumeTest, AFullDiskLosesNothingThatWasWritten) {
  folder_.write("in.jsonl", documents(30));
  const std::string expected = expected_output();
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  int num_failures = 0;
  for (rlim_t size = 100; output() != expected; size += 400) {
    ASSERT_LT(size, 100000u);
    const rlimit limit{size, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    options_.resume = true;
    try {
      run();
    } catch (const OutputError&) {
      ++num_failures;
    }
    setrlimit(RLIMIT_FSIZE, &before);
    ASSERT_TRUE(expected.starts_with(output()));
    ASSERT_TRUE(output().empty() || output().back() == '\n');
  }
  signal(SIGXFSZ, handler);
  EXPECT_GT(num_failures, 2);
}

}  // namespace
}  // namespace augur::score
