// Streams say what the whole answer says, in pieces.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "tests/server/api_fixture.h"

namespace augur::server::test {
namespace {

struct StreamedChoice {
  std::string text;
  std::string finish_reason;
  int num_roles = 0;
  int num_ends = 0;
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;
  std::vector<int64_t> offsets;
};

/// Joins the chunks of each choice; what comes behind its end, or text before its role, is wrong.
std::map<int64_t, StreamedChoice> join(const Played& played, bool is_chat) {
  std::map<int64_t, StreamedChoice> joined;
  for (const json::value& event : played.events) {
    if (event.as_object().contains("error")) continue;
    EXPECT_EQ(event.at("object"), is_chat ? "chat.completion.chunk" : "text_completion");
    EXPECT_EQ(event.at("id"), "call-1");
    EXPECT_EQ(event.at("model"), "toy");
    for (const json::value& choice : event.at("choices").as_array()) {
      StreamedChoice& state = joined[choice.at("index").as_int64()];
      EXPECT_EQ(state.num_ends, 0) << "a chunk behind the last";
      if (is_chat) {
        const json::object& delta = choice.at("delta").as_object();
        if (delta.contains("role")) ++state.num_roles;
        EXPECT_EQ(state.num_roles, 1);
        if (delta.contains("content")) state.text += delta.at("content").as_string();
      } else {
        state.text += choice.at("text").as_string();
      }
      if (!choice.at("finish_reason").is_null()) {
        ++state.num_ends;
        state.finish_reason = choice.at("finish_reason").as_string();
      }
      if (const json::value* ids = choice.as_object().if_contains("token_ids")) {
        for (const json::value& id : ids->as_array())
          state.token_ids.push_back(id.to_number<int>());
      }
      const json::value& logprobs = choice.at("logprobs");
      if (logprobs.is_null()) continue;
      if (is_chat) {
        for (const json::value& token : logprobs.at("content").as_array()) {
          state.logprobs.push_back(static_cast<float>(token.at("logprob").to_number<double>()));
        }
        continue;
      }
      for (const json::value& value : logprobs.at("token_logprobs").as_array()) {
        state.logprobs.push_back(static_cast<float>(value.to_number<double>()));
      }
      for (const json::value& offset : logprobs.at("text_offset").as_array()) {
        state.offsets.push_back(offset.as_int64());
      }
    }
  }
  return joined;
}

void expect_same(const std::map<int64_t, StreamedChoice>& joined,
                 const std::vector<RequestResult>& results,
                 int n) {
  ASSERT_EQ(joined.size(), results.size() * n);
  for (const auto& [idx, choice] : joined) {
    SCOPED_TRACE(idx);
    const Completion& completion = results[idx / n].completions[idx % n];
    EXPECT_EQ(choice.text, completion.text);
    EXPECT_EQ(choice.num_ends, 1);
    EXPECT_EQ(choice.token_ids, completion.output_ids);
    ASSERT_EQ(choice.logprobs.size(), completion.logprobs.size());
    for (size_t i = 0; i < choice.logprobs.size(); ++i) {
      EXPECT_EQ(choice.logprobs[i], completion.logprobs[i].logprob);
    }
  }
}

Played completion(const std::string& body, PlayOptions options = {}) {
  const ApiContext context = toy_context();
  return play(parse_completion_call(body, context, identity()), context, options);
}

Played chat(const std::string& body, PlayOptions options = {}) {
  const ApiContext context = toy_context();
  return play(parse_chat_call(body, context, identity()), context, options);
}

Played generate(const std::string& body, PlayOptions options = {}) {
  const ApiContext context = toy_context();
  return play(parse_generate_call(body, context, identity()), context, options);
}

TEST(StreamTest, OfACompletionJoinsToTheWhole) {
  const Played played = completion(R"({"prompt":["ab","c a","b"],"n":2,"max_tokens":20,"seed":5,
      "stream":true,"logprobs":2,"return_token_ids":true,"stop":["ab a","\u00e9c"]})");
  const auto joined = join(played, /*is_chat=*/false);
  expect_same(joined, played.results, 2);
  for (const json::value& event : played.events) EXPECT_FALSE(event.as_object().contains("usage"));
}

TEST(StreamTest, OfAChatBeginsEachChoiceWithItsRole) {
  const Played played = chat(R"({"messages":[{"role":"user","content":"ab"}],"n":3,"max_tokens":20,
      "seed":5,"stream":true,"logprobs":true,"top_logprobs":1,"return_token_ids":true})");
  const auto joined = join(played, /*is_chat=*/true);
  expect_same(joined, played.results, 3);
  const json::value& first = played.events.front();
  EXPECT_EQ(json::serialize(first.at("choices").at(0).at("delta")),
            R"({"role":"assistant","content":""})");
  EXPECT_TRUE(first.as_object().contains("prompt_token_ids"));
}

