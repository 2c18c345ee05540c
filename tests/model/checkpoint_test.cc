#include "engine/model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/config_error.h"
#include "tests/model/safetensors_bytes.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A file that holds the named tensors, one byte each.
std::string bytes_with(const std::vector<std::string>& names) {
  std::string header = "{";
  for (size_t i = 0; i < names.size(); ++i) {
    header += (i > 0 ? ",\"" : "\"") + names[i] +
              R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + std::to_string(i) + "," +
              std::to_string(i + 1) + "]}";
  }
  return safetensors_bytes(header + "}", std::string(names.size(), 'x'));
}

class CheckpointTest : public ::testing::Test {
 protected:
  void write_index(const std::string& weight_map) {
    folder_.write("model.safetensors.index.json",
                  R"({"metadata":{"total_size":3},"weight_map":)" + weight_map + "}");
  }
  std::string refusal() {
    return message_of<ConfigError>([&] { Checkpoint::open(folder_.path()); });
  }
  TempFolder folder_;
};

TEST_F(CheckpointTest, OpensASingleFile) {
  folder_.write("model.safetensors", bytes_with({"b", "a"}));
  const Checkpoint checkpoint = Checkpoint::open(folder_.path());
  ASSERT_NE(checkpoint.find("a"), nullptr);
  EXPECT_EQ(checkpoint.find("a")->name, "a");
  EXPECT_EQ(checkpoint.find("c"), nullptr);
  EXPECT_EQ(checkpoint.find(""), nullptr);
  EXPECT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_EQ(checkpoint.tensors()[0].name, "a");
  EXPECT_EQ(checkpoint.where(*checkpoint.find("a")), "model.safetensors: tensor 'a'");
}

TEST_F(CheckpointTest, OpensShards) {
  folder_.write("x.safetensors", bytes_with({"a", "c"}));
  folder_.write("y.safetensors", bytes_with({"b", "unlisted"}));
  write_index(R"({"a":"x.safetensors","b":"y.safetensors","c":"x.safetensors"})");
  const Checkpoint checkpoint = Checkpoint::open(folder_.path());
  EXPECT_EQ(checkpoint.files().size(), 2u);
  EXPECT_EQ(checkpoint.where(*checkpoint.find("b")), "y.safetensors: tensor 'b'");
  EXPECT_EQ(checkpoint.where(*checkpoint.find("c")), "x.safetensors: tensor 'c'");
  EXPECT_EQ(checkpoint.find("unlisted"), nullptr);
}

TEST_F(CheckpointTest, OpensAFolderOfLinks) {
  // As in a Hugging Face cache: the names are links to files elsewhere.
  fs::create_directory(folder_ / "blobs");
  fs::create_directory(folder_ / "snapshot");
  folder_.write("blobs/0001", bytes_with({"a"}));
  folder_.write("blobs/0002", R"({"weight_map":{"a":"m.safetensors"}})");
  fs::create_symlink("../blobs/0001", folder_ / "snapshot/m.safetensors");
  fs::create_symlink("../blobs/0002", folder_ / "snapshot/model.safetensors.index.json");
  EXPECT_NE(Checkpoint::open(folder_ / "snapshot").find("a"), nullptr);
}

TEST_F(CheckpointTest, SaysWhatIsWrongWithTheFolder) {
  EXPECT_THAT(message_of<ConfigError>([&] { Checkpoint::open(folder_ / "absent"); }),
              HasSubstr("there is no such folder"));
  const fs::path file = folder_.write("file", "");
  EXPECT_THAT(message_of<ConfigError>([&] { Checkpoint::open(file); }),
              HasSubstr("is not a folder"));
  EXPECT_THAT(refusal(), AllOf(HasSubstr(folder_.path().string()), HasSubstr("holds no weights"),
                               HasSubstr("model.safetensors.index.json")));
}

TEST_F(CheckpointTest, NamesAMissingShard) {
  folder_.write("x.safetensors", bytes_with({"a"}));
  write_index(R"({"a":"x.safetensors","b":"y.safetensors"})");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("y.safetensors: is missing"), HasSubstr("'b'")));
}

TEST_F(CheckpointTest, NamesATensorThatIsNotWhereTheIndexSays) {
  folder_.write("x.safetensors", bytes_with({"a"}));
  write_index(R"({"a":"x.safetensors","b":"x.safetensors"})");
  EXPECT_THAT(refusal(), HasSubstr("x.safetensors: has no tensor 'b'"));
}

TEST_F(CheckpointTest, NamesAShardThatIsDamaged) {
  folder_.write("x.safetensors", bytes_with({"a"}).substr(0, 30));
  write_index(R"({"a":"x.safetensors"})");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("x.safetensors"), HasSubstr("truncated")));
}

TEST_F(CheckpointTest, RefusesNamesThatLeadOutOfTheFolder) {
  fs::create_directory(folder_ / "sub");
  folder_.write("sub/x.safetensors", bytes_with({"a"}));
  const fs::path inside = folder_.write("x.safetensors", bytes_with({"a"}));
  for (const std::string& shard :
       {std::string("../x.safetensors"), inside.string(), std::string("sub/x.safetensors"),
        std::string("./x.safetensors"), std::string(".."), std::string(),
        std::string("x.safetensors/"), std::string("config.json"),
        std::string(R"(x.safetensors\u0000.safetensors)"), std::string(R"(a\\b.safetensors)")}) {
    write_index(R"({"a":")" + shard + R"("})");
    EXPECT_THAT(refusal(), HasSubstr("accepted: the plain name")) << shard;
  }
}

TEST_F(CheckpointTest, RefusesABrokenIndex) {
  folder_.write("x.safetensors", bytes_with({"a"}));
  folder_.write("model.safetensors.index.json", R"({"weight_map": {"a")");
  EXPECT_THAT(refusal(), HasSubstr("is not JSON"));
  folder_.write("model.safetensors.index.json", R"({"metadata": {}})");
  EXPECT_THAT(refusal(), HasSubstr("has no object 'weight_map'"));
  folder_.write("model.safetensors.index.json", R"([])");
  EXPECT_THAT(refusal(), HasSubstr("has no object 'weight_map'"));
  write_index("{}");
  EXPECT_THAT(refusal(), HasSubstr("weight_map is empty"));
  write_index(R"({"a": 1})");
  EXPECT_THAT(refusal(), HasSubstr("the file of 'a' is not a string"));
  write_index(R"({"a": "x.safetensors", "a": "x.safetensors"})");
  EXPECT_THAT(refusal(), HasSubstr("lists 'a' twice"));
}

TEST_F(CheckpointTest, RefusesAShardThatIsAFolder) {
  fs::create_directory(folder_ / "x.safetensors");
  write_index(R"({"a":"x.safetensors"})");
  EXPECT_THAT(refusal(), HasSubstr("is not a regular file"));
}

}  // namespace
}  // namespace augur
