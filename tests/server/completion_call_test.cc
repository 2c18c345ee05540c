#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
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
  return parse_completion_call(body, context, identity());
}

ApiError refused(const std::string& body, const ApiContext& context = demo_context()) {
  const auto error =
      refusal([](std::string_view text,
                 const ApiContext& asked) { parse_completion_call(text, asked, identity()); },
              body, context);
  EXPECT_TRUE(error) << body;
  return error.value_or(bad_request("", ""));
}

std::string repeated(const std::string& item, int count) {
  std::string list = "[";
  for (int i = 0; i < count; ++i) list += (i == 0 ? "" : ",") + item;
  return list + "]";
}

TEST(CompletionCallTest, ReadsThePromptInEachOfItsForms) {
  const std::vector<int32_t> once = demo_tokenizer().encode("Once upon");
  const ApiCall text = parse(R"({"prompt":"Once upon"})");
  ASSERT_EQ(text.requests.size(), 1u);
  EXPECT_EQ(text.requests[0].prompt_ids, once);
  EXPECT_EQ(text.requests[0].id, "call-1-0");
  EXPECT_EQ(text.client_ids, std::vector<std::string>{"call-1-0"});
  EXPECT_FALSE(text.is_streamed);

  EXPECT_THAT(parse(R"({"prompt":[5,6,7]})").requests[0].prompt_ids, ElementsAre(5, 6, 7));
  const ApiCall texts = parse(R"({"prompt":["Once upon","a"]})");
  ASSERT_EQ(texts.requests.size(), 2u);
  EXPECT_EQ(texts.requests[0].prompt_ids, once);
  EXPECT_EQ(texts.requests[1].id, "call-1-1");
  const ApiCall lists = parse(R"({"prompt":[[5],[6,7]]})");
  ASSERT_EQ(lists.requests.size(), 2u);
  EXPECT_THAT(lists.requests[1].prompt_ids, ElementsAre(6, 7));
}

TEST(CompletionCallTest, RefusesPromptsThatAreEmptyOrMixed) {
  EXPECT_EQ(refused(R"({"prompt":""})").param, "prompt");
  EXPECT_EQ(refused(R"({"prompt":[]})").param, "prompt");
  EXPECT_EQ(refused(R"({"prompt":["",""]})").param, "prompt[0]");
  EXPECT_EQ(refused(R"({"prompt":["a",""]})").param, "prompt[1]");
  EXPECT_EQ(refused(R"({"prompt":[[]]})").param, "prompt[0]");
  EXPECT_EQ(refused(R"({"prompt":[[1],[]]})").param, "prompt[1]");
  EXPECT_EQ(refused(R"({"prompt":["a",1]})").param, "prompt[1]");
  EXPECT_EQ(refused(R"({"prompt":[1,"a"]})").param, "prompt[1]");
  EXPECT_EQ(refused(R"({"prompt":[[1],"a"]})").param, "prompt[1]");
  EXPECT_EQ(refused(R"({"prompt":[1,[2]]})").param, "prompt[1]");
  EXPECT_EQ(refused(R"({"prompt":"a\ud800"})").status, 400);
}

TEST(CompletionCallTest, RefusesTokensOutsideTheVocabularyByPlace) {
  EXPECT_EQ(refused(R"({"prompt":[1,8192]})").param, "prompt[1]");
  EXPECT_EQ(refused(R"({"prompt":[[1],[2,-1]]})").param, "prompt[1][1]");
  EXPECT_THAT(refused(R"({"prompt":[4294967297]})").message, HasSubstr("0 to 8191"));
  EXPECT_EQ(parse(R"({"prompt":[0,8191]})").requests.size(), 1u);
}

