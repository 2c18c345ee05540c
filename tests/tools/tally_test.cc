#include "tools/serve_bench/tally.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <random>

namespace augur::serve_bench {
namespace {

using testing::ElementsAre;

// Sent at 1 s; chunks 100, 110, 130 and 170 ms later; the last byte after 180 ms.
RequestEvents four_tokens() {
  RequestEvents events;
  events.send_us = 1'000'000;
  events.content_us = {1'100'000, 1'110'000, 1'130'000, 1'170'000};
  events.end_us = 1'180'000;
  events.outcome = Outcome::kOk;
  events.status = 200;
  events.usage_prompt_tokens = 7;
  events.usage_output_tokens = 4;
  return events;
}

TEST(RequestFigures, FollowTheirDefinitions) {
  const RequestFigures figures = figures_of(four_tokens(), {});
  EXPECT_DOUBLE_EQ(figures.e2e_ms, 180);
  EXPECT_DOUBLE_EQ(figures.ttft_ms.value(), 100);
  EXPECT_DOUBLE_EQ(figures.tpot_ms.value(), 80.0 / 3);
  EXPECT_EQ(figures.prompt_tokens, 7);
  EXPECT_EQ(figures.output_tokens, 4);
}

TEST(RequestFigures, CountTokensByUsageWhereChunksHoldSeveral) {
  RequestEvents events = four_tokens();
  events.usage_output_tokens = 9;
  const RequestFigures figures = figures_of(events, {});
  EXPECT_EQ(figures.output_tokens, 9);
  EXPECT_TRUE(figures.is_counted_by_usage);
  EXPECT_DOUBLE_EQ(figures.tpot_ms.value(), 10);
}

TEST(RequestFigures, CountChunksWhereTheServerDoesNotSay) {
  RequestEvents events = four_tokens();
  events.usage_output_tokens.reset();
  events.usage_prompt_tokens.reset();
  events.known_prompt_tokens = 33;
  const RequestFigures figures = figures_of(events, {});
  EXPECT_EQ(figures.output_tokens, 4);
  EXPECT_FALSE(figures.is_counted_by_usage);
  EXPECT_EQ(figures.prompt_tokens, 33);
  EXPECT_TRUE(figures.is_prompt_known);
}

TEST(RequestFigures, HaveNoTimePerTokenForASingleOne) {
  RequestEvents events = four_tokens();
  events.content_us = {1'100'000};
  events.usage_output_tokens = 1;
  EXPECT_EQ(figures_of(events, {}).tpot_ms, std::nullopt);
  EXPECT_TRUE(figures_of(events, {.tpot_ms = 1}).is_good);
}

TEST(RequestFigures, AreGoodWithinEveryBound) {
  const RequestEvents events = four_tokens();
  EXPECT_TRUE(figures_of(events, {.ttft_ms = 100, .tpot_ms = 27, .e2e_ms = 180}).is_good);
  EXPECT_FALSE(figures_of(events, {.ttft_ms = 99}).is_good);
  EXPECT_FALSE(figures_of(events, {.tpot_ms = 26}).is_good);
  EXPECT_FALSE(figures_of(events, {.e2e_ms = 179}).is_good);
  RequestEvents failed = events;
  failed.outcome = Outcome::kFailed;
  EXPECT_FALSE(figures_of(failed, {}).is_good);
}

TEST(RequestRow, HasTheFiguresAndTheGaps) {
  const RequestEvents events = four_tokens();
  const boost::json::value row =
      boost::json::parse(request_row(events, figures_of(events, {}), /*start_us=*/900'000));
  EXPECT_EQ(row.at("sent_ms").to_number<double>(), 100);
  EXPECT_EQ(row.at("ttft_ms").to_number<double>(), 100);
  EXPECT_EQ(row.at("itl_ms"), (boost::json::array{10.0, 20.0, 40.0}));
  EXPECT_EQ(row.at("outcome"), "ok");
  EXPECT_EQ(row.at("counted_by"), "usage");
}

TEST(Tally, SumsUpRequestsThatSucceeded) {
  Tally tally({.ttft_ms = 150});
  tally.add(four_tokens());
  RequestEvents slow = four_tokens();  // TTFT 300, E2E 500, TPOT 200 / 1
  slow.content_us = {1'300'000, 1'400'000};
  slow.end_us = 1'500'000;
  slow.usage_prompt_tokens = 3;
  slow.usage_output_tokens = 2;
  tally.add(slow);
  const Summary summary = tally.summarize(/*duration_s=*/0.5, {0, 50, 75, 100});
  EXPECT_EQ(summary.num_ok, 2);
  EXPECT_EQ(summary.input_tokens, 10);
  EXPECT_EQ(summary.output_tokens, 6);
  EXPECT_DOUBLE_EQ(summary.request_throughput, 4);
  EXPECT_DOUBLE_EQ(summary.output_throughput, 12);
  EXPECT_DOUBLE_EQ(summary.total_throughput, 32);
  EXPECT_DOUBLE_EQ(summary.goodput, 2);
  EXPECT_NEAR(summary.concurrency, (0.18 + 0.5) / 0.5, 1e-9);
  EXPECT_DOUBLE_EQ(summary.ttft_ms.mean, 200);
  EXPECT_DOUBLE_EQ(summary.ttft_ms.median, 200);
  EXPECT_DOUBLE_EQ(summary.ttft_ms.std, 100);
  EXPECT_THAT(summary.ttft_ms.percentiles, ElementsAre(100, 200, 250, 300));
  // The mean of requests, not of tokens.
  EXPECT_NEAR(summary.tpot_ms.mean, (80.0 / 3 + 200) / 2, 1e-5);
  EXPECT_NEAR(summary.user_speed, 1000 / ((80.0 / 3 + 200) / 2), 1e-5);
  EXPECT_DOUBLE_EQ(summary.e2e_ms.mean, 340);
  EXPECT_EQ(summary.itl_ms.count, 4);
  EXPECT_DOUBLE_EQ(summary.itl_ms.mean, (10 + 20 + 40 + 100) / 4.0);
  EXPECT_DOUBLE_EQ(summary.itl_ms.max, 100);
}

TEST(Tally, KeepsEachOutcomeApart) {
  Tally tally({});
  RequestEvents events = four_tokens();
  tally.add(events);
  for (const char* kind : {"HTTP 500", "timeout", "HTTP 500"}) {
    events.outcome = Outcome::kFailed;
    events.failure = kind;
    events.detail = "told the first time";
    tally.add(events);
  }
  events = four_tokens();
  events.outcome = Outcome::kRefused;
  events.status = 503;
  events.retry_after_s = 2;
  tally.add(events);
  events.outcome = Outcome::kAborted;
  tally.add(events);
  events.outcome = Outcome::kCutOff;
  tally.add(events);
  const Summary summary = tally.summarize(1, {99});
  EXPECT_EQ(tally.num_ended(), 7);
  EXPECT_EQ(summary.num_ok, 1);
  EXPECT_EQ(summary.num_failed, 3);
  EXPECT_EQ(summary.failures.at("HTTP 500").count, 2);
  EXPECT_EQ(summary.failures.at("timeout").example, "told the first time");
  EXPECT_EQ(summary.num_refused, 1);
  EXPECT_EQ(summary.refusals.at(503).count, 1);
  EXPECT_EQ(summary.num_with_retry_after, 1);
  EXPECT_DOUBLE_EQ(summary.mean_refusal_ms, 180);
  EXPECT_EQ(summary.num_aborted, 1);
  EXPECT_EQ(summary.num_aborted_chunks, 4);
  EXPECT_EQ(summary.num_cut_off, 1);
  EXPECT_EQ(summary.e2e_ms.count, 1);  // latencies of what succeeded
  EXPECT_EQ(summary.itl_ms.count, 3);
  EXPECT_EQ(summary.output_tokens, 4);
}

TEST(Tally, BoundsTheKindsOfFailureItKeeps) {
  Tally tally({});
  RequestEvents events;
  for (int i = 0; i < 1000; ++i) {
    events.failure = "HTTP " + std::to_string(i);
    tally.add(events);
  }
  const Summary summary = tally.summarize(1, {});
  EXPECT_EQ(summary.num_failed, 1000);
  EXPECT_LE(summary.failures.size(), 65u);
  EXPECT_GT(summary.failures.at("others").count, 900);
}

TEST(Tally, IsZeroWithoutRequests) {
  const Summary summary = Tally({}).summarize(0, {50, 99});
  EXPECT_EQ(summary.request_throughput, 0);
  EXPECT_EQ(summary.concurrency, 0);
  EXPECT_THAT(summary.ttft_ms.percentiles, ElementsAre(0, 0));
  EXPECT_THAT(summary.itl_ms.percentiles, ElementsAre(0, 0));
}

TEST(Histogram, IsExactBelowTwoMilliseconds) {
  Histogram histogram;
  for (int64_t value = 2000; value >= 0; --value) histogram.add(value);
  EXPECT_DOUBLE_EQ(histogram.percentile_us(0), 0);
  EXPECT_DOUBLE_EQ(histogram.percentile_us(50), 1000);
  EXPECT_DOUBLE_EQ(histogram.percentile_us(99.99), 1999.8);
  EXPECT_DOUBLE_EQ(histogram.percentile_us(100), 2000);
  EXPECT_DOUBLE_EQ(histogram.mean_us(), 1000);
}

TEST(Histogram, IsWithinAThousandthAnywhere) {
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> draw(10, 4);
  Histogram histogram;
  std::vector<int64_t> values;
  for (int i = 0; i < 5000; ++i) {
    values.push_back(static_cast<int64_t>(std::min(draw(random), 1e12)));
    histogram.add(values.back());
  }
  std::sort(values.begin(), values.end());
  for (int i = 0; i < 5000; i += 7) {
    const auto exact = static_cast<double>(values[static_cast<size_t>(i)]);
    EXPECT_NEAR(histogram.percentile_us(i / 49.99), exact, exact * 1e-3 + 1) << i;
  }
  EXPECT_EQ(histogram.max_us(), values.back());
}

TEST(Histogram, TakesTimeThatWentBackwardsAsNone) {
  Histogram histogram;
  histogram.add(-5);
  EXPECT_EQ(histogram.count(), 1);
  EXPECT_EQ(histogram.percentile_us(50), 0);
  EXPECT_EQ(histogram.std_us(), 0);
}

}  // namespace
}  // namespace augur::serve_bench
