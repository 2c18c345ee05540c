// Every field of every form against values of the wrong kind and size: each is refused with 400
// and the field's name, or is among those listed here as accepted. Nothing else is ever thrown.
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/server/api_fixture.h"

namespace augur::server::test {
namespace {

using Accepted = std::set<std::string>;

constexpr const char* kValues[] = {"-1",
                                   "-2147483648",
                                   "2147483647",
                                   "-9223372036854775808",
                                   "9223372036854775807",
                                   "9223372036854775808",
                                   "1e308",
                                   "-1e308",
                                   "0.5",
                                   "0",
                                   "1",
                                   "\"\"",
                                   "\"1\"",
                                   "true",
                                   "false",
                                   "[]",
                                   "[null]",
                                   "[-1]",
                                   "[\"\"]",
                                   "[[]]",
                                   "[{}]",
                                   "{}"};

struct Field {
  const char* name;
  Accepted accepted;  // besides null, which is absence
};

const Accepted kNothing = {};
const Accepted kBools = {"true", "false"};
const Accepted kInt64 = {
    "-1", "-2147483648", "2147483647", "-9223372036854775808", "9223372036854775807", "0", "1"};
const Accepted kPenalty = {"-1", "0", "0.5", "1"};
const Accepted kUnit = {"0", "0.5", "1"};
const Accepted kStrings = {"\"\"", "\"1\""};
const Accepted kEmpty = {"false", "\"\"", "[]", "{}"};  // of what is not supported

// The settings that all forms share; /generate has them in sampling_params.
const std::vector<Field> kSampling = {
    {"temperature", kUnit},
    {"top_p", {"0.5", "1"}},
    {"top_k", {"-1", "0", "1", "2147483647"}},
    {"min_p", kUnit},
    {"repetition_penalty", {"0.5", "1"}},
    {"presence_penalty", kPenalty},
    {"frequency_penalty", kPenalty},
    {"n", {"1"}},
    {"stop", {"\"1\"", "[]"}},
    {"stop_token_ids", {"[]"}},
    {"logit_bias", {"{}"}},
    {"ignore_eos", kBools},
    {"skip_special_tokens", kBools},
    {"spaces_between_special_tokens", kBools},
    {"length_penalty", {"1"}},
    {"regex", kEmpty},
    {"json_schema", kEmpty},
    {"ebnf", kEmpty},
    {"structured_outputs", kEmpty},
    {"guided_json", kEmpty},
    {"stop_regex", kEmpty},
    {"bad_words", kEmpty},
};

const std::vector<Field> kOpenAi = {
    {"model", kNothing},
    {"seed", kInt64},
    {"min_tokens", {"0", "1"}},
    {"include_stop_str_in_output", kBools},
    {"stream", kBools},
    {"stream_options", kNothing},
    {"priority", kInt64},
    {"cache_salt", {"\"1\""}},
    {"add_special_tokens", kBools},
    {"return_token_ids", kBools},
    {"user", kStrings},
    {"service_tier", kNothing},
    {"metadata", {"{}"}},
    {"response_format", kNothing},
    {"prompt_logprobs", kEmpty},
    {"truncate_prompt_tokens", kEmpty},
    {"lora_path", kEmpty},
};

std::string accepts(const Accepted& accepted) {
  std::string text;
  for (const std::string& value : accepted) text += value + " ";
  return text;
}

/// `body` is an object without the field; the field becomes its last.
template <typename Parse>
void check_field(Parse&& parse,
                 const std::string& body,
                 const std::string& prefix,
                 const Field& field,
                 const ApiContext& context) {
  const auto with = [&](const std::string& value) {
    const size_t at = body.find("$");
    return std::string(body).replace(at, 1, "\"" + std::string(field.name) + "\":" + value);
  };
  const std::string path = prefix + field.name;
  Accepted found;
  for (const std::string value : kValues) {
    SCOPED_TRACE(path + " is " + value);
    const auto refused = refusal(parse, with(value), context);
    if (!refused) {
      found.insert(value);
      continue;
    }
    const bool is_unknown_model = path == "model" && refused->status == 404;
    EXPECT_TRUE(refused->status == 400 || is_unknown_model) << refused->status;
    EXPECT_EQ(refused->type, "invalid_request_error");
    EXPECT_TRUE(refused->param.starts_with(path)) << refused->param << ": " << refused->message;
    EXPECT_NE(refused->message, "");
    EXPECT_EQ(json::parse(error_body(*refused)).at("error").at("param"),
              json::value(refused->param));
  }
  EXPECT_EQ(accepts(found), accepts(field.accepted)) << path;
}

template <typename Parse>
void check_fields(Parse&& parse,
                  const std::string& body,
                  const std::string& prefix,
                  const std::vector<Field>& fields) {
  const ApiContext context = demo_context();
  for (const Field& field : fields) {
    check_field(parse, body, prefix, field, context);
    if (field.name == std::string("model")) continue;
    const std::string with_null =
        std::string(body).replace(body.find("$"), 1, "\"" + std::string(field.name) + "\":null");
    const auto refused = refusal(parse, with_null, context);
    EXPECT_FALSE(refused) << field.name << " is null: " << refused->message;
  }
}

const auto kCompletion = [](std::string_view body, const ApiContext& context) {
  parse_completion_call(body, context, identity());
};
const auto kChat = [](std::string_view body, const ApiContext& context) {
  parse_chat_call(body, context, identity());
};
const auto kGenerate = [](std::string_view body, const ApiContext& context) {
  parse_generate_call(body, context, identity());
};

constexpr char kCompletionBody[] = R"({"prompt":"Once upon",$})";
constexpr char kChatBody[] = R"({"messages":[{"role":"user","content":"Hello"}],$})";

TEST(ApiFieldsTest, OfCompletions) {
  check_fields(kCompletion, kCompletionBody, "", kSampling);
  check_fields(kCompletion, kCompletionBody, "", kOpenAi);
  check_fields(kCompletion, kCompletionBody, "",
               {{"max_tokens", {"1"}},
                {"echo", kBools},
                {"logprobs", {"0", "1"}},
                {"best_of", {"1"}},
                {"suffix", kEmpty}});
}

TEST(ApiFieldsTest, OfChats) {
  check_fields(kChat, kChatBody, "", kSampling);
  check_fields(kChat, kChatBody, "", kOpenAi);
  check_fields(kChat, kChatBody, "",
               {{"max_tokens", {"1"}},
                {"max_completion_tokens", {"1"}},
                {"logprobs", kBools},
                {"top_logprobs", {"0"}},
                {"tools", {"[]"}},
                {"tool_choice", kNothing},
                {"parallel_tool_calls", kBools},
                {"add_generation_prompt", kBools},
                {"continue_final_message", kEmpty},
                {"chat_template", kEmpty},
                {"chat_template_kwargs", {"{}"}},
                {"reasoning_effort", {"\"1\""}},
                {"modalities", {"[]"}},
                {"functions", kEmpty},
                {"function_call", kEmpty},
                {"audio", kEmpty},
                {"store", kEmpty},
                {"echo", kEmpty}});
}

TEST(ApiFieldsTest, OfGenerate) {
  check_fields(kGenerate, R"({"text":"Once upon","sampling_params":{$}})", "sampling_params.",
               kSampling);
  check_fields(kGenerate, R"({"text":"Once upon","sampling_params":{$}})", "sampling_params.",
               {{"max_new_tokens", {"0", "1"}},
                {"min_new_tokens", {"0", "1"}},
                {"sampling_seed", kInt64},
                {"no_stop_trim", kBools},
                {"stream_interval", {"1"}}});
  check_fields(kGenerate, R"({"text":"Once upon",$})", "",
               {{"sampling_params", {"[null]", "{}", "[{}]"}},
                {"return_logprob", {"true", "false", "[null]"}},
                {"logprob_start_len", {"-1", "0", "1", "[null]", "[-1]"}},
                {"top_logprobs_num", {"0", "1", "[null]"}},
                {"return_text_in_logprobs", kBools},
                {"stream", kBools},
                {"rid", {"\"1\"", "[null]"}},
                {"priority", kInt64},
                {"cache_salt", {"\"1\""}},
                {"log_metrics", kBools},
                {"session_id", kStrings},
                {"lora_path", kEmpty},
                {"image_data", kEmpty},
                {"input_embeds", kEmpty},
                {"token_ids_logprob", kEmpty},
                {"return_hidden_states", kEmpty},
                {"bootstrap_room", kEmpty}});
}

TEST(ApiFieldsTest, OfPrompts) {
  const ApiContext context = demo_context();
  check_field(kCompletion, "{$}", "",
              {"prompt",
               {
                   "\"1\"",
               }},
              context);
  check_field(kChat, "{$}", "", {"messages", kNothing}, context);
  check_field(kGenerate, "{$}", "", {"text", {"\"1\""}}, context);
  check_field(kGenerate, "{$}", "", {"input_ids", kNothing}, context);
  for (const auto& [parse, param] :
       {std::pair{+kCompletion, "prompt"}, {+kChat, "messages"}, {+kGenerate, "text"}}) {
    const auto refused = refusal(parse, "{}", context);
    ASSERT_TRUE(refused);
    EXPECT_EQ(refused->param, param);
    EXPECT_NE(refused->message.find("missing"), std::string::npos);
  }
}

TEST(ApiFieldsTest, OfTheTokenizer) {
  const ApiContext context = demo_context();
  const auto parse_tokenize = [](std::string_view body, const ApiContext& asked) {
    json::parse(tokenize(body, asked));
  };
  const auto parse_detokenize = [](std::string_view body, const ApiContext& asked) {
    json::parse(detokenize(body, asked));
  };
  check_field(parse_tokenize, "{$}", "", {"prompt", kStrings}, context);
  check_field(parse_tokenize, "{$}", "", {"messages", kNothing}, context);
  check_field(parse_tokenize, R"({"prompt":"x",$})", "", {"return_token_strs", kBools}, context);
  check_field(parse_tokenize, R"({"prompt":"x",$})", "", {"add_special_tokens", kBools}, context);
  check_field(parse_detokenize, "{$}", "", {"tokens", {"[]"}}, context);
}

TEST(ApiFieldsTest, StrictModeKnowsEveryFieldAndRefusesTheRest) {
  ApiContext context = demo_context();
  context.is_strict = true;
  const auto refuses = [&](auto&& parse, const std::string& body, const std::string& param) {
    const auto refused = refusal(parse, body, context);
    ASSERT_TRUE(refused) << body;
    EXPECT_EQ(refused->param, param);
  };
  refuses(kCompletion, R"({"prompt":"a","tempreature":1})", "tempreature");
  refuses(kChat, R"({"messages":[{"role":"user","content":"a"}],"surprise":1})", "surprise");
  refuses(kGenerate, R"({"text":"a","surprise":1})", "surprise");
  refuses(kGenerate, R"({"text":"a","sampling_params":{"surprise":1}})",
          "sampling_params.surprise");
  // What benchmark clients send.
  const auto accepts_body = [&](auto&& parse, const std::string& body) {
    const auto refused = refusal(parse, body, context);
    EXPECT_FALSE(refused) << body << ": " << refused->message;
  };
  accepts_body(kCompletion,
               R"({"model":"demo","prompt":"a","repetition_penalty":1.0,"max_tokens":8,
                   "logprobs":null,"stream":true,"stream_options":{"include_usage":true},
                   "ignore_eos":true})");
  accepts_body(kCompletion,
               R"({"model":"demo","prompt":"a","best_of":1,"max_tokens":8,"stream":true,
                   "temperature":0.0,"ignore_eos":true})");
  accepts_body(kChat,
               R"({"model":"demo","messages":[{"role":"user","content":"a"}],
                   "max_completion_tokens":8,"stream":true,"temperature":0.0,"ignore_eos":true})");
  accepts_body(kGenerate,
               R"({"text":"a","sampling_params":{"temperature":0.0,"max_new_tokens":8,
                   "ignore_eos":true},"stream":true,"lora_path":null,"return_logprob":false,
                   "return_routed_experts":false,"logprob_start_len":-1})");
  accepts_body(kGenerate,
               R"({"text":"a","sampling_params":{"skip_special_tokens":true,
                   "spaces_between_special_tokens":true,"max_new_tokens":8,"min_new_tokens":0,
                   "n":1,"stop":[],"stop_token_ids":[],"stop_regex":[],"temperature":1.0,
                   "top_p":1.0,"top_k":-1,"min_p":0.0,"frequency_penalty":0.0,
                   "presence_penalty":0.0,"ignore_eos":false,"regex":null,"json_schema":null}})");
}

}  // namespace
}  // namespace augur::server::test
