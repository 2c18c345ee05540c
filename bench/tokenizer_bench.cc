// Encoding and decoding throughput of the tokenizers, on one thread.
//
// Text: the documents of tests/data/eval.jsonl in English prose (WordNet, the facts and the
// handbooks left out: "english"), and all of them ("mixed": code, tables, 10 languages).
// bytes_per_second counts bytes of text. The bound of encoding is reading the text once for each
// split pattern and once for the words; nobody comes near memory bandwidth here, so none is shown.
#include <benchmark/benchmark.h>
#include <simdjson.h>

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"

namespace augur {
namespace {

const std::filesystem::path kRoot = AUGUR_SOURCE_DIR;

bool is_english_prose(std::string_view domain) {
  constexpr std::array<std::string_view, 6> kDomains = {"apache",   "git",       "handbook-en-US",
                                                        "postgres", "rust-book", "sqlite"};
  for (const std::string_view prose : kDomains) {
    if (domain == prose) return true;
  }
  return false;
}

std::vector<std::string> load_documents(bool only_english) {
  std::vector<std::string> documents;
  simdjson::dom::parser parser;
  simdjson::dom::document_stream stream =
      parser.load_many((kRoot / "tests/data/eval.jsonl").string()).value();
  for (const simdjson::dom::element document : stream) {
    if (only_english && !is_english_prose(document["domain"])) continue;
    documents.emplace_back(std::string_view(document["text"]));
  }
  return documents;
}

Tokenizer load_tokenizer(const std::string& name) {
  if (name == "demo") {
    return Tokenizer::from_file(kRoot / "models/tiny-glm4-moe/tokenizer.json");
  }
  return Tokenizer::from_file(kRoot / "tests/text/data/tokenizers" / (name + ".json"));
}

// One document after the other, over and over: after the first round the word cache is warm, as
// in a server or a long scoring run.
void BM_Encode(benchmark::State& state, const std::string& name, bool only_english) {
  const Tokenizer tokenizer = load_tokenizer(name);
  const std::vector<std::string> documents = load_documents(only_english);
  int64_t num_bytes = 0;
  int64_t num_tokens = 0;
  for (auto _ : state) {
    for (const std::string& document : documents) {
      num_tokens += static_cast<int64_t>(tokenizer.encode(document).size());
      num_bytes += static_cast<int64_t>(document.size());
    }
  }
  state.SetBytesProcessed(num_bytes);
  state.counters["tokens_per_second"] =
      benchmark::Counter(static_cast<double>(num_tokens), benchmark::Counter::kIsRate);
}

// A new tokenizer each time, so nothing is cached: the first document of a process.
void BM_EncodeCold(benchmark::State& state, const std::string& name) {
  const std::vector<std::string> documents = load_documents(/*only_english=*/true);
  int64_t num_bytes = 0;
  for (auto _ : state) {
    state.PauseTiming();
    const Tokenizer tokenizer = load_tokenizer(name);
    state.ResumeTiming();
    for (const std::string& document : documents) {
      benchmark::DoNotOptimize(tokenizer.encode(document).data());
      num_bytes += static_cast<int64_t>(document.size());
    }
  }
  state.SetBytesProcessed(num_bytes);
}

void BM_Decode(benchmark::State& state, const std::string& name) {
  const Tokenizer tokenizer = load_tokenizer(name);
  std::vector<std::vector<int32_t>> sequences;
  for (const std::string& document : load_documents(/*only_english=*/true)) {
    sequences.push_back(tokenizer.encode(document));
  }
  int64_t num_bytes = 0;
  for (auto _ : state) {
    for (const auto& ids : sequences) {
      num_bytes += static_cast<int64_t>(tokenizer.decode(ids).size());
    }
  }
  state.SetBytesProcessed(num_bytes);
}

void BM_Stream(benchmark::State& state, const std::string& name) {
  const Tokenizer tokenizer = load_tokenizer(name);
  std::vector<int32_t> ids;
  for (const std::string& document : load_documents(/*only_english=*/true)) {
    const std::vector<int32_t> more = tokenizer.encode(document);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  for (auto _ : state) {
    Detokenizer detokenizer(tokenizer);
    for (const int32_t id : ids) benchmark::DoNotOptimize(detokenizer.push(id));
    benchmark::DoNotOptimize(detokenizer.finish());
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(ids.size()));
}

void BM_Load(benchmark::State& state, const std::string& name) {
  for (auto _ : state) benchmark::DoNotOptimize(load_tokenizer(name).vocab_size());
}

// One word of this many bytes that no cut divides: the heap does all the merging.
void BM_EncodeLongWord(benchmark::State& state) {
  const Tokenizer tokenizer = load_tokenizer("demo");
  const std::string word(static_cast<size_t>(state.range(0)), 'e');
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.encode(word).data());
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

const bool kRegistered = [] {
  for (const std::string name : {"demo", "gpt2_like", "gpt4_like", "o200k_like", "qwen_like",
                                 "deepseek_like", "llama2_like"}) {
    benchmark::RegisterBenchmark(("BM_Encode/english/" + name).c_str(), BM_Encode, name, true);
    benchmark::RegisterBenchmark(("BM_Encode/mixed/" + name).c_str(), BM_Encode, name, false);
    benchmark::RegisterBenchmark(("BM_Decode/" + name).c_str(), BM_Decode, name);
  }
  benchmark::RegisterBenchmark("BM_EncodeCold/demo", BM_EncodeCold, "demo")
      ->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("BM_Stream/demo", BM_Stream, "demo");
  benchmark::RegisterBenchmark("BM_Load/demo", BM_Load, "demo")->Unit(benchmark::kMillisecond);
  return true;
}();

BENCHMARK(BM_EncodeLongWord)->RangeMultiplier(16)->Range(1 << 12, 1 << 20);

}  // namespace
}  // namespace augur

BENCHMARK_MAIN();
