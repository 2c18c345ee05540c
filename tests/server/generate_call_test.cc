#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <span>
#include <string>
#include <vector>

#include "tests/server/api_fixture.h"

namespace augur::server::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ApiCall parse(const std::string& body, const ApiContext& context = demo_context()) {
  return parse_generate_call(body, context, identity());
}

ApiError refused(const std::string& body, const ApiContext& context = demo_context()) {
  const auto error =
      refusal([](std::string_view text,
                 const ApiContext& asked) { parse_generate_call(text, asked, identity()); },
              body, context);
  EXPECT_TRUE(error) << body;
  return error.value_or(bad_request("", ""));
}

TEST(GenerateCallTest, ReadsTextOrIds) {
  EXPECT_EQ(parse(R"({"text":"Once upon"})").requests.at(0).prompt_ids,
            demo_tokenizer().encode("Once upon"));
  EXPECT_THAT(parse(R"({"input_ids":[1,2]})").requests.at(0).prompt_ids, ElementsAre(1, 2));
  EXPECT_EQ(parse(R"({"input_ids":[[1,2],[3]]})").requests.size(), 2u);
  EXPECT_EQ(refused(R"({"text":"a","input_ids":[1]})").param, "text");
  EXPECT_EQ(refused(R"({"text":[1]})").param, "text[0]");
  EXPECT_EQ(refused(R"({"input_ids":"a"})").param, "input_ids");
  EXPECT_EQ(refused(R"({"input_ids":["a"]})").param, "input_ids[0]");
  EXPECT_EQ(refused(R"({"text":""})").param, "text");
}

TEST(GenerateCallTest, HasSglangsDefaults) {
  ApiContext context = demo_context();
  context.generation.temperature = 0.3;
  const SamplingParams sampling = parse(R"({"text":"a"})", context).requests.at(0).sampling;
  EXPECT_EQ(sampling.temperature, 1);
  EXPECT_EQ(sampling.max_tokens, 128);
  EXPECT_EQ(sampling.logprobs, -1);
  EXPECT_FALSE(parse(R"({"text":"a"})").requests.at(0).score_prompt);
}

TEST(GenerateCallTest, ReadsListsWithOneValueForEachPrompt) {
  const ApiCall call = parse(R"({"text":["a","b"],"sampling_params":[{"max_new_tokens":3},
      {"max_new_tokens":4,"sampling_seed":9}],"return_logprob":[true,false],
      "logprob_start_len":[0,-1],"top_logprobs_num":[2,0],"rid":["x","y"]})");
  ASSERT_EQ(call.requests.size(), 2u);
  EXPECT_EQ(call.requests[0].sampling.max_tokens, 3);
  EXPECT_EQ(call.requests[0].sampling.logprobs, 2);
  EXPECT_EQ(call.requests[1].sampling.max_tokens, 4);
  EXPECT_EQ(call.requests[1].sampling.seed, 9u);
  EXPECT_EQ(call.requests[1].sampling.logprobs, -1);
  EXPECT_THAT(call.client_ids, ElementsAre("x", "y"));
  EXPECT_THAT(parse(R"({"text":["a","b"],"rid":"x"})").client_ids, ElementsAre("x_0", "x_1"));
  EXPECT_THAT(parse(R"({"text":"a","rid":"x"})").client_ids, ElementsAre("x"));
  EXPECT_THAT(parse(R"({"text":"a"})").client_ids, ElementsAre("call-1-0"));

  EXPECT_EQ(refused(R"({"text":["a","b"],"sampling_params":[{}]})").param, "sampling_params");
  EXPECT_EQ(refused(R"({"text":["a","b"],"return_logprob":[true]})").param, "return_logprob");
  EXPECT_EQ(refused(R"({"text":["a","b"],"sampling_params":[{},{"top_p":2}]})").param,
            "sampling_params[1].top_p");
  EXPECT_EQ(refused(R"({"text":["a","b"],"sampling_params":[{"n":2},{}]})").param,
            "sampling_params[1].n");
  EXPECT_EQ(refused(R"({"text":["a","b"],"rid":["x","x"]})").param, "rid[1]");
}

