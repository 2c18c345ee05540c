// The figures, the report and the picture of a pool whose history is known.
#include "tools/score/expert_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <boost/json/parse.hpp>

#include <cstdlib>
#include <set>
#include <string>
#include <utility>

#include "tests/cache/fake_fetcher.h"
#include "tests/temp_folder.h"
#include "tools/score/expert_map.h"

namespace augur::score {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

int count_of(const std::string& text, std::string_view part) {
  int count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// Layers 1 and 2 of three have four experts each; a pool of four.
class ExpertReportTest : public testing::Test {
 protected:
  static constexpr int kExperts = 4;

  void use(int layer, const std::vector<int32_t>& experts) {
    const std::vector<int32_t> rows(kExperts, 1);
    pool_.begin(layer, experts, rows, rows);
    while (!pool_.next().empty()) continue;
    pool_.end();
    pool_.give_up_prefetches(layer);
  }
  /// Four steps: expert 0 of layer 1 in each of them, each time a hit but the first; in layer 2
  /// expert 1 twice and then, foretold, expert 2 once. Expert 3 of layer 2 is foretold in vain.
  void run_steps() {
    for (int step = 0; step < 4; ++step) {
      if (step == 2) {
        pool_.prefetch({2, 2}, FetchPriority::kNextLayer);
        pool_.poll();
      }
      use(1, {0});
      use(2, step < 2 ? std::vector<int32_t>{1} : std::vector<int32_t>{2});
      pool_.end_step(/*has_decode_rows=*/true);
    }
    counters_.stall_us = 1'500'000;
  }
  std::vector<Metric> metrics() const {
    std::vector<Metric> list;
    append_expert_metrics(view_, list);
    return list;
  }
  double value(std::string_view name, std::string_view label = "") const {
    for (const Metric& metric : metrics()) {
      if (metric.name == name && metric.label == label) return metric.value;
    }
    ADD_FAILURE() << "no " << name << " " << label;
    return 0;
  }

  FakeFetcher fetcher_;
  ExpertCounters counters_{/*num_layers=*/3, kExperts};
  ExpertPool pool_{
      {.num_layers = 3, .num_moe_layers = 2, .num_experts = kExperts, .num_slots = 4, .top_k = 1},
      make_lru_policy(4),
      fetcher_,
      counters_};
  ExpertView view_{counters_, pool_, /*slot_bytes=*/1000, {1, 2}};
};

TEST_F(ExpertReportTest, ListsWhatThePoolCounted) {
  run_steps();
  EXPECT_EQ(value("expert_uses"), 8);
  EXPECT_EQ(value("expert_hits"), 6);
  EXPECT_EQ(value("expert_hit_rate"), 0.75);
  EXPECT_EQ(value("expert_misses", "cold"), 2);
  EXPECT_EQ(value("expert_misses", "capacity"), 0);
  EXPECT_EQ(value("expert_demand_bytes", "cold"), 2 * FakeFetcher::kBytes);
  EXPECT_EQ(value("expert_prefetches"), 1);
  EXPECT_EQ(value("expert_prefetches_ended", "useful"), 1);
  EXPECT_EQ(value("expert_prefetch_bytes", "useful"), FakeFetcher::kBytes);
  EXPECT_EQ(value("expert_stall_seconds"), 1.5);
  EXPECT_EQ(value("expert_steps"), 4);
  EXPECT_EQ(value("expert_passes"), 8);
  EXPECT_EQ(value("expert_pool_slots"), 4);
  EXPECT_EQ(value("expert_pool_bytes"), 4000);
  EXPECT_EQ(value("experts"), 8);
  EXPECT_EQ(value("expert_layer_uses", "2"), 4);
  EXPECT_EQ(value("expert_layer_hit_rate", "1"), 0.75);
  EXPECT_EQ(value("expert_layer_resident", "2"), 2);
}

// As the text form of metrics wants them.
TEST_F(ExpertReportTest, KeepsValuesOfOneNameTogetherWithDifferentLabels) {
  std::set<std::pair<std::string_view, std::string>> seen;
  std::set<std::string_view> ended;
  std::string_view last;
  const std::vector<Metric> list = metrics();
  for (const Metric& metric : list) {
    EXPECT_TRUE(seen.emplace(metric.name, metric.label).second) << metric.name << metric.label;
    EXPECT_EQ(metric.label.empty(), metric.label_name.empty()) << metric.name;
    EXPECT_EQ(metric.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), metric.name.npos);
    EXPECT_FALSE(metric.help.empty());
    if (metric.name != last) {
      EXPECT_TRUE(ended.insert(metric.name).second) << metric.name << " stands in two places";
    }
    last = metric.name;
  }
}

TEST_F(ExpertReportTest, BytesOfAllCausesAddUp) {
  for (int expert = 0; expert < kExperts; ++expert) {
    use(1, {expert});
    use(2, {expert});
  }
  use(1, {0});
  double bytes = 0, misses = 0;
  for (const Metric& metric : metrics()) {
    bytes += metric.name == "expert_demand_bytes" ? metric.value : 0;
    misses += metric.name == "expert_misses" ? metric.value : 0;
  }
  EXPECT_EQ(bytes, 9 * FakeFetcher::kBytes);
  EXPECT_EQ(misses, value("expert_uses") - value("expert_hits"));
}

TEST_F(ExpertReportTest, SummaryIsAFewPlainLines) {
  run_steps();
  EXPECT_THAT(expert_summary_lines(view_, /*seconds=*/6),
              ElementsAre("experts: 75.0 % of 8 uses found theirs in the pool of 4 of 8",
                          "experts missed: 2 cold",
                          "experts read: 200 B on demand, 100 B ahead (0.0 % of it wasted)",
                          "waited for experts: 1.50 s, 25.0 % of the run"));
}

TEST_F(ExpertReportTest, SummaryTellsOfExpertsThatCouldNotBeRead) {
  fetcher_.broken = {{1, 3}};
  EXPECT_THROW(use(1, {3}), ExpertUnavailable);
  const std::vector<std::string> lines = expert_summary_lines(view_, 1);
  EXPECT_EQ(lines.back(), "experts could not be read 1 times");
}

TEST_F(ExpertReportTest, NothingRunIsAReportOfZeros) {
  const boost::json::value report =
      boost::json::parse(expert_report_json(view_, metrics(), "idle"));
  EXPECT_EQ(report.at("metrics").at("expert_hit_rate"), 0);
  EXPECT_EQ(report.at("layers").at(0).at("experts").at(0).at("resident_share"), 0);
  EXPECT_THAT(expert_map_svg(view_, "idle"), HasSubstr("in the pool 0.0 % of steps, 0 uses"));
  EXPECT_EQ(expert_summary_lines(view_, 0).size(), 3u);
}

TEST_F(ExpertReportTest, JsonHasEveryMetricLayerAndExpert) {
  run_steps();
  const std::string model = "a \"model\" of\nthem";
  const boost::json::value report = boost::json::parse(expert_report_json(view_, metrics(), model));
  EXPECT_EQ(std::string(report.at("model").as_string()), model);
  for (const Metric& metric : metrics()) {
    const boost::json::value& found = report.at("metrics").at(metric.name);
    const boost::json::value& number = metric.label.empty() ? found : found.at(metric.label);
    EXPECT_NEAR(number.to_number<double>(), metric.value, 1e-6) << metric.name << metric.label;
  }
  const boost::json::array& layers = report.at("layers").as_array();
  ASSERT_EQ(layers.size(), 2u);
  EXPECT_EQ(layers[1].at("layer"), 2);
  EXPECT_EQ(layers[1].at("uses"), 4);
  EXPECT_EQ(layers[1].at("misses").at("cold"), 1);
  EXPECT_EQ(layers[1].at("useful_prefetches"), 1);
  const boost::json::array& experts = layers[1].at("experts").as_array();
  ASSERT_EQ(experts.size(), 4u);
  EXPECT_EQ(experts[2].at("expert"), 2);
  EXPECT_EQ(experts[2].at("uses"), 2);
  EXPECT_EQ(experts[2].at("hits"), 2);
  EXPECT_EQ(experts[2].at("prefetches"), 1);
  EXPECT_EQ(experts[2].at("resident_share"), 0.5);  // from the third step of four on
  EXPECT_EQ(layers[0].at("experts").at(0).at("resident_share"), 1);
}

TEST_F(ExpertReportTest, ASummaryLeavesLayersOut) {
  const std::vector<Metric> all = metrics();
  const boost::json::value object = boost::json::parse(metrics_json(without_layers(all)));
  EXPECT_TRUE(object.as_object().contains("expert_stall_seconds"));
  EXPECT_FALSE(object.as_object().contains("expert_layer_uses"));
}

TEST_F(ExpertReportTest, PictureHasACellForEveryExpertInBothPanels) {
  run_steps();
  const std::string svg = expert_map_svg(view_, "<m & \"n\">");
  EXPECT_EQ(count_of(svg, "<title>"), 2 * 8);
  EXPECT_EQ(count_of(svg,
                     "<title>layer 2, expert 2: in the pool 50.0 % of steps, 2 uses, "
                     "2 hits (100.0 %), 1 fetched ahead</title>"),
            2);
  EXPECT_THAT(svg, HasSubstr("Experts of &lt;m &amp; &quot;n&quot;&gt;: a pool of 4 of 8, hit "
                             "rate 75.0 %"));
  // Five of eight were never wanted: no hit rate, and the legend shows the same sign.
  EXPECT_EQ(count_of(svg, "<rect class=\"none\""), 5 + 1);
}

// Any reader of XML takes it, and nothing is drawn outside the page.
TEST_F(ExpertReportTest, PictureIsWellFormedAndFitsItsPage) {
  run_steps();
  const TempFolder folder;
  folder.write("map.svg",
               expert_map_svg(view_, "<m & \"n\">\t\xE2\x82\xAC" + std::string(90, 'W')));
  constexpr std::string_view kCheck = R"(
import sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
space = '{http://www.w3.org/2000/svg}'
width, height = float(root.get('width')), float(root.get('height'))
cells = [r for r in root.iter(space + 'rect') if r.find(space + 'title') is not None]
assert len(cells) == 16, len(cells)
for item in list(root.iter(space + 'rect'))[1:]:
    assert float(item.get('x')) + float(item.get('width')) < width, item.attrib
    assert float(item.get('y')) + float(item.get('height')) < height, item.attrib
places = {(c.get('x'), c.get('y')) for c in cells}
assert len(places) == 16, places
)";
  folder.write("check.py", kCheck);
  const std::string command =
      std::string(AUGUR_PYTHON) + " " + folder.file("check.py") + " " + folder.file("map.svg");
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace augur::score
