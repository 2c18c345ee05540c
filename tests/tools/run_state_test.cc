// What counts of an output after the program ended in any way.
#include "tools/score/run_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/temp_folder.h"
#include "tools/score/line_reader.h"
#include "tools/score/result_row.h"
#include "tools/score/result_writer.h"

namespace augur::score {
namespace {

const boost::json::object kSettings{{"mode", "score"}, {"top_k", 5}};

FinishedLine row(int64_t line) {
  const EncodedDocument document{.ids = std::vector<int32_t>(static_cast<size_t>(line) + 1, 1)};
  const std::vector<ScoredToken> scored(static_cast<size_t>(line), {.logprob = -1});
  const ResultRow written = score_row(std::to_string(line), document, scored, {});
  return {.sequence = line - 1,
          .line_number = line,
          .line_hash = hash_line(line, "x"),
          .text = written.text,
          .totals = written.totals};
}

FinishedLine bad_row(int64_t line) {
  return {.sequence = line - 1,
          .line_number = line,
          .line_hash = hash_line(line, "x"),
          .is_bad = true,
          .text = error_row(line, "", "bad"),
          .totals = {.bad_lines = 1}};
}

uint64_t hash_sum(const LineSet& lines) {
  uint64_t sum = 0;
  for (int64_t line = 1; line <= lines.max(); ++line)
    if (lines.contains(line)) sum += hash_line(line, "x");
  return sum;
}

class RunStateTest : public testing::Test {
 protected:
  /// Lines 1-3 in a first batch, line 2 bad; 4 and 5 in a second.
  void write_two_batches() {
    ResultFiles files{.output = OutputFile(folder_.file("out")),
                      .errors_path = folder_.file("errors")};
    files.state.emplace(folder_.file("state"));
    files.state->append(header_record(kSettings));
    ResultWriter writer(std::move(files), /*keep_order=*/true);
    writer.add(row(1));
    writer.add(bad_row(2));
    writer.add(row(3));
    writer.flush();
    writer.add(row(4));
    writer.add(row(5));
    writer.finish();
  }
  ResumePoint recover_now(const boost::json::object& settings = kSettings) {
    OutputFile state(folder_.file("state"));
    OutputFile output(folder_.file("out"));
    OutputFile errors(folder_.file("errors"));
    return recover(state, output, &errors, settings);
  }
  std::string error_of(const boost::json::object& settings = kSettings) {
    try {
      recover_now(settings);
    } catch (const ResumeError& error) {
      return error.what();
    }
    return "";
  }
  TempFolder folder_;
};

TEST_F(RunStateTest, KnowsWhatIsDone) {
  write_two_batches();
  const ResumePoint point = recover_now();
  EXPECT_EQ(point.done.to_string(), "1-5");
  EXPECT_TRUE(point.unverified.empty());
  EXPECT_EQ(point.hash_sum, hash_sum(point.done));
  EXPECT_EQ(point.totals, (Totals{.documents = 4,
                                  .bad_lines = 1,
                                  .prompt_tokens = 2 + 4 + 5 + 6,
                                  .scored_tokens = 1 + 3 + 4 + 5,
                                  .logprob_sum = -13}));
}

TEST_F(RunStateTest, WhereverTheOutputEndsItsWholeRowsCountAndNothingElse) {
  write_two_batches();
  const std::string output = folder_.read("out");
  const std::string state = folder_.read("state");
  for (size_t size = 0; size <= output.size(); ++size) {
    folder_.write("out", output.substr(0, size));
    folder_.write("state", state);
    const ResumePoint point = recover_now();
    const std::string kept = folder_.read("out");
    const size_t last_break = output.substr(0, size).rfind('\n');
    ASSERT_EQ(kept, output.substr(0, last_break == std::string::npos ? 0 : last_break + 1));
    const auto num_rows = std::count(kept.begin(), kept.end(), '\n');
    ASSERT_EQ(point.totals.documents, num_rows) << size;
    ASSERT_EQ(point.done.size(), num_rows + 1) << size;  // and line 2, which is in errors
    LineSet verified;
    for (int64_t line = 1; line <= 5; ++line)
      if (point.done.contains(line) && !point.unverified.contains(line)) verified.insert(line);
    ASSERT_EQ(point.hash_sum, hash_sum(verified));
    // A second recovery finds the same.
    const ResumePoint again = recover_now();
    ASSERT_EQ(again.done, point.done);
    ASSERT_EQ(again.totals, point.totals);
    ASSERT_EQ(folder_.read("out"), kept);
  }
}

TEST_F(RunStateTest, WhereverTheJournalEndsTheRestIsDoneAgain) {
  write_two_batches();
  const std::string output = folder_.read("out");
  const std::string state = folder_.read("state");
  for (size_t size = state.find('\n') + 1; size <= state.size(); ++size) {
    folder_.write("out", output);
    folder_.write("state", state.substr(0, size));
    const ResumePoint point = recover_now();
    const std::string kept = folder_.read("out");
    ASSERT_EQ(point.totals.documents, std::count(kept.begin(), kept.end(), '\n')) << size;
    ASSERT_EQ(point.output_bytes, static_cast<int64_t>(kept.size()));
    ASSERT_TRUE(output.starts_with(kept));
  }
}

TEST_F(RunStateTest, ALostErrorsFileIsMadeAgain) {
  write_two_batches();
  folder_.write("errors", "");
  const ResumePoint point = recover_now();
  EXPECT_FALSE(point.done.contains(2));
  EXPECT_EQ(point.totals.bad_lines, 0);
}

TEST_F(RunStateTest, LinesOfZerosAreNoRows) {
  write_two_batches();
  std::string output = folder_.read("out");
  std::fill(output.end() - 20, output.end(), '\0');  // what a crash of the machine may leave
  folder_.write("out", output);
  EXPECT_EQ(recover_now().done.to_string(), "1-4");
}

TEST_F(RunStateTest, HoldsRowsThatWaitForAnEarlierLine) {
  ResultFiles files{.output = OutputFile(folder_.file("out")),
                    .errors_path = folder_.file("errors")};
  files.state.emplace(folder_.file("state"));
  files.state->append(header_record(kSettings));
  {
    ResultWriter writer(std::move(files), /*keep_order=*/true);
    for (const int64_t line : {1, 3, 4}) writer.add(row(line));
    EXPECT_EQ(writer.num_waiting(), 2);
    writer.finish();
  }
  const ResumePoint point = recover_now();
  EXPECT_EQ(point.done.to_string(), "1");
  ASSERT_EQ(point.held.size(), 2u);
  EXPECT_EQ(point.held.at(3).text, row(3).text);
  EXPECT_EQ(point.held.at(3).line_hash, row(3).line_hash);
  EXPECT_EQ(point.held.at(4).totals, row(4).totals);
}

TEST_F(RunStateTest, NamesTheSettingsThatDiffer) {
  write_two_batches();
  EXPECT_THAT(error_of({{"mode", "score"}, {"top_k", 10}}),
              testing::HasSubstr("something else: top_k (5, now 10);"));
  EXPECT_THAT(error_of({{"mode", "score"}, {"top_k", 5}, {"n", 2}}),
              testing::HasSubstr("n (absent, now 2)"));
}

TEST_F(RunStateTest, RefusesAJournalThatIsNone) {
  write_two_batches();
  const std::string state = folder_.read("state");
  const size_t header_end = state.find('\n') + 1;
  const auto error_with = [&](const std::string& text) {
    folder_.write("state", text);
    return error_of();
  };
  EXPECT_THAT(error_with(""), testing::HasSubstr("is empty"));
  EXPECT_THAT(error_with("hello\n"), testing::HasSubstr("state:1: is not a JSON object"));
  EXPECT_THAT(error_with("{}\n"), testing::HasSubstr("is not the state of an augur-score run"));
  EXPECT_THAT(error_with("{\"augur_score_state\":99,\"settings\":{}}\n"),
              testing::HasSubstr("another version"));
  EXPECT_THAT(error_with(state.substr(0, header_end) + "{\"batch\":{}}\n"),
              testing::HasSubstr("state:2: has no good \"rows\""));
  EXPECT_THAT(error_with(state.substr(0, header_end) + "{\"x\":1}\n"),
              testing::HasSubstr("state:2: is no record"));
}

TEST(ResultWriter, UnorderedRowsLeaveAsTheyCome) {
  const TempFolder folder;
  ResultWriter writer({.output = OutputFile(folder.file("out"))}, /*keep_order=*/false);
  FinishedLine third = row(3);
  third.weight = 7;
  EXPECT_EQ(writer.add(third), 7);
  writer.flush();
  EXPECT_EQ(folder.read("out"), row(3).text);
}

TEST(ResultWriter, OrderedRowsWaitForThoseBefore) {
  const TempFolder folder;
  ResultWriter writer({.output = OutputFile(folder.file("out"))}, /*keep_order=*/true);
  FinishedLine second = row(2);
  second.weight = 7;
  EXPECT_EQ(writer.add(second), 0);
  writer.flush();
  EXPECT_EQ(folder.read("out"), "");
  FinishedLine first = row(1);
  first.weight = 5;
  EXPECT_EQ(writer.add(first), 12);
  writer.flush();
  EXPECT_EQ(folder.read("out"), row(1).text + row(2).text);
}

TEST(ResultWriter, FlushesOnceASecond) {
  const TempFolder folder;
  ResultWriter writer({.output = OutputFile(folder.file("out"))}, /*keep_order=*/true);
  writer.add(row(1));
  writer.flush_if_due(ResultWriter::Clock::now());
  EXPECT_EQ(folder.read("out"), "");
  writer.flush_if_due(ResultWriter::Clock::now() + std::chrono::seconds(2));
  EXPECT_EQ(folder.read("out"), row(1).text);
}

}  // namespace
}  // namespace augur::score
