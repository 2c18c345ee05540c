#include "engine/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/config_error.h"
#include "engine/model/safetensors_writer.h"
#include "tests/model/safetensors_bytes.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<TensorInfo> parse(std::string_view header, int64_t data_bytes) {
  return parse_safetensors_header(header, /*data_offset=*/1000, data_bytes, "file");
}

std::string refusal_of(std::string_view header, int64_t data_bytes) {
  return message_of<ConfigError>([&] { parse(header, data_bytes); });
}

TEST(SafetensorsHeader, ListsTensorsInTheOrderOfTheirData) {
  const auto tensors = parse(R"({"__metadata__":{"format":"pt"},
      "b":{"dtype":"F32","shape":[2,3],"data_offsets":[6,30]},
      "a":{"data_offsets":[0,6],"shape":[3],"dtype":"BF16"}}   )",
                             30);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[0].dtype, TensorDType::kBF16);
  EXPECT_EQ(tensors[0].offset, 1000);
  EXPECT_EQ(tensors[0].num_bytes, 6);
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_EQ(tensors[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors[1].offset, 1006);
  EXPECT_EQ(describe(tensors[1]), "F32 [2, 3]");
}

TEST(SafetensorsHeader, AcceptsScalarsEmptyTensorsAndSubByteTypes) {
  const auto tensors = parse(R"({"e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},
      "s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
      "q":{"dtype":"F4","shape":[3,2],"data_offsets":[4,7]}})",
                             7);
  EXPECT_EQ(tensors.size(), 3u);
  EXPECT_TRUE(parse("{}", 0).empty());
}

TEST(SafetensorsHeader, NamesItsDTypesAsTheFormatDoes) {
  for (int i = 0; i <= static_cast<int>(TensorDType::kU64); ++i) {
    const auto dtype = static_cast<TensorDType>(i);
    const auto tensors =
        parse(R"({"t":{"dtype":")" + std::string(name_of(dtype)) +
                  R"(","shape":[8],"data_offsets":[0,)" + std::to_string(bits_of(dtype)) + "]}}",
              bits_of(dtype));
    ASSERT_EQ(tensors.size(), 1u);
    EXPECT_EQ(tensors[0].dtype, dtype);
  }
}

struct BadHeader {
  const char* name;
  const char* header;
  int64_t data_bytes;
  const char* complaint;
};

class BadHeaderTest : public ::testing::TestWithParam<BadHeader> {};

TEST_P(BadHeaderTest, IsRefused) {
  EXPECT_THAT(refusal_of(GetParam().header, GetParam().data_bytes),
              AllOf(HasSubstr("file: "), HasSubstr(GetParam().complaint)));
}

