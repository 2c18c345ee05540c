// configs/default.yaml and docs/configuration.md say what the structs say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "configs/config_writer.h"
#include "configs/yaml_reader.h"

namespace augur {
namespace {

const std::string kRoot = AUGUR_SOURCE_DIR;

std::string read_text(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  EXPECT_TRUE(stream.good()) << file;
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

TEST(DefaultYaml, EqualsTheDefaults) {
  EffectiveConfig read;
  read_yaml_file(kRoot + "/configs/default.yaml", read);
  read.sources.clear();
  EXPECT_EQ(write_config(read), write_config(EffectiveConfig()));
}

TEST(DefaultYaml, NamesEveryKey) {
  EffectiveConfig read;
  read_yaml_file(kRoot + "/configs/default.yaml", read);
  for (const ConfigField& field : list_fields(read.config).fields)
    EXPECT_TRUE(read.sources.contains(field.path)) << field.path;
}

TEST(DefaultYaml, HasACommentAboveEveryKey) {
  std::istringstream lines(read_text(kRoot + "/configs/default.yaml"));
  std::string line;
  bool follows_comment = false;
  while (std::getline(lines, line)) {
    const size_t first = line.find_first_not_of(' ');
    const bool is_comment = first != std::string::npos && line[first] == '#';
    if (first != std::string::npos && !is_comment) {
      EXPECT_TRUE(follows_comment) << line;
    }
    follows_comment = is_comment;
  }
}

void expect_page_holds(const std::string& page, const std::string& part) {
  EXPECT_THAT(read_text(kRoot + page), testing::HasSubstr(part)) << "put this in " << page << ":\n"
                                                                 << part;
}

TEST(ConfigurationPage, HoldsTheTablesOfTheStructs) {
  expect_page_holds("/docs/configuration.md", config_reference_markdown(/*of_server=*/false));
}

TEST(ServerPage, HoldsTheTablesOfTheStructs) {
  expect_page_holds("/docs/server.md", config_reference_markdown(/*of_server=*/true));
}

}  // namespace
}  // namespace augur