TEST(CompletionCallTest, BoundsPromptsAndCompletionsAtTheirCaps) {
  ApiContext context = demo_context();
  context.bounds.max_prompts = 8;
  context.bounds.max_n = 6;
  context.bounds.max_sequences = 24;
  EXPECT_EQ(parse(R"({"prompt":)" + repeated("\"a\"", 8) + "}", context).requests.size(), 8u);
  EXPECT_EQ(refused(R"({"prompt":)" + repeated("\"a\"", 9) + "}", context).param, "prompt");
  EXPECT_EQ(parse(R"({"prompt":"a","n":6})", context).requests[0].sampling.n, 6);
  EXPECT_EQ(refused(R"({"prompt":"a","n":7})", context).param, "n");
  EXPECT_EQ(parse(R"({"n":4,"prompt":)" + repeated("[1]", 6) + "}", context).requests.size(), 6u);
  EXPECT_EQ(refused(R"({"n":4,"prompt":)" + repeated("[1]", 7) + "}", context).param, "prompt");
}

TEST(CompletionCallTest, BoundsListsAtTheirCaps) {
  ApiContext context = demo_context();
  context.bounds.max_stop_strings = 3;
  context.bounds.max_stop_token_ids = 4;
  context.bounds.max_logit_bias = 2;
  context.bounds.max_logprobs = 5;
  context.bounds.max_json_values = 50;
  const auto body = [](const std::string& field) { return R"({"prompt":"a",)" + field + "}"; };
  EXPECT_EQ(parse(body(R"("stop":["x","y","z"])"), context).requests[0].sampling.stop.size(), 3u);
  EXPECT_EQ(refused(body(R"("stop":["x","y","z","w"])"), context).param, "stop");
  parse(body("\"stop_token_ids\":" + repeated("1", 4)), context);
  EXPECT_EQ(refused(body("\"stop_token_ids\":" + repeated("1", 5)), context).param,
            "stop_token_ids");
  parse(body(R"("logit_bias":{"1":1,"2":-100})"), context);
  EXPECT_EQ(refused(body(R"("logit_bias":{"1":1,"2":1,"3":1})"), context).param, "logit_bias");
  EXPECT_EQ(parse(body(R"("logprobs":5)"), context).requests[0].sampling.logprobs, 5);
  EXPECT_EQ(refused(body(R"("logprobs":6)"), context).param, "logprobs");
  const std::string longest(1024, 's');
  parse(body("\"stop\":\"" + longest + "\""), context);
  EXPECT_EQ(refused(body("\"stop\":\"" + longest + "s\""), context).param, "stop");
  parse(body("\"prompt\":" + repeated("1", 47)), context);
  EXPECT_THAT(refused(body("\"prompt\":" + repeated("1", 48)), context).message,
              HasSubstr("JSON values"));
}

TEST(CompletionCallTest, BoundsTheLogprobsOfPrompts) {
  ApiContext context = demo_context();
  context.bounds.max_prompt_logprobs = 40;
  const std::string body = R"(,"echo":true,"logprobs":1,"max_tokens":0})";
  parse(R"({"prompt":)" + repeated("1", 20) + body, context);
  EXPECT_EQ(refused(R"({"prompt":)" + repeated("1", 21) + body, context).status, 400);
}

TEST(CompletionCallTest, SaysHowLongTheContextIs) {
  const auto body = [](int num_ids, const std::string& rest) {
    return R"({"prompt":)" + repeated("1", num_ids) + rest + "}";
  };
  EXPECT_EQ(parse(body(240, R"(,"max_tokens":16)")).requests[0].sampling.max_tokens, 16);
  const ApiError both = refused(body(241, R"(,"max_tokens":16)"));
  EXPECT_EQ(both.code, "context_length_exceeded");
  EXPECT_EQ(both.param, "max_tokens");
  EXPECT_EQ(both.message,
            "This model's maximum context length is 256 tokens. However, you requested 257 tokens "
            "(241 in the prompt, 16 in the completion). Please reduce the length of the prompt or "
            "the completion.");
  // Unset, it takes what room there is.
  EXPECT_EQ(parse(body(250, "")).requests[0].sampling.max_tokens, 6);
  EXPECT_EQ(parse(body(255, "")).requests[0].sampling.max_tokens, 1);
  const ApiError prompt = refused(body(256, ""));
  EXPECT_EQ(prompt.code, "context_length_exceeded");
  EXPECT_EQ(prompt.param, "prompt");
  EXPECT_THAT(prompt.message, HasSubstr("maximum context length is 256 tokens. However, your "
                                        "prompt resulted in 256 tokens"));
  // A prompt that is only scored may fill it.
  EXPECT_EQ(parse(body(256, R"(,"max_tokens":0,"echo":true)")).requests[0].sampling.max_tokens, 0);
  EXPECT_EQ(refused(body(257, R"(,"max_tokens":0,"echo":true)")).code, "context_length_exceeded");
  EXPECT_EQ(refused(body(1, R"(,"max_tokens":9223372036854775807)")).code,
            "context_length_exceeded");
}

