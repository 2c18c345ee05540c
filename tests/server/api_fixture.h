// What the tests of API calls share: contexts, and calls played by an engine over a toy model.
#pragma once

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <boost/json/value_to.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/schedule/engine.h"
#include "engine/server/api_call.h"
#include "engine/server/api_error.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "tests/schedule/toy_model.h"

namespace augur::server::test {

namespace json = boost::json;

inline const Tokenizer& demo_tokenizer() {
  static const Tokenizer tokenizer =
      Tokenizer::from_file(AUGUR_SOURCE_DIR "/models/tiny-glm4-moe/tokenizer.json");
  return tokenizer;
}

inline const ChatTemplate& demo_template() {
  static const ChatTemplate chat_template =
      *ChatTemplate::from_folder(AUGUR_SOURCE_DIR "/models/tiny-glm4-moe");
  return chat_template;
}

/// The demo model with a context of 256 tokens and memory for 512.
inline ApiContext demo_context() {
  ApiContext context;
  context.model_names = {"demo", "tiny"};
  context.tokenizer = &demo_tokenizer();
  context.chat_template = &demo_template();
  context.limits = {.max_tokens = 64,
                    .max_seqs = 8,
                    .max_context = 256,
                    .num_kv_blocks = 32,
                    .block_size = 16,
                    .vocab_size = 8192};
  context.eos_token_ids = {8182, 8189, 8191};
  return context;
}

/// The toy model, whose tokens are a, b, c and parts of a character.
inline ApiContext toy_context() {
  static const ChatTemplate chat_template(
      "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} a{% endif "
      "%}",
      "toy template");
  ApiContext context;
  context.model_names = {"toy"};
  context.tokenizer = &augur::test::toy_tokenizer();
  context.chat_template = &chat_template;
  context.limits = {.max_tokens = 16,
                    .max_seqs = 4,
                    .max_context = 64,
                    .num_kv_blocks = 64,
                    .block_size = 4,
                    .vocab_size = augur::test::kToyVocab};
  context.eos_token_ids = {augur::test::kToyEos};
  return context;
}

inline CallIdentity identity() {
  return {"call-1", 1700000000};
}

/// What a call was answered.
struct Played {
  std::string text;                 // as it went out
  std::vector<json::value> events;  // of a stream, without [DONE]
  json::value body;                 // else
  std::vector<RequestResult> results;
};

/// Splits a stream into its events; each must be one line of JSON, the last [DONE].
inline std::vector<json::value> read_events(std::string_view text) {
  std::vector<json::value> events;
  bool is_done = false;
  while (!text.empty()) {
    const size_t end = text.find("\n\n");
    EXPECT_NE(end, std::string_view::npos);
    EXPECT_TRUE(text.starts_with("data: "));
    if (end == std::string_view::npos || !text.starts_with("data: ")) return events;
    const std::string_view data = text.substr(6, end - 6);
    text.remove_prefix(end + 2);
    EXPECT_FALSE(is_done) << "an event behind [DONE]";
    is_done = data == "[DONE]";
    if (is_done) continue;
    EXPECT_EQ(data.find('\n'), std::string_view::npos);
    boost::system::error_code error;
    events.push_back(json::parse(data, error));
    EXPECT_FALSE(error) << data;
  }
  EXPECT_TRUE(is_done);
  return events;
}

struct PlayOptions {
  int abort_after_steps = -1;  // all requests
  int32_t failing_token = -1;  // a step with it fails its request
};

/// Runs the requests of `call` to their end.
inline Played play(ApiCall call, const ApiContext& context, PlayOptions options = {}) {
  augur::test::ToyRunner runner(context.limits);
  if (options.failing_token >= 0) runner.fail_on(options.failing_token);
  Engine engine({.max_batch_size = 4,
                 .max_tokens_per_step = 16,
                 .eos_token_ids = context.eos_token_ids,
                 .seed = 3},
                runner, context.tokenizer);
  Played played;
  played.results.resize(call.requests.size());
  std::vector<std::string> ids;
  for (size_t i = 0; i < call.requests.size(); ++i) {
    Request& request = call.requests[i];
    EXPECT_EQ(engine.check(request), "");
    ids.push_back(request.id);
    request.on_update = [&, i](const RequestUpdate& update) {
      call.answer->on_update(static_cast<int>(i), update, played.text);
    };
    request.on_finished = [&, i](RequestResult&& result) {
      played.results[i] = result;
      call.answer->on_finished(static_cast<int>(i), std::move(result), played.text);
    };
    engine.submit(std::move(request));
  }
  for (int step = 0; step != options.abort_after_steps && engine.step(); ++step) {
  }
  for (const std::string& id : ids) engine.abort(id);
  call.answer->on_complete(played.text);
  if (call.is_streamed) {
    played.events = read_events(played.text);
  } else {
    played.body = json::parse(played.text);
  }
  return played;
}

/// What a parser says of a body: nothing when it accepts it.
template <typename Parse>
std::optional<ApiError> refusal(Parse&& parse, std::string_view body, const ApiContext& context) {
  try {
    parse(body, context);
  } catch (const ApiError& error) {
    return error;
  }
  return std::nullopt;
}

}  // namespace augur::server::test
