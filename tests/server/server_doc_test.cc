// docs/server.md says what the program says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "engine/server/server_metrics.h"
#include "engine/server/service.h"

namespace augur::server {
namespace {

std::string read_page() {
  std::ifstream stream(AUGUR_SOURCE_DIR "/docs/server.md", std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

void expect_page_holds(const std::string& part) {
  EXPECT_THAT(read_page(), testing::HasSubstr(part)) << "put this in docs/server.md:\n" << part;
}

TEST(ServerDoc, ListsEveryRoute) {
  std::string table = "| path | methods | what it gives |\n| --- | --- | --- |\n";
  for (const RouteInfo& route : list_routes()) {
    table += "| `" + std::string(route.path) + "` | " + std::string(route.methods) +
             (route.is_admin ? " (admin)" : "") + " | " + std::string(route.help) + " |\n";
  }
  expect_page_holds(table);
}

TEST(ServerDoc, ListsEveryMetric) {
  ServerMetrics metrics({.model_name = "m"});
  metrics.set_startup_s("weights", 1);
  metrics.set_config_info({{"version", "1"}});
  metrics.count_response(200);
  MetricsSnapshot snapshot;
  snapshot.cpu_s = {{"engine", 1.0}};
  std::istringstream lines(metrics.text(snapshot));
  std::string table = "| metric | kind | meaning |\n| --- | --- | --- |\n";
  std::string name;
  std::string help;
  std::string word;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string kind;
    words >> word >> kind;
    if (word != "#") continue;
    words >> name;
    std::string rest;
    std::getline(words >> std::ws, rest);
    if (kind == "HELP") help = rest;
    if (kind == "TYPE") table += "| `" + name + "` | " + rest + " | " + help + " |\n";
  }
  expect_page_holds(table);
}

}  // namespace
}  // namespace augur::server