TEST(CompletionCallTest, SaysHowMuchTheMemoryHolds) {
  ApiContext context = demo_context();
  context.limits.num_kv_blocks = 4;  // 64 positions; a text's last token needs none
  const auto body = [](int num_ids, const std::string& rest) {
    return R"({"prompt":)" + repeated("1", num_ids) + rest + "}";
  };
  EXPECT_EQ(parse(body(60, R"(,"max_tokens":5)"), context).requests.size(), 1u);
  const ApiError error = refused(body(60, R"(,"max_tokens":6)"), context);
  EXPECT_EQ(error.code, "context_length_exceeded");
  EXPECT_THAT(error.message, HasSubstr("KV cache holds 64 tokens"));
  EXPECT_EQ(parse(body(60, ""), context).requests[0].sampling.max_tokens, 5);
  EXPECT_EQ(refused(body(65, ""), context).code, "context_length_exceeded");
}

TEST(CompletionCallTest, TakesSamplingFromTheRequestThenTheModelThenOpenAi) {
  ApiContext context = demo_context();
  EXPECT_EQ(parse(R"({"prompt":"a"})", context).requests[0].sampling.temperature, 1);
  context.generation.temperature = 0.7;
  context.generation.top_p = 0.9;
  context.generation.top_k = 40;
  context.generation.min_p = 0.1;
  context.generation.repetition_penalty = 1.05;
  const SamplingParams model = parse(R"({"prompt":"a"})", context).requests[0].sampling;
  EXPECT_EQ(model.temperature, 0.7f);
  EXPECT_EQ(model.top_p, 0.9f);
  EXPECT_EQ(model.top_k, 40);
  EXPECT_EQ(model.min_p, 0.1f);
  EXPECT_EQ(model.repetition_penalty, 1.05f);
  EXPECT_EQ(model.max_tokens, 16);
  const SamplingParams asked =
      parse(R"({"prompt":"a","temperature":0.2,"top_p":1,"top_k":-1,"min_p":0,
                "repetition_penalty":1,"seed":-5,"presence_penalty":-2,"frequency_penalty":2,
                "logit_bias":{"17":-100,"0":5.5},"stop":"x","stop_token_ids":[3],"min_tokens":2,
                "ignore_eos":true,"include_stop_str_in_output":true,"skip_special_tokens":false,
                "priority":-3,"cache_salt":"mine"})",
            context)
          .requests[0]
          .sampling;
  EXPECT_EQ(asked.temperature, 0.2f);
  EXPECT_EQ(asked.top_k, -1);
  EXPECT_EQ(asked.repetition_penalty, 1);
  EXPECT_EQ(asked.seed, static_cast<uint64_t>(-5));
  ASSERT_EQ(asked.logit_bias.size(), 2u);
  EXPECT_EQ(asked.logit_bias[0].token_id, 17);
  EXPECT_EQ(asked.logit_bias[0].bias, -100);
  EXPECT_THAT(asked.stop, ElementsAre("x"));
  EXPECT_THAT(asked.stop_token_ids, ElementsAre(3));
  EXPECT_TRUE(asked.ignore_eos && asked.include_stop_in_output && !asked.skip_special_tokens);
}

TEST(CompletionCallTest, TakesATinyTemperatureAsGreedy) {
  EXPECT_EQ(parse(R"({"prompt":"a","temperature":1e-6})").requests[0].sampling.temperature, 0);
  EXPECT_GT(parse(R"({"prompt":"a","temperature":1e-4})").requests[0].sampling.temperature, 0);
}