TEST(GenerateCallTest, ScoresThePromptFromWhereItIsAsked) {
  const auto request = [](const std::string& fields) {
    return parse(R"({"input_ids":[1,2,3,4],"return_logprob":true,"top_logprobs_num":3,)" + fields +
                 "}")
        .requests.at(0);
  };
  const Request all = request(R"("logprob_start_len":0)");
  EXPECT_TRUE(all.score_prompt);
  EXPECT_EQ(all.score_from, 1);
  EXPECT_EQ(all.prompt_top_logprobs, 3);
  EXPECT_EQ(request(R"("logprob_start_len":2)").score_from, 3);
  EXPECT_FALSE(request(R"("logprob_start_len":3)").score_prompt);  // its first has none
  EXPECT_FALSE(request(R"("logprob_start_len":4)").score_prompt);
  EXPECT_FALSE(request(R"("logprob_start_len":-1)").score_prompt);
  EXPECT_EQ(refused(R"({"input_ids":[1],"return_logprob":true,"logprob_start_len":2})").param,
            "logprob_start_len");
}

TEST(GenerateCallTest, SaysHowLongTheContextIs) {
  const ApiError error = refused(R"({"input_ids":[1,2],"sampling_params":{"max_new_tokens":255}})");
  EXPECT_EQ(error.code, "context_length_exceeded");
  EXPECT_EQ(error.param, "sampling_params.max_new_tokens");
  std::string ids = "1";
  for (int i = 1; i < 256; ++i) ids += ",1";
  EXPECT_EQ(refused(R"({"input_ids":[[1],[)" + ids + "]]}").param, "input_ids[1]");
  EXPECT_EQ(parse(R"({"sampling_params":{"max_new_tokens":0},"input_ids":[)" + ids + "]}")
                .requests.at(0)
                .sampling.max_tokens,
            0);
  EXPECT_EQ(
      refused(R"({"text":"a","sampling_params":{"max_new_tokens":2,"min_new_tokens":3}})").param,
      "sampling_params.min_new_tokens");
}

TEST(GenerateAnswerTest, HasTheShapeOfSglang) {
  const ApiContext context = toy_context();
  const Played played =
      play(parse(R"({"text":"ab","rid":"mine","sampling_params":{"max_new_tokens":5,
                     "ignore_eos":true,"temperature":0}})",
                 context),
           context);
  const Completion& completion = played.results[0].completions[0];
  const json::object& body = played.body.as_object();
  EXPECT_EQ(body.at("text"), json::value(completion.text));
  EXPECT_EQ(json::value_to<std::vector<int32_t>>(body.at("output_ids")), completion.output_ids);
  const json::value& meta = body.at("meta_info");
  EXPECT_EQ(meta.at("id"), "mine");
  EXPECT_EQ(json::serialize(meta.at("finish_reason")), R"({"type":"length","length":5})");
  EXPECT_EQ(meta.at("prompt_tokens"), played.results[0].num_prompt_tokens);
  EXPECT_EQ(meta.at("completion_tokens"), 5);
  EXPECT_EQ(meta.at("cached_tokens"), 0);
  EXPECT_GE(meta.at("e2e_latency").to_number<double>(), 0);
  EXPECT_FALSE(meta.as_object().contains("output_token_logprobs"));
  EXPECT_FALSE(body.contains("index"));
}

TEST(GenerateAnswerTest, AnswersListsWithLists) {
  const ApiContext context = toy_context();
  const std::string settings = R"(,"sampling_params":{"max_new_tokens":3,"n":)";
  const Played one = play(parse(R"({"text":["ab"])" + settings + "1}}", context), context);
  EXPECT_EQ(one.body.as_array().size(), 1u);
  const Played two = play(parse(R"({"text":"ab")" + settings + "2}}", context), context);
  EXPECT_EQ(two.body.as_array().size(), 2u);
  const Played four = play(parse(R"({"text":["ab","c"])" + settings + "2}}", context), context);
  ASSERT_EQ(four.body.as_array().size(), 4u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(four.body.at(i).at("text"), json::value(four.results[i / 2].completions[i % 2].text));
    EXPECT_EQ(four.body.at(i).at("meta_info").at("id"),
              json::value("call-1-" + std::to_string(i / 2) + "_" + std::to_string(i % 2)));
  }
}

