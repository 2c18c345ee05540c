// Files beside the output are named sensibly, or the run is refused before it begins.
#include "tools/score/side_files.h"

#include <gmock/gmock.h>

#include "configs/config_error.h"
#include "tests/temp_folder.h"
#include "tools/score/output_file.h"

namespace augur::score {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class SideFilesTest : public testing::Test {
 protected:
  SideFilesTest() {
    options_.input = folder_.write("in.jsonl", "{}\n").string();
    options_.output = folder_.file("out.jsonl");
  }
  std::string refusal() const {
    return message_of<ConfigError>([&] { check_side_files(options_); });
  }
  TempFolder folder_;
  Options options_;
};

TEST_F(SideFilesTest, TheEndingSaysWhichReportIsWanted) {
  EXPECT_EQ(report_paths("").json + report_paths("").svg, "");
  EXPECT_EQ(report_paths("a.json").json, "a.json");
  EXPECT_EQ(report_paths("a.json").svg, "");
  EXPECT_EQ(report_paths("a.svg").json, "");
  EXPECT_EQ(report_paths("a.svg").svg, "a.svg");
  EXPECT_EQ(report_paths("a.b").json, "a.b.json");
  EXPECT_EQ(report_paths("a.b").svg, "a.b.svg");
  EXPECT_EQ(report_paths("not there/").json, "not there/experts.json");
  EXPECT_EQ(report_paths(folder_.path().string()).svg, folder_.file("experts.svg"));
}

TEST_F(SideFilesTest, AcceptsFilesOfTheirOwn) {
  options_.summary = folder_.file("summary.json");
  options_.expert_report = folder_.file("experts");
  options_.record_routing = folder_.file("routing.csv");
  EXPECT_NO_THROW(check_side_files(options_));
  options_.summary = options_.record_routing = "/dev/null";
  EXPECT_NO_THROW(check_side_files(options_)) << "a device takes both";
}

TEST_F(SideFilesTest, RefusesToWriteOverAnotherFileOfTheRun) {
  options_.record_routing = options_.input;
  EXPECT_THAT(refusal(), AllOf(HasSubstr("--record-routing"), HasSubstr("--input")));
  options_.record_routing = folder_.file("./out.jsonl");
  EXPECT_THAT(refusal(), HasSubstr("--output"));
  options_.record_routing = folder_.file("out.jsonl.state");
  EXPECT_THAT(refusal(), HasSubstr("journal"));
  options_.record_routing = options_.summary = folder_.file("both");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("--record-routing"), HasSubstr("--summary")));
  options_.record_routing.clear();
  options_.output = folder_.file("a.json");
  options_.expert_report = folder_.file("a");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("--expert-report"), HasSubstr("--output")));
}

TEST_F(SideFilesTest, SeesThroughLinks) {
  std::filesystem::create_hard_link(options_.input, folder_ / "link");
  options_.summary = folder_.file("link");
  EXPECT_THAT(refusal(), HasSubstr("--input"));
}

TEST_F(SideFilesTest, RefusesAPlaceWhereNoFileCanBe) {
  options_.record_routing = folder_.file("absent/routing.csv");
  EXPECT_THAT(refusal(), HasSubstr("absent is not there"));
  options_.record_routing = folder_.path().string();
  EXPECT_THAT(refusal(), HasSubstr("is a folder"));
  options_.record_routing = "-";
  EXPECT_THAT(refusal(), HasSubstr("accepted: the name of a file"));
}

TEST_F(SideFilesTest, ReplacesAFileAndTellsWhenItCannot) {
  const std::string path = folder_.write("old", "a long old text").string();
  write_side_file(path, "the report", "new");
  EXPECT_EQ(folder_.read("old"), "new");
  EXPECT_EQ(message_of<OutputError>([&] { write_side_file("/dev/full", "the report", "new"); }),
            "/dev/full: the report cannot be written: No space left on device");
}

}  // namespace
}  // namespace augur::score