TEST(CompletionCallTest, RefusesWhatItDoesNotDo) {
  EXPECT_EQ(refused(R"({"prompt":"a","suffix":"b"})").code, "unsupported_value");
  EXPECT_EQ(refused(R"({"prompt":"a","best_of":2})").code, "unsupported_value");
  EXPECT_EQ(parse(R"({"prompt":"a","best_of":2,"n":2})").requests.size(), 1u);
  EXPECT_EQ(refused(R"({"prompt":"a","response_format":{"type":"json_object"}})").param,
            "response_format.type");
  parse(R"({"prompt":"a","response_format":{"type":"text"}})");
  EXPECT_EQ(refused(R"({"prompt":"a","max_tokens":0})").param, "max_tokens");
  EXPECT_EQ(refused(R"({"prompt":"a","echo":true,"logprobs":0,"stream":true})").param, "logprobs");
  EXPECT_EQ(refused(R"({"prompt":"a","stream_options":{"include_usage":true}})").param,
            "stream_options");
  EXPECT_EQ(refused(R"({"prompt":"a","min_tokens":17})").param, "min_tokens");
  EXPECT_EQ(refused(R"({"prompt":"a","logit_bias":{"01":1}})").param, "logit_bias");
  EXPECT_EQ(refused(R"({"prompt":"a","logit_bias":{"8192":1}})").param, "logit_bias");
  EXPECT_EQ(refused(R"({"prompt":"a","logit_bias":{"-1":1}})").param, "logit_bias");
  EXPECT_EQ(refused(R"({"prompt":"a","logit_bias":{"1":101}})").param, "logit_bias.1");
}

TEST(CompletionCallTest, KnowsTheModelsItServes) {
  const ApiError error = refused(R"({"prompt":"a","model":"other"})");
  EXPECT_EQ(error.status, 404);
  EXPECT_EQ(error.code, "model_not_found");
  EXPECT_THAT(error.message, HasSubstr("`other` does not exist"));
  EXPECT_EQ(parse(R"({"prompt":"a","model":"tiny"})").requests.size(), 1u);
  ApiContext context = demo_context();
  context.accepts_any_model = true;
  EXPECT_EQ(parse(R"({"prompt":"a","model":"other"})", context).requests.size(), 1u);
}

TEST(CompletionCallTest, TakesIdsAloneWithoutATokenizer) {
  ApiContext context = demo_context();
  context.tokenizer = nullptr;
  context.chat_template = nullptr;
  EXPECT_EQ(refused(R"({"prompt":"a"})", context).param, "prompt");
  EXPECT_EQ(refused(R"({"prompt":[1],"stop":"a"})", context).param, "stop");
  EXPECT_EQ(refused(R"({"prompt":[1],"echo":true})", context).param, "echo");
  EXPECT_EQ(parse(R"({"prompt":[1],"logprobs":2})", context).requests.size(), 1u);
}

TEST(CompletionAnswerTest, HasTheShapeOfOpenAi) {
  const ApiContext context = toy_context();
  const Played played =
      play(parse(R"({"prompt":["ab","c a"],"n":2,"max_tokens":5,"seed":1})", context), context);
  const json::object& body = played.body.as_object();
  EXPECT_EQ(body.at("id"), "call-1");
  EXPECT_EQ(body.at("object"), "text_completion");
  EXPECT_EQ(body.at("created"), 1700000000);
  EXPECT_EQ(body.at("model"), "toy");
  const json::array& choices = body.at("choices").as_array();
  ASSERT_EQ(choices.size(), 4u);
  int64_t num_output = 0;
  for (int i = 0; i < 4; ++i) {
    const Completion& completion = played.results[i / 2].completions[i % 2];
    EXPECT_EQ(choices[i].at("index"), i);
    EXPECT_EQ(choices[i].at("text"), json::value(completion.text));
    EXPECT_TRUE(choices[i].at("logprobs").is_null());
    EXPECT_EQ(choices[i].at("finish_reason"),
              completion.finish_reason == FinishReason::kStop ? "stop" : "length");
    num_output += static_cast<int64_t>(completion.output_ids.size());
  }
  const json::value& usage = body.at("usage");
  const int64_t num_prompt =
      played.results[0].num_prompt_tokens + played.results[1].num_prompt_tokens;
  EXPECT_EQ(usage.at("prompt_tokens"), num_prompt);
  EXPECT_EQ(usage.at("completion_tokens"), num_output);
  EXPECT_EQ(usage.at("total_tokens"), num_prompt + num_output);
  EXPECT_EQ(usage.at_pointer("/prompt_tokens_details/cached_tokens"),
            played.results[0].num_cached_tokens + played.results[1].num_cached_tokens);
}

