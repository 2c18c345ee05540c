#include "tools/bench/routing_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "configs/config_error.h"
#include "tests/temp_folder.h"

namespace augur::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelConfig small_model() {
  ModelConfig config;
  config.layers = {LayerKind::kDense, LayerKind::kMoe, LayerKind::kMoe};
  config.moe.num_experts = 8;
  config.moe.top_k = 2;
  return config;
}

std::vector<int32_t> row(const std::vector<int32_t>& table, int layer, int row, int num_rows) {
  const auto first = table.begin() + (layer * num_rows + row) * 2;
  return {first, first + 2};
}

TEST(RoutingTableTest, TheGatesOwnChoiceIsNoTable) {
  EXPECT_TRUE(make_routing_table({"gate"}, small_model(), 10).empty());
}

TEST(RoutingTableTest, BalancedTakesEveryExpertOnceBeforeAnyTwice) {
  const auto table = make_routing_table({"balanced"}, small_model(), 8);
  ASSERT_EQ(table.size(), 3u * 8 * 2);
  EXPECT_EQ(row(table, 0, 0, 8), (std::vector<int32_t>{-1, -1})) << "a dense layer";
  for (const int layer : {1, 2}) {
    for (const int first : {0, 4}) {
      std::multiset<int32_t> taken;
      for (int i = first; i < first + 4; ++i) {
        for (const int32_t expert : row(table, layer, i, 8)) taken.insert(expert);
      }
      EXPECT_THAT(taken, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
    }
  }
}

TEST(RoutingTableTest, PowerLawFavoursSomeAndRepeatsNoneInARow) {
  const int num_rows = 2000;
  const auto table = make_routing_table({"power-law:1.2"}, small_model(), num_rows);
  std::vector<int> count(8);
  for (int i = 0; i < num_rows; ++i) {
    const auto chosen = row(table, 1, i, num_rows);
    EXPECT_NE(chosen[0], chosen[1]);
    for (const int32_t expert : chosen) ++count.at(expert);
  }
  std::sort(count.begin(), count.end());
  EXPECT_GT(count[7], 4 * count[0]);
  EXPECT_GT(count[0], 0);
}

TEST(RoutingTableTest, ReadsATraceAndFillsUpWhatItLacks) {
  const TempFolder folder;
  const auto path = (folder.path() / "trace.csv").string();
  std::ofstream(path) << "# a comment\n"
                         "turn,phase,step,layer,slot,expert\n"
                         "0,0,0,1,0,5\n0,0,0,1,1,3\n0,0,0,2,0,7\n"
                         "0,0,1,1,0,0\n0,0,1,1,1,6\n";
  const auto table = make_routing_table({"trace:" + path}, small_model(), 3);
  EXPECT_THAT(row(table, 1, 0, 3), ElementsAre(5, 3));
  EXPECT_THAT(row(table, 1, 1, 3), ElementsAre(0, 6));
  EXPECT_THAT(row(table, 1, 2, 3), ElementsAre(5, 3)) << "over again";
  EXPECT_THAT(row(table, 2, 0, 3), ElementsAre(7, 0)) << "one choice recorded";
}

TEST(RoutingTableTest, SaysWhatIsWrongAndWhere) {
  const auto error_of = [](const std::string& text) {
    try {
      make_routing_table({text}, small_model(), 2);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(error_of("even"), HasSubstr("accepted: gate, balanced"));
  EXPECT_THAT(error_of("power-law:x"), HasSubstr("exponent 'x'"));
  EXPECT_THAT(error_of("trace:/nowhere.csv"), HasSubstr("cannot be read"));
  const TempFolder folder;
  const auto path = (folder.path() / "trace.csv").string();
  std::ofstream(path) << "turn,step,layer,expert\n0,0,1,8\n";
  EXPECT_THAT(error_of("trace:" + path), HasSubstr("trace.csv: expert 8; the model has 8"));
  std::ofstream(path) << "turn,step,expert\n";
  EXPECT_THAT(error_of("trace:" + path), HasSubstr("no column layer"));
}

}  // namespace
}  // namespace augur::bench
