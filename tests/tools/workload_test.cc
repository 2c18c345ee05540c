#include "tools/serve_bench/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <set>

#include "configs/config_error.h"
#include "tests/temp_folder.h"

namespace augur::serve_bench {
namespace {

using testing::HasSubstr;
namespace json = boost::json;

json::object body_of(const PlannedRequest& plan) {
  return json::parse(plan.body).as_object();
}

std::vector<int64_t> ids_of(const PlannedRequest& plan) {
  return json::value_to<std::vector<int64_t>>(body_of(plan).at("prompt"));
}

TEST(Workload, AsksForRandomTokenIdsOfExactLengths) {
  Options options;
  options.input_tokens = 50;
  options.output_tokens = 9;
  const Workload workload(options, "m", /*vocab_size=*/100);
  const PlannedRequest plan = workload.plan(0);
  const json::object body = body_of(plan);
  EXPECT_EQ(body.at("model"), "m");
  EXPECT_EQ(body.at("max_tokens"), 9);
  EXPECT_EQ(body.at("temperature").to_number<double>(), 0);
  EXPECT_EQ(body.at("ignore_eos"), true);
  EXPECT_EQ(body.at("stream"), true);
  EXPECT_EQ(body.at("stream_options").at("include_usage"), true);
  const std::vector<int64_t> ids = ids_of(plan);
  EXPECT_EQ(ids.size(), 50u);
  for (const int64_t id : ids) EXPECT_TRUE(id >= 0 && id < 100) << id;
  EXPECT_EQ(plan.known_prompt_tokens, 50);
  EXPECT_EQ(plan.max_tokens, 9);
  EXPECT_EQ(workload.path(), std::string("/v1/completions"));
}

TEST(Workload, IsTheSameForTheSameSeed) {
  Options options;
  options.range_ratio = 0.5;
  options.abort_share = 0.5;
  const Workload one(options, "m", 1000);
  const Workload same(options, "m", 1000);
  options.seed = 1;
  const Workload other(options, "m", 1000);
  for (const int64_t idx : {3, 0, -1}) {
    EXPECT_EQ(one.plan(idx).body, same.plan(idx).body);
    EXPECT_EQ(one.plan(idx).abort_after_chunks, same.plan(idx).abort_after_chunks);
    EXPECT_NE(one.plan(idx).body, other.plan(idx).body);
  }
  EXPECT_NE(one.plan(0).body, one.plan(1).body);
  EXPECT_NE(one.plan(0).body, one.plan(-1).body);
}

TEST(Workload, DrawsLengthsAroundTheMiddle) {
  Options options;
  options.input_tokens = 20;
  options.output_tokens = 10;
  options.range_ratio = 0.5;
  const Workload workload(options, "m", 1000);
  std::set<int64_t> inputs;
  std::set<int64_t> outputs;
  for (int i = 0; i < 500; ++i) {
    const PlannedRequest plan = workload.plan(i);
    EXPECT_EQ(std::ssize(ids_of(plan)), plan.known_prompt_tokens);
    inputs.insert(plan.known_prompt_tokens);
    outputs.insert(plan.max_tokens);
  }
  EXPECT_EQ(*inputs.begin(), 10);
  EXPECT_EQ(*inputs.rbegin(), 30);
  EXPECT_EQ(*outputs.begin(), 5);
  EXPECT_EQ(*outputs.rbegin(), 15);
}

TEST(Workload, NeverAsksForNothing) {
  Options options;
  options.input_tokens = 1;
  options.output_tokens = 1;
  options.range_ratio = 1;
  const Workload workload(options, "m", 1000);
  for (int i = 0; i < 100; ++i) {
    EXPECT_GE(workload.plan(i).max_tokens, 1);
    EXPECT_GE(workload.plan(i).known_prompt_tokens, 1);
  }
}

TEST(Workload, SharesPrefixesWithinGroups) {
  Options options;
  options.input_tokens = 5;
  options.shared_prefix_tokens = 30;
  options.num_prefix_groups = 3;
  const Workload workload(options, "m", 1000);
  std::set<std::vector<int64_t>> prefixes;
  std::set<std::vector<int64_t>> rests;
  for (int i = 0; i < 60; ++i) {
    const PlannedRequest plan = workload.plan(i);
    const std::vector<int64_t> ids = ids_of(plan);
    ASSERT_EQ(ids.size(), 35u);
    EXPECT_EQ(plan.known_prompt_tokens, 35);
    prefixes.emplace(ids.begin(), ids.begin() + 30);
    rests.emplace(ids.begin() + 30, ids.end());
  }
  EXPECT_EQ(prefixes.size(), 3u);
  EXPECT_EQ(rests.size(), 60u);
}

TEST(Workload, ChatsInWords) {
  Options options;
  options.endpoint = Endpoint::kChat;
  options.input_tokens = 12;
  options.shared_prefix_tokens = 3;
  const Workload workload(options, "m", /*vocab_size=*/0);
  const PlannedRequest plan = workload.plan(0);
  const json::value message = body_of(plan).at("messages").at(0);
  EXPECT_EQ(message.at("role"), "user");
  const std::string text(message.at("content").as_string());
  EXPECT_EQ(std::count(text.begin(), text.end(), ' '), 14);
  EXPECT_EQ(plan.known_prompt_tokens, 0);  // how many tokens words are, only the server knows
  EXPECT_EQ(workload.path(), std::string("/v1/chat/completions"));
}

TEST(Workload, PlansToAbortTheShareAskedFor) {
  Options options;
  options.output_tokens = 8;
  options.input_tokens = 1;
  options.abort_share = 0.25;
  const Workload workload(options, "m", 1000);
  int num_aborted = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto after = workload.plan(i).abort_after_chunks;
    if (!after) continue;
    ++num_aborted;
    EXPECT_TRUE(*after >= 0 && *after < 8);
  }
  EXPECT_NEAR(num_aborted, 1000, 140);  // 5 sigma
}

TEST(Workload, LetsExtraFieldsWin) {
  Options options;
  options.extra_body = R"({"temperature":0.5,"top_k":3,"ignore_eos":false})";
  const json::object body = body_of(Workload(options, "m", 10).plan(0));
  EXPECT_EQ(body.at("temperature"), 0.5);
  EXPECT_EQ(body.at("top_k"), 3);
  EXPECT_EQ(body.at("ignore_eos"), false);
}

TEST(Workload, RefusesExtraFieldsThatItSetsItself) {
  Options options;
  for (const char* extra : {"[]", "{", R"({"stream":false})", R"({"max_tokens":3})"}) {
    options.extra_body = extra;
    EXPECT_THAT(message_of<ConfigError>([&] { Workload(options, "m", 10); }),
                HasSubstr("--extra-body"))
        << extra;
  }
}

TEST(Workload, AsksForWholeAnswersWithoutStreamOptions) {
  Options options;
  options.is_streamed = false;
  const json::object body = body_of(Workload(options, "m", 10).plan(0));
  EXPECT_EQ(body.at("stream"), false);
  EXPECT_FALSE(body.contains("stream_options"));
}

class DatasetTest : public testing::Test {
 protected:
  std::string write(std::string_view text) { return folder_.write("d.jsonl", text); }
  std::string error(std::string_view text, Endpoint endpoint = Endpoint::kCompletions) {
    return message_of<ConfigError>([&] { read_dataset(write(text), endpoint); });
  }
  TempFolder folder_;
};

TEST_F(DatasetTest, GoesRoundItsLines) {
  Options options;
  options.output_tokens = 77;
  options.dataset = write(
      "{\"prompt\":\"one \\\"\",\"max_tokens\":5}\n"
      "\n"
      "{\"text\":\"two\",\"id\":3}\n"
      "{\"prompt\":[4,5,6],\"max_tokens\":null}\n");
  const Workload workload(options, "m", /*vocab_size=*/0);
  EXPECT_EQ(workload.num_dataset_rows(), 3);
  EXPECT_EQ(body_of(workload.plan(0)).at("prompt"), "one \"");
  EXPECT_EQ(workload.plan(0).max_tokens, 5);
  EXPECT_FALSE(body_of(workload.plan(0)).contains("ignore_eos"));
  EXPECT_EQ(body_of(workload.plan(1)).at("prompt"), "two");
  EXPECT_EQ(workload.plan(1).max_tokens, 77);
  EXPECT_EQ(ids_of(workload.plan(2)), (std::vector<int64_t>{4, 5, 6}));
  EXPECT_EQ(workload.plan(2).known_prompt_tokens, 3);
  EXPECT_EQ(workload.plan(3).body, workload.plan(0).body);
  EXPECT_EQ(workload.plan(-1).body, workload.plan(2).body);
}

TEST_F(DatasetTest, MakesMessagesOfTextsForChat) {
  const std::vector<DatasetRow> rows = read_dataset(
      write("{\"prompt\":\"hi\"}\n{\"messages\":[{\"role\":\"system\",\"content\":\"s\"}]}\n"),
      Endpoint::kChat);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].prompt_member, R"("messages":[{"role":"user","content":"hi"}])");
  EXPECT_EQ(rows[1].prompt_member, R"("messages":[{"role":"system","content":"s"}])");
}

