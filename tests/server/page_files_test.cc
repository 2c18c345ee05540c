// The files of the web page as the program holds them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>

#include "engine/server/page.h"

namespace augur::server {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;
using testing::StartsWith;

const std::filesystem::path kFolder =
    std::filesystem::path(AUGUR_SOURCE_DIR) / "engine/server/page";

std::filesystem::path source_of(const PageFile& file) {
  if (file.path == "/") return kFolder / "index.html";
  return kFolder / file.path.substr(std::string_view("/page/").size());
}

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(PageFilesTest, HoldTheBytesOfTheSources) {
  ASSERT_FALSE(page_files().empty());
  EXPECT_EQ(page_files().front().path, "/");
  for (const PageFile& file : page_files()) {
    const std::string expected = bytes_of(source_of(file));
    EXPECT_FALSE(expected.empty()) << file.path;
    EXPECT_TRUE(file.body == expected) << file.path;
  }
}

TEST(PageFilesTest, AreAllThatTheFolderHas) {
  std::set<std::filesystem::path> embedded{kFolder / "embed.cmake"};
  for (const PageFile& file : page_files()) embedded.insert(source_of(file));
  for (const auto& entry : std::filesystem::directory_iterator(kFolder))
    EXPECT_TRUE(embedded.contains(entry.path())) << entry.path() << " is not embedded";
}

TEST(PageFilesTest, HaveTheTypesThatBrowsersInsistOn) {
  const std::map<std::string, std::string_view> types = {{".html", "text/html; charset=utf-8"},
                                                         {".css", "text/css; charset=utf-8"},
                                                         {".js", "text/javascript; charset=utf-8"},
                                                         {".svg", "image/svg+xml"}};
  for (const PageFile& file : page_files())
    EXPECT_EQ(file.content_type, types.at(source_of(file).extension())) << file.path;
}

TEST(PageFilesTest, HaveQuotedTagsOfTheirOwn) {
  std::set<std::string_view> tags;
  for (const PageFile& file : page_files()) {
    EXPECT_TRUE(tags.insert(file.etag).second) << file.path;
    EXPECT_EQ(file.etag.size(), 18) << file.etag;
    EXPECT_EQ(file.etag.front(), '"');
    EXPECT_EQ(file.etag.back(), '"');
  }
}

TEST(PageFilesTest, AreFoundByPath) {
  ASSERT_NE(find_page_file("/page/page.js"), nullptr);
  EXPECT_EQ(find_page_file("/page/page.js")->path, "/page/page.js");
  EXPECT_EQ(find_page_file("/page/none.js"), nullptr);
  EXPECT_EQ(find_page_file("/page"), nullptr);
  EXPECT_EQ(find_page_file(""), nullptr);
}

TEST(PageFilesTest, AreServedWithThePolicy) {
  const HttpResponse response = page_response(page_files().front());
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, page_files().front().body);
  EXPECT_THAT(response.headers,
              Contains(Pair("Content-Security-Policy", std::string(kPageSecurityPolicy))));
  EXPECT_THAT(response.headers, Contains(Pair("ETag", std::string(page_files().front().etag))));
  EXPECT_THAT(response.headers, Contains(Pair("X-Content-Type-Options", "nosniff")));
}

// Text of a model must not become markup, and nothing may come from elsewhere.
TEST(PageFilesTest, NameNoOtherOriginAndMakeNoMarkupOfText) {
  EXPECT_THAT(std::string(kPageSecurityPolicy), StartsWith("default-src 'none'"));
  EXPECT_THAT(std::string(kPageSecurityPolicy), Not(HasSubstr("unsafe")));
  for (const PageFile& file : page_files()) {
    for (const std::string_view forbidden :
         {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://"})
      EXPECT_EQ(file.body.find(forbidden), file.body.npos) << file.path << ": " << forbidden;
  }
  const std::string_view page = page_files().front().body;
  for (const std::string_view forbidden : {"<style", " style=", "onclick=", "javascript:"})
    EXPECT_EQ(page.find(forbidden), page.npos) << forbidden;
}

}  // namespace
}  // namespace augur::server