/// As its frontend scores choices, and lm-evaluation-harness reads it.
TEST(GenerateAnswerTest, GivesLogprobsOfThePrompt) {
  const ApiContext context = toy_context();
  const std::vector<int32_t> ids = {0, 13, 4, 5};
  for (const int start : {0, 2, 3, 4}) {
    const Played played =
        play(parse(R"({"input_ids":[0,13,4,5],"sampling_params":{"max_new_tokens":2,
                       "temperature":0,"ignore_eos":true},"return_logprob":true,
                       "return_text_in_logprobs":true,"top_logprobs_num":2,"logprob_start_len":)" +
                       std::to_string(start) + "}",
                   context),
             context);
    const json::value& meta = played.body.at("meta_info");
    const json::array& input = meta.at("input_token_logprobs").as_array();
    const json::array& tops = meta.at("input_top_logprobs").as_array();
    ASSERT_EQ(input.size(), ids.size() - start);
    ASSERT_EQ(tops.size(), input.size());
    for (size_t i = 0; i < input.size(); ++i) {
      const size_t position = start + i;
      EXPECT_EQ(input[i].at(1), ids[position]);
      EXPECT_EQ(input[i].at(2), json::value(context.tokenizer->decode(std::array{ids[position]})));
      if (i == 0) {
        EXPECT_TRUE(input[i].at(0).is_null());
        EXPECT_TRUE(tops[i].is_null());
        continue;
      }
      const auto logits = augur::test::toy_logits(std::span(ids).first(position));
      EXPECT_EQ(static_cast<float>(input[i].at(0).to_number<double>()), logits[ids[position]]);
      EXPECT_EQ(tops[i].as_array().size(), 2u);
    }
    EXPECT_EQ(meta.at("output_token_logprobs").as_array().size(), 2u);
    EXPECT_EQ(meta.at("output_top_logprobs").at(0).as_array().size(), 2u);
  }
}

TEST(GenerateAnswerTest, ComputesPromptsWithoutOutput) {
  const ApiContext context = toy_context();
  const Played played =
      play(parse(R"({"text":["ab","a"],"sampling_params":{"max_new_tokens":0,"temperature":0},
                "return_logprob":true,"logprob_start_len":0})",
                 context),
           context);
  const json::value& first = played.body.at(0);
  EXPECT_EQ(first.at("text"), "");
  EXPECT_EQ(json::serialize(first.at("meta_info").at("finish_reason")),
            R"({"type":"length","length":0})");
  EXPECT_TRUE(first.at("meta_info").at("output_token_logprobs").as_array().empty());
  EXPECT_TRUE(first.at("meta_info").at("input_token_logprobs").at(0).at(2).is_null());
}

TEST(GenerateAnswerTest, NamesWhatStoppedIt) {
  const ApiContext context = toy_context();
  const std::string begin = R"({"text":"ab","sampling_params":{"max_new_tokens":20,"temperature":0,
                                "ignore_eos":true)";
  const Played plain = play(parse(begin + "}}", context), context);
  const Completion& completion = plain.results[0].completions[0];
  const Played by_id = play(
      parse(begin + R"(,"stop_token_ids":[)" + std::to_string(completion.output_ids[3]) + "]}}",
            context),
      context);
  const json::value& reason = by_id.body.at("meta_info").at("finish_reason");
  EXPECT_EQ(reason.at("type"), "stop");
  EXPECT_EQ(reason.at("matched"), completion.output_ids[3]);
  const json::string stop(completion.text.substr(3, 1));
  const Played by_text =
      play(parse(begin + R"(,"stop":)" + json::serialize(stop) + "}}", context), context);
  EXPECT_EQ(by_text.body.at("meta_info").at("finish_reason").at("matched"), json::value(stop));
}

}  // namespace
}  // namespace augur::server::test
