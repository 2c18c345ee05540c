// Whole runs of the program on the toy model of tests/schedule.
#pragma once

#include <gtest/gtest.h>
#include <boost/json/parse.hpp>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/schedule/toy_model.h"
#include "tests/temp_folder.h"
#include "tools/score/interrupt.h"
#include "tools/score/job.h"

namespace augur::score {

/// A letter is a token. Chats are not for this model.
class LetterCodec final : public TextCodec {
 public:
  std::vector<int32_t> encode(std::string_view text, bool) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back((c - 'a' + 2600) % (test::kToyVocab - 1));
    return ids;
  }
  std::string render_chat(const MessagesInput&, bool) const override {
    throw BadLine("the model has no chat template");
  }
};

class ToyJobTest : public testing::Test {
 protected:
  ToyJobTest() {
    options_.input = folder_.file("in.jsonl");
    options_.output = folder_.file("out.jsonl");
  }
  void TearDown() override { set_caught_signal(0); }

  /// Runs the program's job; `after_step` is told after every step.
  JobResult run(const std::function<void(const JobProgress&)>& after_step = [](const auto&) {}) {
    set_caught_signal(0);
    test::ToyRunner runner(limits_);
    Engine engine(engine_options_, runner, &test::toy_tokenizer());
    Job job(options_, row_settings(options_, EngineConfig(), "toy"));
    const JobResult result = job.run(engine, LetterCodec(), sampling_, engine_options_, after_step);
    num_rows_run_ = runner.num_rows_run();
    return result;
  }

  std::string output() const { return folder_.read("out.jsonl"); }
  std::string errors() const { return folder_.read("out.jsonl.errors.jsonl"); }
  std::vector<std::string> output_lines() const {
    std::istringstream stream(output());
    std::vector<std::string> lines;
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
  }

  /// So many documents of different lengths, ids "d0", "d1", ...
  static std::string documents(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      std::string letters;
      for (int k = 0; k <= i * 7 % 23; ++k) letters += static_cast<char>('a' + (i + k * k) % 23);
      text += "{\"id\":\"d" + std::to_string(i) + "\",\"text\":\"" + letters + "\"}\n";
    }
    return text;
  }

  TempFolder folder_;
  Options options_;
  SamplingParams sampling_;
  ModelRunner::Limits limits_{.max_tokens = 16,
                              .max_seqs = 4,
                              .max_context = 64,
                              .num_kv_blocks = 64,
                              .block_size = 4,
                              .vocab_size = test::kToyVocab};
  EngineOptions engine_options_{
      .max_batch_size = 4, .max_tokens_per_step = 16, .eos_token_ids = {test::kToyEos}};
  int64_t num_rows_run_ = 0;  // by the model, in the last run
};

}  // namespace augur::score