/// As lm-evaluation-harness reads it: sums, and whether each token was the likeliest.
TEST(CompletionAnswerTest, ScoresEchoedIdsAsEvaluationsReadIt) {
  const ApiContext context = toy_context();
  for (const int max_tokens : {0, 1}) {
    SCOPED_TRACE(max_tokens);
    const Played played =
        play(parse(R"({"prompt":[[0,13,4,5],[10,2]],"temperature":0,"max_tokens":)" +
                       std::to_string(max_tokens) + R"(,"logprobs":1,"seed":1234,"echo":true})",
                   context),
             context);
    for (int i = 0; i < 2; ++i) {
      const std::vector<int32_t> ids =
          i == 0 ? std::vector<int32_t>{0, 13, 4, 5} : std::vector<int32_t>{10, 2};
      const json::value& choice = played.body.at("choices").at(i);
      const json::value& logprobs = choice.at("logprobs");
      const json::array& values = logprobs.at("token_logprobs").as_array();
      const json::array& tops = logprobs.at("top_logprobs").as_array();
      ASSERT_EQ(values.size(), ids.size() + max_tokens);
      ASSERT_EQ(tops.size(), values.size());
      ASSERT_EQ(logprobs.at("tokens").as_array().size(), values.size());
      ASSERT_EQ(logprobs.at("text_offset").as_array().size(), values.size());
      EXPECT_TRUE(values[0].is_null());
      EXPECT_TRUE(tops[0].is_null());
      for (size_t k = 1; k < ids.size(); ++k) {
        const std::vector<float> logits = augur::test::toy_logits(std::span(ids).first(k));
        const auto value = static_cast<float>(values[k].to_number<double>());
        EXPECT_EQ(value, logits[ids[k]]);
        double most = -1e9;
        for (const auto& member : tops[k].as_object()) {
          most = std::max(most, member.value().to_number<double>());
        }
        const bool is_likeliest = logits[ids[k]] == *std::max_element(logits.begin(), logits.end());
        EXPECT_EQ(values[k].to_number<double>() == most, is_likeliest);
      }
      const std::string prompt_text = augur::test::toy_tokenizer().decode(ids);
      EXPECT_TRUE(choice.at("text").as_string().starts_with(prompt_text));
    }
  }
}

TEST(CompletionAnswerTest, ShowsTheChosenTokenAmongItsAlternatives) {
  const ApiContext context = toy_context();
  for (const int num_others : {0, 2}) {
    const Played played = play(parse(R"({"prompt":"ab","max_tokens":12,"ignore_eos":true,"seed":3,
                                         "logprobs":)" +
                                         std::to_string(num_others) + "}",
                                     context),
                               context);
    const json::value& logprobs = played.body.at_pointer("/choices/0/logprobs");
    const json::array& tokens = logprobs.at("tokens").as_array();
    ASSERT_EQ(tokens.size(), 12u);
    size_t num_unlikely = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const json::object& top = logprobs.at("top_logprobs").at(i).as_object();
      const json::value* chosen = top.if_contains(tokens[i].as_string());
      ASSERT_NE(chosen, nullptr);
      EXPECT_EQ(*chosen, logprobs.at("token_logprobs").at(i));
      EXPECT_GE(top.size(), static_cast<size_t>(std::max(num_others, 1)));
      num_unlikely += top.size() > static_cast<size_t>(num_others) ? 1 : 0;
    }
    EXPECT_GT(num_unlikely, 0u);
  }
}

