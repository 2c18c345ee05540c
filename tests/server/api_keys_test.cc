#include "engine/server/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "configs/config_error.h"
#include "tests/temp_folder.h"

namespace augur::server {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class ApiKeysTest : public ::testing::Test {
 protected:
  std::filesystem::path file_of(const std::string& content, mode_t mode = 0600) {
    const auto file = folder_.write("keys", content);
    EXPECT_EQ(::chmod(file.c_str(), mode), 0);
    return file;
  }
  ApiKeys keys_of(const std::string& content) { return ApiKeys::from_file(file_of(content)); }
  std::string error_of(const std::string& content, mode_t mode = 0600) {
    return message_of<ConfigError>([&] { ApiKeys::from_file(file_of(content, mode)); });
  }

  TempFolder folder_;
};

TEST_F(ApiKeysTest, ReadsTheThreeFormsOfALine) {
  const ApiKeys keys = keys_of(
      "# who may come in\n"
      "sk-0123456789abcdef\r\n"
      "\n"
      "alice\tsk-alice-0123456789   # until May\n"
      "root sk-#root-0123456789 admin");
  const ApiKey* plain = keys.find("Bearer sk-0123456789abcdef");
  ASSERT_NE(plain, nullptr);
  EXPECT_EQ(plain->name, "key2");
  EXPECT_FALSE(plain->is_admin);
  const ApiKey* named = keys.find("Bearer sk-alice-0123456789");
  ASSERT_NE(named, nullptr);
  EXPECT_EQ(named->name, "alice");
  EXPECT_FALSE(named->is_admin);
  const ApiKey* admin = keys.find("Bearer sk-#root-0123456789");
  ASSERT_NE(admin, nullptr);
  EXPECT_EQ(admin->name, "root");
  EXPECT_TRUE(admin->is_admin);
}

TEST_F(ApiKeysTest, TakesTheSchemeInAnyCase) {
  const ApiKeys keys = keys_of("sk-0123456789abcdef\n");
  for (const char* scheme : {"bearer ", "BEARER ", "Bearer   "}) {
    EXPECT_NE(keys.find(scheme + std::string("sk-0123456789abcdef")), nullptr) << scheme;
  }
}

TEST_F(ApiKeysTest, FindsNothingElse) {
  const std::string key = "sk-0123456789abcdef";
  const ApiKeys keys = keys_of(key + "\n");
  for (const std::string& wrong : std::vector<std::string>{
           "", "Bearer", "Bearer ", key, "Basic " + key, "Bearer" + key, "Bearer " + key + "x",
           "Bearer " + key.substr(1), "Bearer x" + key, "Bearer " + key + " ",
           "Bearer " + key + std::string(1, '\0'), "Bearer sk-0123456789abcdeF",
           "Bearer " + key.substr(0, 18), "Bearer " + std::string(512, 's'),
           "Bearer " + std::string(513, 's'), "Bearer " + key + ", Bearer " + key}) {
    EXPECT_EQ(keys.find(wrong), nullptr) << wrong;
  }
}

TEST_F(ApiKeysTest, TakesKeysOfTheLeastAndTheGreatestLength) {
  const ApiKeys keys = keys_of(std::string(16, 'a') + "\n" + std::string(512, 'a') + "\n");
  EXPECT_EQ(keys.find("Bearer " + std::string(16, 'a'))->name, "key1");
  EXPECT_EQ(keys.find("Bearer " + std::string(512, 'a'))->name, "key2");
  EXPECT_EQ(keys.find("Bearer " + std::string(100, 'a')), nullptr);
}

TEST_F(ApiKeysTest, RefusesFilesThatOthersCanUse) {
  for (const mode_t mode : {0644, 0660, 0604, 0602, 0700, 0641}) {
    EXPECT_THAT(error_of("sk-0123456789abcdef\n", mode), HasSubstr("chmod 600 or 640")) << mode;
  }
  EXPECT_NO_THROW(ApiKeys::from_file(file_of("sk-0123456789abcdef\n", 0640)));
  EXPECT_NO_THROW(ApiKeys::from_file(file_of("sk-0123456789abcdef\n", 0400)));
}

TEST_F(ApiKeysTest, SaysWhichLineIsWrongWithoutShowingTheKey) {
  const std::string good = "sk-0123456789abcdef";
  const auto error_at = [&](const std::string& line) {
    const std::string error = error_of("# first\n" + line + "\n");
    EXPECT_THAT(error, HasSubstr("keys:2: ")) << line;
    EXPECT_THAT(error, Not(HasSubstr("0123456789"))) << line;
    return error;
  };
  EXPECT_THAT(error_at("sk-0123456789"), HasSubstr("13 characters; 16 to 512"));
  EXPECT_THAT(error_at(std::string(513, 'x')), HasSubstr("513 characters"));
  EXPECT_THAT(error_at("sk-0123456789abcd\xc3\xa9"), HasSubstr("outside printable ASCII"));
  EXPECT_THAT(error_at("sk-0123456789ab\x01"), HasSubstr("outside printable ASCII"));
  EXPECT_THAT(error_at("bob " + good + " root"), HasSubstr("third word"));
  EXPECT_THAT(error_at("bob " + good + " admin x"), HasSubstr("expected KEY"));
  EXPECT_THAT(error_at("b/ob " + good), HasSubstr("is a name"));
  EXPECT_THAT(error_at(good + "= bob"), HasSubstr("is a name"));
  EXPECT_THAT(error_at(std::string(65, 'b') + " " + good), HasSubstr("up to 64 letters"));
}

TEST_F(ApiKeysTest, RefusesRepeatedKeysAndNames) {
  EXPECT_THAT(error_of("a sk-0123456789abcdef\nb sk-0123456789abcdef\n"),
              EndsWith("keys:2: the same key as that of a"));
  EXPECT_THAT(error_of("a sk-0123456789abcdef\na sk-0123456789abcdeg\n"),
              EndsWith("keys:2: a second key named a"));
  EXPECT_THAT(error_of("sk-0123456789abcdef\nkey1 sk-0123456789abcdeg\n"),
              EndsWith("a second key named key1"));
}

TEST_F(ApiKeysTest, RefusesListsThatAreEmptyMissingOrTooLong) {
  EXPECT_THAT(error_of("# none\n\n"), HasSubstr("has no key"));
  EXPECT_THAT(error_of(""), HasSubstr("has no key"));
  EXPECT_THAT(message_of<ConfigError>([&] { ApiKeys::from_file(folder_ / "none"); }),
              HasSubstr("No such file"));
  EXPECT_THAT(message_of<ConfigError>([&] { ApiKeys::from_file(folder_.path()); }),
              HasSubstr("plain file"));
  EXPECT_THAT(error_of(std::string((1 << 20) + 1, '\n')), HasSubstr("larger than the 1048576"));
  std::string many;
  for (int i = 0; i <= 1024; ++i) many += "sk-0123456789-" + std::to_string(1000 + i) + "\n";
  EXPECT_THAT(error_of(many), HasSubstr("keys:1025: more than 1024 keys"));
}

}  // namespace
}  // namespace augur::server
