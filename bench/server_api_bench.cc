// What the server's API costs on the host: a chunk of a stream, by form, and a request's parsing.
//
// A stream of one text token a step is what serving is made of: its chunk is built once for each
// token of each stream, on the thread that also reads sockets.
#include <benchmark/benchmark.h>

#include <string>
#include <utility>

#include "engine/server/api_call.h"
#include "engine/server/json_text.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace augur::server {
namespace {

constexpr int kStreamTokens = 256;  // of a stream that is measured; then another begins
constexpr char kFolder[] = AUGUR_SOURCE_DIR "/models/tiny-glm4-moe";

const ApiContext& context() {
  static const Tokenizer tokenizer = Tokenizer::from_file(std::string(kFolder) + "/tokenizer.json");
  static const ChatTemplate chat_template = *ChatTemplate::from_folder(kFolder);
  static const ApiContext context{.model_names = {"demo"},
                                  .tokenizer = &tokenizer,
                                  .chat_template = &chat_template,
                                  .limits = {.max_tokens = 64,
                                             .max_seqs = 8,
                                             .max_context = 1 << 16,
                                             .num_kv_blocks = 1 << 13,
                                             .block_size = 16,
                                             .vocab_size = 8192}};
  return context;
}

using Parse = ApiCall (*)(std::string_view, const ApiContext&, const CallIdentity&);
const CallIdentity kIdentity{"cmpl-0123456789abcdef", 1700000000};

RequestUpdate make_update(bool has_logprobs) {
  RequestUpdate update;
  update.text = " fox \"jumps\"";
  update.token_ids = {1234};
  if (has_logprobs) {
    ScoredToken token{1234, -0.7182818f, {}};
    for (int32_t id = 100; id < 105; ++id)
      token.top.push_back({id, -1.0f * static_cast<float>(id)});
    update.logprobs.push_back(token);
  }
  return update;
}

void measure_chunks(benchmark::State& state, Parse parse, std::string_view body) {
  const RequestUpdate update = make_update(body.find("logprob") != std::string_view::npos);
  std::string out;
  int64_t num_bytes = 0;
  ApiCall call = parse(body, context(), kIdentity);
  int num_tokens = 0;
  for (auto _ : state) {
    if (num_tokens++ == kStreamTokens) {
      state.PauseTiming();
      call = parse(body, context(), kIdentity);
      num_tokens = 1;
      state.ResumeTiming();
    }
    out.clear();
    call.answer->on_update(0, update, out);
    benchmark::DoNotOptimize(out.data());
    num_bytes += static_cast<int64_t>(out.size());
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["bytes/chunk"] =
      benchmark::Counter(static_cast<double>(num_bytes), benchmark::Counter::kAvgIterations);
}

void measure_parse(benchmark::State& state, Parse parse, const std::string& body) {
  for (auto _ : state) {
    ApiCall call = parse(body, context(), kIdentity);
    benchmark::DoNotOptimize(call.requests.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(body.size()));
}

std::string text_of(int num_words) {
  std::string text;
  for (int i = 0; i < num_words; ++i) text += "The quick brown fox jumps over the lazy dog. ";
  return text;
}

std::string ids_of(int num_ids) {
  std::string ids = "[1";
  for (int i = 1; i < num_ids; ++i) ids.append(",").append(std::to_string(i % 8000));
  return ids + "]";
}

void BM_CompletionChunk(benchmark::State& state) {
  measure_chunks(state, parse_completion_call, R"({"prompt":"a","stream":true})");
}
void BM_CompletionChunkLogprobs(benchmark::State& state) {
  measure_chunks(state, parse_completion_call, R"({"prompt":"a","stream":true,"logprobs":5})");
}
void BM_ChatChunk(benchmark::State& state) {
  measure_chunks(state, parse_chat_call,
                 R"({"messages":[{"role":"user","content":"a"}],"stream":true})");
}
void BM_ChatChunkLogprobs(benchmark::State& state) {
  measure_chunks(state, parse_chat_call,
                 R"({"messages":[{"role":"user","content":"a"}],"stream":true,"logprobs":true,
                     "top_logprobs":5})");
}
// On average half of kStreamTokens behind the first: each event is the whole text so far.
void BM_GenerateChunk(benchmark::State& state) {
  measure_chunks(state, parse_generate_call, R"({"text":"a","stream":true})");
}
BENCHMARK(BM_CompletionChunk);
BENCHMARK(BM_CompletionChunkLogprobs);
BENCHMARK(BM_ChatChunk);
BENCHMARK(BM_ChatChunkLogprobs);
BENCHMARK(BM_GenerateChunk);

void BM_ParseShortChat(benchmark::State& state) {
  measure_parse(state, parse_chat_call,
                R"({"model":"demo","messages":[{"role":"system","content":"Be brief."},
                    {"role":"user","content":"Hello, who are you?"}],"max_tokens":16,
                    "temperature":0.7,"stream":true,"stream_options":{"include_usage":true}})");
}
void BM_ParseLongText(benchmark::State& state) {
  measure_parse(state, parse_completion_call, R"({"prompt":")" + text_of(400) + "\"}");
}
void BM_ParseIds(benchmark::State& state) {
  measure_parse(state, parse_completion_call, R"({"prompt":)" + ids_of(8192) + "}");
}
BENCHMARK(BM_ParseShortChat);
BENCHMARK(BM_ParseLongText);
BENCHMARK(BM_ParseIds);

void BM_EscapeText(benchmark::State& state) {
  const std::string text = text_of(20);
  std::string out;
  for (auto _ : state) {
    out.clear();
    append_json_string(text, out);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}
BENCHMARK(BM_EscapeText);

}  // namespace
}  // namespace augur::server
