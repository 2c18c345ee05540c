// The program as people run it: augur-pack with the demo model, in a process of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>

#include "prefetch/packed_file.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kDemoModel = AUGUR_SOURCE_DIR "/models/tiny-glm4-moe";

class PackProgramTest : public ::testing::Test {
 protected:
  int run(const std::string& arguments) {
    const std::string command = std::string(AUGUR_PACK_PROGRAM) + " " + arguments + " >" +
                                folder_.file("stdout") + " 2>" + folder_.file("stderr");
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  int pack(const std::string& more = "") {
    return run(std::string("--model ") + kDemoModel + " --output " + packed_ + " " + more);
  }
  TempFolder folder_;
  const std::string packed_ = folder_.file("packed");
};

TEST_F(PackProgramTest, PacksAndChecksTheDemoModel) {
  ASSERT_EQ(pack(), 0) << folder_.read("stderr");
  EXPECT_THAT(folder_.read("stdout"),
              AllOf(HasSubstr("192 experts of"), HasSubstr("cpu-tiles-16x32-pairs")));
  EXPECT_EQ(PackedFile(packed_).entries().size(), 6u * 32u);
  EXPECT_EQ(run("--check " + packed_), 0) << folder_.read("stderr");
  EXPECT_THAT(folder_.read("stdout"), HasSubstr("every checksum fits"));
}

TEST_F(PackProgramTest, ReplacesAFileOnlyWhenTold) {
  folder_.write("packed", "mine");
  EXPECT_EQ(pack(), 1);
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("exists already; --overwrite replaces it"));
  EXPECT_EQ(folder_.read("packed"), "mine");
  EXPECT_EQ(pack("--overwrite"), 0) << folder_.read("stderr");
  EXPECT_EQ(run("--check " + packed_), 0);
}

TEST_F(PackProgramTest, NamesTheExpertThatIsDamaged) {
  ASSERT_EQ(pack(), 0) << folder_.read("stderr");
  std::string bytes = folder_.read("packed");
  bytes[static_cast<size_t>(PackedFile(packed_).entry({2, 5}).offset) + 9] ^= 4;
  folder_.write("packed", bytes);
  EXPECT_EQ(run("--check " + packed_), 1);
  EXPECT_THAT(folder_.read("stderr"),
              AllOf(HasSubstr("expert 5 of layer 2"), HasSubstr("1 of 192 experts are damaged")));
}

TEST_F(PackProgramTest, RefusesWhatIsNotThere) {
  EXPECT_EQ(run("--check " + folder_.file("absent")), 1);
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("No such file"));
  EXPECT_EQ(run("--model " + folder_.file("absent") + " --output " + packed_), 1);
  EXPECT_FALSE(folder_.has("packed"));
  EXPECT_EQ(run(""), 1);
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("accepted: --model DIR --output FILE"));
}

}  // namespace
}  // namespace augur