TEST(StreamTest, TellsUsageLast) {
  const std::string body = R"({"prompt":["ab","c"],"max_tokens":4,"ignore_eos":true,"stream":true,
                               "stream_options":{"include_usage":true)";
  const Played played = completion(body + "}}");
  const json::object& last = played.events.back().as_object();
  EXPECT_TRUE(last.at("choices").as_array().empty());
  EXPECT_EQ(last.at("usage").at("completion_tokens"), 8);
  EXPECT_EQ(last.at("usage").at("prompt_tokens"),
            played.results[0].num_prompt_tokens + played.results[1].num_prompt_tokens);
  EXPECT_TRUE(last.at("usage").at("prompt_tokens_details").is_object());
  for (size_t i = 0; i + 1 < played.events.size(); ++i) {
    EXPECT_TRUE(played.events[i].at("usage").is_null());
  }
  const Played always = completion(body + R"(,"continuous_usage_stats":true}})");
  int64_t num_told = 0;
  for (size_t i = 0; i + 1 < always.events.size(); ++i) {
    num_told = std::max(num_told, always.events[i].at("usage").at("completion_tokens").as_int64());
  }
  EXPECT_EQ(num_told, 4);
}

TEST(StreamTest, EchoesThePromptFirst) {
  const Played played =
      completion(R"({"prompt":[[0,18,19]],"max_tokens":3,"echo":true,"stream":true,"n":2})");
  const auto joined = join(played, /*is_chat=*/false);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(joined.at(i).text, "a\u00e9" + played.results[0].completions[i].text);
  }
  const Played nothing =
      completion(R"({"prompt":"ab","max_tokens":0,"echo":true,"stream":true,"n":2})");
  for (const auto& [idx, choice] : join(nothing, false)) {
    EXPECT_EQ(choice.text, "ab");
    EXPECT_EQ(choice.finish_reason, "length");
    EXPECT_EQ(choice.num_ends, 1);
  }
}

TEST(StreamTest, OffsetsGoOnFromChunkToChunk) {
  const std::string body =
      R"("prompt":"ab","max_tokens":20,"ignore_eos":true,"seed":2,"logprobs":0)";
  const Played whole = completion("{" + body + "}");
  const Played streamed = completion("{" + body + R"(,"stream":true})");
  EXPECT_EQ(join(streamed, false).at(0).offsets,
            json::value_to<std::vector<int64_t>>(
                whole.body.at_pointer("/choices/0/logprobs/text_offset")));
}

TEST(StreamTest, TellsTheRestOfAnAbort) {
  for (const int steps : {0, 1, 3, 6}) {
    SCOPED_TRACE(steps);
    const Played text = completion(R"({"prompt":"ab","max_tokens":30,"ignore_eos":true,"n":2,
        "stream":true,"return_token_ids":true,"logprobs":0,"stop":["zzzz"]})",
                                   {.abort_after_steps = steps});
    const auto joined = join(text, false);
    expect_same(joined, text.results, 2);
    EXPECT_EQ(joined.at(0).finish_reason, "abort");
    const Played talk = chat(R"({"messages":[{"role":"user","content":"ab"}],"max_tokens":30,
        "ignore_eos":true,"stream":true,"return_token_ids":true})",
                             {.abort_after_steps = steps});
    expect_same(join(talk, true), talk.results, 1);
    const Played native = generate(R"({"text":"ab","sampling_params":{"max_new_tokens":30,
        "ignore_eos":true},"stream":true})",
                                   {.abort_after_steps = steps});
    const json::value& last = native.events.back();
    EXPECT_EQ(last.at("text"), json::value(native.results[0].completions[0].text));
    EXPECT_EQ(last.at("meta_info").at("finish_reason").at("type"), "abort");
  }
}