TEST(CompletionAnswerTest, CountsOffsetsInCharactersOfTheText) {
  const ApiContext context = toy_context();
  // é in two tokens, then a token that ends inside of one.
  const Played played = play(parse(R"({"prompt":[0,18,19,21,22,0],"echo":true,"logprobs":0,
                                       "max_tokens":0})",
                                   context),
                             context);
  const json::value& logprobs = played.body.at("choices").at(0).at("logprobs");
  // The byte that follows belongs to nothing and is repaired.
  EXPECT_EQ(played.body.at("choices").at(0).at("text"), json::value("a\u00e9c\u00e9\uFFFDa"));
  EXPECT_EQ(json::serialize(logprobs.at("tokens")),
            R"(["a","bytes:\\xc3","bytes:\\xa9","bytes:\\x63\\xc3","bytes:\\xa9\\xc3","a"])");
  EXPECT_EQ(json::serialize(logprobs.at("text_offset")), "[0,1,2,2,4,5]");
}

TEST(CompletionAnswerTest, OffsetsPassOverSpecialTokensThatAreNotInTheText) {
  const ApiContext context = toy_context();
  const Played written = play(parse(R"({"prompt":"<eos>ab","echo":true,"logprobs":0,
                                        "max_tokens":0})",
                                    context),
                              context);
  EXPECT_EQ(written.body.at("choices").at(0).at("text"), "<eos>ab");
  EXPECT_EQ(written.body.at_pointer("/choices/0/logprobs/text_offset/1"), 5);
}

TEST(CompletionAnswerTest, ShowsTokenIdsWhereAsked) {
  const ApiContext context = toy_context();
  const Played played =
      play(parse(R"({"prompt":[0,1],"max_tokens":3,"return_token_ids":true})", context), context);
  const json::value& choice = played.body.at("choices").at(0);
  EXPECT_EQ(json::serialize(choice.at("prompt_token_ids")), "[0,1]");
  const std::vector<int32_t>& ids = played.results[0].completions[0].output_ids;
  EXPECT_EQ(json::value_to<std::vector<int32_t>>(choice.at("token_ids")), ids);
}

TEST(CompletionAnswerTest, NamesWhatStoppedIt) {
  const ApiContext context = toy_context();
  const Played plain =
      play(parse(R"({"prompt":"ab","max_tokens":20,"temperature":0,"ignore_eos":true})", context),
           context);
  const std::vector<int32_t>& ids = plain.results[0].completions[0].output_ids;
  const std::string& text = plain.results[0].completions[0].text;
  const Played by_id = play(parse(R"({"prompt":"ab","max_tokens":20,"temperature":0,
                                      "ignore_eos":true,"stop_token_ids":[)" +
                                      std::to_string(ids[3]) + "]}",
                                  context),
                            context);
  EXPECT_EQ(by_id.body.at_pointer("/choices/0/finish_reason"), "stop");
  EXPECT_EQ(by_id.body.at_pointer("/choices/0/stop_reason"), ids[3]);
  json::object by_text_body = {{"prompt", "ab"},
                               {"max_tokens", 20},
                               {"temperature", 0},
                               {"ignore_eos", true},
                               {"stop", text.substr(2, 1)}};
  const Played by_text = play(parse(json::serialize(by_text_body), context), context);
  EXPECT_EQ(by_text.body.at_pointer("/choices/0/finish_reason"), "stop");
  EXPECT_EQ(by_text.body.at_pointer("/choices/0/stop_reason"), json::value(text.substr(2, 1)));
}

TEST(CompletionAnswerTest, FailsAsAWholeWhenARequestFails) {
  const ApiContext context = toy_context();
  try {
    play(parse(R"({"prompt":[[0,1],[12]],"max_tokens":3})", context), context,
         {.failing_token = 12});
    FAIL() << "nothing was thrown";
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 500);
    EXPECT_EQ(error.type, "server_error");
    EXPECT_NE(error.message, "");
  }
}

TEST(CompletionAnswerTest, GivesPartialTextOfAnAbort) {
  const ApiContext context = toy_context();
  const Played played =
      play(parse(R"({"prompt":"ab","max_tokens":30,"ignore_eos":true,"echo":true,"logprobs":1})",
                 context),
           context, {.abort_after_steps = 4});
  const json::value& choice = played.body.at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason"), "abort");
  EXPECT_EQ(choice.at("text"), json::value("ab" + played.results[0].completions[0].text));
  EXPECT_GT(played.results[0].completions[0].output_ids.size(), 0u);
}

}  // namespace
}  // namespace augur::server::test