INSTANTIATE_TEST_SUITE_P(
    Safetensors,
    BadHeaderTest,
    ::testing::Values(
        BadHeader{"Empty", "", 0, "does not begin with '{'"},
        BadHeader{"LeadingSpace", " {}", 0, "does not begin with '{'"},
        BadHeader{"List", "[]", 0, "does not begin with '{'"},
        BadHeader{"CutOff", R"({"a":{"dtype":"F32")", 4, "is not JSON"},
        BadHeader{"TrailingText", "{} {}", 0, "is not JSON"},
        BadHeader{"BadUtf8", "{\"\xff\xfe\":1}", 0, "is not JSON"},
        BadHeader{"EntryIsNumber", R"({"a":1})", 0, "tensor 'a': its entry is not an object"},
        BadHeader{"EmptyName", R"({"":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})", 1,
                  "a name of 0 bytes"},
        BadHeader{"MetadataNotStrings", R"({"__metadata__":{"a":1}})", 0, "is not a string"},
        BadHeader{"MetadataNotObject", R"({"__metadata__":"a"})", 0, "is not an object"},
        BadHeader{"MetadataTwice", R"({"__metadata__":{},"__metadata__":{}})", 0,
                  "two '__metadata__'"},
        BadHeader{"UnknownDtype", R"({"a":{"dtype":"F33","shape":[],"data_offsets":[0,4]}})", 4,
                  "unknown dtype 'F33'"},
        BadHeader{"DtypeIsNumber", R"({"a":{"dtype":32,"shape":[],"data_offsets":[0,4]}})", 4,
                  "'dtype' is not a string"},
        BadHeader{"NoDtype", R"({"a":{"shape":[],"data_offsets":[0,4]}})", 4, "is missing"},
        BadHeader{"NoShape", R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, "is missing"},
        BadHeader{"NoOffsets", R"({"a":{"dtype":"F32","shape":[]}})", 4, "is missing"},
        BadHeader{"UnknownKey",
                  R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"strides":[]}})", 4,
                  "unknown or repeated key 'strides'"},
        BadHeader{"RepeatedKey",
                  R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"dtype":"F32"}})", 4,
                  "unknown or repeated key 'dtype'"},
        BadHeader{"NegativeDim", R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1,
                  "'shape' holds something else than sizes"},
        BadHeader{"FractionalDim", R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1,
                  "'shape' holds something else than sizes"},
        BadHeader{"HugeDim",
                  R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1,
                  "'shape' holds something else than sizes"},
        BadHeader{"ManyDims",
                  R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],)"
                  R"("data_offsets":[0,1]}})",
                  1, "more than 16 dimensions"},
        BadHeader{"ShapeProductOverflows",
                  R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,1]}})", 1,
                  "overflows 64 bits"},
        BadHeader{"OverflowToZero",
                  R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})",
                  0, "overflows 64 bits"},
        BadHeader{"HalfAByte", R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1,
                  "not a whole number of bytes"},
        BadHeader{"OffsetsBackwards", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}})", 4,
                  "end before they begin"},
        BadHeader{"NegativeOffset", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})", 4,
                  "not a pair of offsets"},
        BadHeader{"OneOffset", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 4,
                  "not a pair of offsets"},
        BadHeader{"ThreeOffsets", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 4,
                  "not a pair of offsets"},
        BadHeader{"PastTheEnd", R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", 4,
                  "the file is truncated or its header is wrong"},
        BadHeader{"BytesDisagree", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
                  "F32 [2] takes 8 bytes, but data_offsets [0, 4] span 4"},
        BadHeader{"NameTwice",
                  R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                  2, "tensor 'a': is listed twice"},
        BadHeader{"NameTwiceByEscape",
                  R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                  2, "tensor 'a': is listed twice"},
        BadHeader{"Overlap",
                  R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                  R"("b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
                  4, "tensor 'b': its data overlaps that of 'a'"},
        BadHeader{"SameData",
                  R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                  R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                  4, "its data overlaps"},
        BadHeader{"Hole",
                  R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
                  4, "tensor 'b': 2 bytes before its data belong to no tensor"},
        BadHeader{"HoleAtStart", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})", 4,
                  "3 bytes before its data"},
        BadHeader{"BytesLeftOver", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 4,
                  "the last 3 bytes of the file belong to no tensor"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(SafetensorsHeader, LimitsNamesAndCounts) {
  const std::string header = R"({"ab":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("cd":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})";
  EXPECT_THAT(message_of<ConfigError>(
                  [&] { parse_safetensors_header(header, 0, 2, "file", {.max_tensors = 1}); }),
              HasSubstr("more than 1 tensors"));
  EXPECT_THAT(message_of<ConfigError>(
                  [&] { parse_safetensors_header(header, 0, 2, "file", {.max_name_bytes = 1}); }),
              HasSubstr("a name of 2 bytes; accepted: 1 to 1"));
}

TEST(SafetensorsHeader, HostileNamesDoNotReachTheTerminal) {
  const std::string message = refusal_of(R"({"\u001b[31m\u0000":1})", 0);
  EXPECT_THAT(message, HasSubstr(R"('\x1b[31m\x00')"));
  EXPECT_LT(refusal_of("{\"" + std::string(5'000, 'x') + "\":1}", 0).size(), 300u);
}

class SafetensorsFileTest : public ::testing::Test {
 protected:
  std::string refusal_of_file(const std::string& content) {
    const File file(folder_.write("f.safetensors", content));
    return message_of<ConfigError>([&] { read_safetensors_header(file); });
  }
  TempFolder folder_;
};

TEST_F(SafetensorsFileTest, RefusesAFileShorterThanItsLength) {
  EXPECT_THAT(refusal_of_file("1234567"), HasSubstr("too short for a safetensors file"));
  EXPECT_THAT(refusal_of_file(""), HasSubstr("too short"));
}

TEST_F(SafetensorsFileTest, RefusesAnOversizedHeaderBeforeAllocatingIt) {
  EXPECT_THAT(refusal_of_file(std::string(8, '\xff') + "{}"),
              HasSubstr("claims 18446744073709551615 bytes; accepted: at most 100000000"));
  EXPECT_THAT(refusal_of_file(length_prefix(99'999'999) + "{}"),
              AllOf(HasSubstr("claims 99999999 bytes"), HasSubstr("the file is truncated")));
}

TEST_F(SafetensorsFileTest, RefusesTruncatedAndLengthenedData) {
  const std::string header = R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})";
  const std::string whole = safetensors_bytes(header, std::string(16, 'd'));
  EXPECT_THAT(refusal_of_file(whole.substr(0, whole.size() - 1)), HasSubstr("truncated"));
  EXPECT_THAT(refusal_of_file(whole + "!"), HasSubstr("the last 1 bytes of the file"));
  EXPECT_THAT(refusal_of_file(whole.substr(0, 20)), HasSubstr("truncated"));
}

TEST_F(SafetensorsFileTest, RecognisesAGitLfsPointer) {
  EXPECT_THAT(refusal_of_file("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
              HasSubstr("Git LFS pointer"));
}

TEST_F(SafetensorsFileTest, EveryTruncationOfAGoodFileIsRefused) {
  SafetensorsWriter writer(folder_ / "good.safetensors",
                           {{"one", TensorDType::kBF16, {4, 2}}, {"two", TensorDType::kF32, {3}}});
  writer.write(0, std::string(16, 'a').data());
  writer.write(1, std::string(12, 'b').data());
  writer.finish();
  const std::string whole = read_whole_file(folder_ / "good.safetensors");
  ASSERT_EQ(read_safetensors_header(File(folder_ / "good.safetensors")).size(), 2u);
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(refusal_of_file(whole.substr(0, length)).empty()) << length;
  }
}

TEST(SafetensorsWriter, WritesWhatTheReaderReads) {
  const TempFolder folder;
  SafetensorsWriter writer(folder / "f.safetensors",
                           {{"first", TensorDType::kBF16, {2, 2}},
                            {"a \"quoted\"\n name", TensorDType::kI32, {}},
                            {"none", TensorDType::kF32, {0, 3}},
                            {"last", TensorDType::kF32, {1}}});
  writer.write(3, "DDDD");
  writer.write(0, 4, "bbbb", 4);
  writer.write(1, "cccc");
  writer.write(0, 0, "aaaa", 4);
  writer.finish();

  const File file(folder / "f.safetensors");
  const auto tensors = read_safetensors_header(file);
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors[0].name, "first");
  EXPECT_EQ(tensors[0].offset % 64, 0);
  EXPECT_EQ(tensors[1].name, "a \"quoted\"\n name");
  std::string data(16, ' ');
  file.read_at(tensors[0].offset, data.data(), 16);
  EXPECT_EQ(data, "aaaabbbbccccDDDD");
  EXPECT_EQ(tensors[3].offset, writer.tensors()[3].offset);
}

TEST(SafetensorsWriter, RequiresEveryByteOnce) {
  const TempFolder folder;
  SafetensorsWriter writer(folder / "f.safetensors", {{"t", TensorDType::kF32, {2}}});
  writer.write(0, 0, "1234", 4);
  EXPECT_THROW(writer.finish(), std::logic_error);
  EXPECT_THROW(writer.write(0, 4, "12345", 5), std::logic_error);
}

TEST(SafetensorsWriter, SaysThatTheDiskIsFull) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  EXPECT_THAT(message_of<ConfigError>([] {
                SafetensorsWriter writer("/dev/full", {{"t", TensorDType::kF32, {2}}});
              }),
              HasSubstr("No space left on device"));
}

}  // namespace
}  // namespace augur