TEST(StreamTest, TellsAFailureAsAnEvent) {
  const Played played = completion(R"({"prompt":[[12],[0,1]],"max_tokens":3,"stream":true,
                                       "stream_options":{"include_usage":true}})",
                                   {.failing_token = 12});
  int num_errors = 0;
  for (const json::value& event : played.events) {
    const json::value* error = event.as_object().if_contains("error");
    if (error == nullptr) continue;
    ++num_errors;
    EXPECT_EQ(error->at("type"), "server_error");
  }
  EXPECT_EQ(num_errors, 1);
  EXPECT_EQ(join(played, false).at(1).num_ends, 1) << "the other request goes on";
  EXPECT_TRUE(played.text.ends_with("data: [DONE]\n\n"));
  const Played native = generate(R"({"input_ids":[12],"stream":true})", {.failing_token = 12});
  ASSERT_EQ(native.events.size(), 1u);
  EXPECT_EQ(native.events[0].at("error").at("type"), "server_error");
}

TEST(StreamTest, OfGenerateCarriesTheTextSoFar) {
  const Played played = generate(R"({"text":"ab","sampling_params":{"max_new_tokens":12,
      "ignore_eos":true,"sampling_seed":4},"stream":true,"return_logprob":true,
      "top_logprobs_num":1,"logprob_start_len":0})");
  std::string text;
  int64_t num_tokens = 0;
  for (size_t i = 0; i < played.events.size(); ++i) {
    const json::value& event = played.events[i];
    const bool is_last = i + 1 == played.events.size();
    EXPECT_TRUE(std::string_view(event.at("text").as_string()).starts_with(text));
    text = event.at("text").as_string();
    const json::value& meta = event.at("meta_info");
    EXPECT_GT(meta.at("completion_tokens").as_int64(), num_tokens);
    num_tokens = meta.at("completion_tokens").as_int64();
    EXPECT_EQ(event.at("output_ids").as_array().size(), static_cast<size_t>(num_tokens));
    EXPECT_EQ(meta.at("output_token_logprobs").as_array().size(), static_cast<size_t>(num_tokens));
    EXPECT_EQ(meta.at("finish_reason").is_null(), !is_last);
    EXPECT_EQ(meta.as_object().contains("input_token_logprobs"), is_last);
    EXPECT_EQ(meta.as_object().contains("cached_tokens"), is_last);
  }
  EXPECT_EQ(text, played.results[0].completions[0].text);
  EXPECT_EQ(num_tokens, 12);
}

TEST(StreamTest, OfGenerateNumbersTheItemsOfAList) {
  const Played played = generate(R"({"text":["ab","c"],"sampling_params":{"max_new_tokens":6,"n":2,
                                     "ignore_eos":true},"stream":true})");
  std::map<int64_t, std::string> texts;
  std::map<int64_t, int> num_ends;
  for (const json::value& event : played.events) {
    const int64_t idx = event.at("index").as_int64();
    EXPECT_EQ(num_ends[idx], 0);
    texts[idx] = event.at("text").as_string();
    num_ends[idx] += event.at("meta_info").at("finish_reason").is_null() ? 0 : 1;
  }
  ASSERT_EQ(texts.size(), 4u);
  // Every token is told when it comes, whichever completion of a prompt ends first.
  EXPECT_EQ(played.events.size(), 4u * (6 + 1));
  for (const auto& [idx, text] : texts) {
    EXPECT_EQ(text, played.results[idx / 2].completions[idx % 2].text);
    EXPECT_EQ(num_ends[idx], 1);
  }
}

}  // namespace
}  // namespace augur::server::test