TEST_F(DatasetTest, SaysWhichLineIsWrongAndHow) {
  EXPECT_THAT(error("{\"prompt\":\"a\"}\n{\n"), HasSubstr("d.jsonl:2: not a JSON object"));
  EXPECT_THAT(error("{\"id\":1}\n"), HasSubstr("one of \"prompt\", \"text\" and \"messages\""));
  EXPECT_THAT(error("{\"prompt\":\"a\",\"messages\":[]}\n"), HasSubstr("d.jsonl:1: accepted"));
  EXPECT_THAT(error("{\"messages\":[{}]}\n"), HasSubstr("--endpoint chat"));
  EXPECT_THAT(error("{\"prompt\":[1,2]}\n", Endpoint::kChat), HasSubstr("--endpoint completions"));
  EXPECT_THAT(error("{\"messages\":3}\n", Endpoint::kChat), HasSubstr("no list"));
  EXPECT_THAT(error("{\"prompt\":[1,-2]}\n"), HasSubstr("neither"));
  EXPECT_THAT(error("{\"prompt\":\"a\",\"max_tokens\":0}\n"), HasSubstr("\"max_tokens\" is 0"));
  EXPECT_THAT(error("\n \n"), HasSubstr("holds no requests"));
  EXPECT_THAT(message_of<ConfigError>([&] { read_dataset("/nowhere", Endpoint::kChat); }),
              HasSubstr("/nowhere"));
}

}  // namespace
}  // namespace augur::serve_bench
