// Collects what an engine reports, and checks that the reports agree with each other.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "engine/schedule/engine.h"

namespace augur::test {

inline void expect_same(const std::vector<ScoredToken>& actual,
                        const std::vector<ScoredToken>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].token_id, expected[i].token_id) << i;
    EXPECT_EQ(actual[i].logprob, expected[i].logprob) << i;
    ASSERT_EQ(actual[i].top.size(), expected[i].top.size()) << i;
    for (size_t k = 0; k < actual[i].top.size(); ++k) {
      EXPECT_EQ(actual[i].top[k].token_id, expected[i].top[k].token_id);
      EXPECT_EQ(actual[i].top[k].logprob, expected[i].top[k].logprob);
    }
  }
}

inline void expect_same(const Completion& actual, const Completion& expected) {
  EXPECT_EQ(actual.text, expected.text);
  EXPECT_EQ(actual.output_ids, expected.output_ids);
  EXPECT_EQ(actual.finish_reason, expected.finish_reason);
  EXPECT_EQ(actual.matched_stop, expected.matched_stop);
  expect_same(actual.logprobs, expected.logprobs);
}

inline void expect_same(const RequestResult& actual, const RequestResult& expected) {
  EXPECT_EQ(actual.id, expected.id);
  EXPECT_EQ(actual.num_prompt_tokens, expected.num_prompt_tokens);
  expect_same(actual.prompt_logprobs, expected.prompt_logprobs);
  ASSERT_EQ(actual.completions.size(), expected.completions.size());
  for (size_t i = 0; i < actual.completions.size(); ++i) {
    SCOPED_TRACE("completion " + std::to_string(i));
    expect_same(actual.completions[i], expected.completions[i]);
  }
}

class Recorder {
 public:
  /// The request with callbacks that report here.
  Request watch(Request request) {
    const std::string id = request.id;
    request.on_update = [this, id](const RequestUpdate& update) {
      EXPECT_FALSE(results_.contains(id)) << "an update after the end of " << id;
      Completion& streamed = streamed_[{id, update.completion_idx}];
      EXPECT_EQ(streamed.finish_reason, FinishReason::kNone) << "an update after the last";
      streamed.text += update.text;
      streamed.output_ids.insert(streamed.output_ids.end(), update.token_ids.begin(),
                                 update.token_ids.end());
      streamed.logprobs.insert(streamed.logprobs.end(), update.logprobs.begin(),
                               update.logprobs.end());
      streamed.finish_reason = update.finish_reason;
      streamed.matched_stop = update.matched_stop;
    };
    request.on_finished = [this, id](RequestResult&& result) {
      EXPECT_EQ(result.id, id);
      EXPECT_FALSE(results_.contains(id)) << id << " ended twice";
      for (size_t i = 0; i < result.completions.size(); ++i) {
        const Completion& completion = result.completions[i];
        // An abort sends no update, so what was held back is in the result alone.
        if (completion.finish_reason == FinishReason::kAborted ||
            completion.finish_reason == FinishReason::kFailed) {
          continue;
        }
        SCOPED_TRACE("updates of " + id);
        expect_same(streamed_[{id, static_cast<int>(i)}], completion);
      }
      results_.emplace(id, std::move(result));
    };
    return request;
  }

  const std::map<std::string, RequestResult>& results() const { return results_; }
  const Completion& streamed(const std::string& id, int completion_idx) const {
    return streamed_.at({id, completion_idx});
  }

 private:
  std::map<std::string, RequestResult> results_;
  std::map<std::pair<std::string, int>, Completion> streamed_;
};

}  // namespace augur::test
