// A scheduler without an engine: sequences that get a token whenever all they have is computed.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "engine/schedule/scheduler.h"

namespace augur::test {

class SchedulerFixture : public ::testing::Test {
 protected:
  using Rows = std::vector<std::pair<int64_t, int64_t>>;  // age, rows

  /// Begins anew.
  void make(const ScheduleLimits& limits, const ScheduleOptions& options = {}) {
    scheduler_ = std::make_unique<Scheduler>(limits, options);
    limits_ = limits;
    requests_.clear();
    first_admissions_.clear();
    seen_.clear();
  }

  /// The prompt is `num_prompt` times `token_id`.
  ActiveRequest& add(int num_prompt, int max_tokens, int n = 1, int32_t token_id = 1) {
    Request request;
    request.prompt_ids.assign(num_prompt, token_id);
    return add(std::move(request), max_tokens, n);
  }

  ActiveRequest& add(Request request, int max_tokens, int n = 1) {
    ActiveRequest& active = *requests_.emplace_back(std::make_unique<ActiveRequest>());
    active.request = std::move(request);
    const auto num_prompt = static_cast<int64_t>(active.request.prompt_ids.size());
    for (int i = 0; i < n; ++i) {
      active.sequences.push_back(Sequence{.request = &active,
                                          .completion_idx = i,
                                          .prompt_rows = num_prompt,
                                          .max_length = num_prompt + max_tokens,
                                          .max_positions = num_prompt + max_tokens - 1,
                                          .generates = true,
                                          .stop_matcher = StopMatcher(no_stops_, false)});
    }
    scheduler_->add(active);
    return active;
  }

  /// Plans, commits, and gives each sequence that is all computed its next token.
  Rows step() {
    Rows rows;
    std::vector<Sequence*> sequences;
    const std::vector<ScheduledRows> plan = scheduler_->plan();
    for (const ScheduledRows& entry : plan) {
      rows.emplace_back(entry.sequence->age, entry.num_rows);
      sequences.push_back(entry.sequence);
      if (seen_.insert(entry.sequence).second) first_admissions_.push_back(entry.sequence);
    }
    scheduler_->commit(plan);
    for (Sequence* sequence : sequences) {
      if (sequence->num_pending() > 0) continue;
      sequence->completion.output_ids.push_back(2);
      if (sequence->num_known() == sequence->max_length) scheduler_->end(*sequence);
    }
    return rows;
  }

  ScheduleLimits limits_;
  StopStrings no_stops_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<std::unique_ptr<ActiveRequest>> requests_;
  std::vector<Sequence*> first_admissions_;  // in their order

 private:
  std::set<Sequence*> seen_;
};

}  // namespace augur::test
