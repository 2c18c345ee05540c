// What the engine keeps of a request while it lives.
//
// The scheduler changes the members under "Scheduler", the engine those under "Engine"; the rest
// is constant once the request has been submitted. Neither object moves, since steps point into
// them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/schedule/affinity.h"
#include "engine/schedule/prefix_cache.h"
#include "engine/schedule/request.h"
#include "engine/schedule/stop_strings.h"
#include "engine/text/detokenizer.h"

namespace augur {

struct ActiveRequest;
struct Tenant;

/// One completion of a request: a row of tokens that grows, and the KV blocks behind it. A request
/// that generates nothing has one sequence too, for its prompt.
struct Sequence {
  enum class State : uint8_t {
    kWaiting,  // holds no block
    kRunning,  // holds blocks for every token it has
    kEnded,    // holds no block
  };

  ActiveRequest* request = nullptr;
  int completion_idx = 0;
  int64_t prompt_rows = 0;    // prompt tokens that are computed
  int64_t max_length = 0;     // prompt and output tokens together
  int64_t max_positions = 0;  // KV positions at that length
  bool generates = false;
  SamplingRow sampling;  // what does not change from token to token

  // Scheduler.
  State state = State::kWaiting;
  int64_t priority = 0;  // lower is served earlier; 0 where the policy knows no priorities
  // Of one priority. Lower is older; unique. Changed at most once, by overtaking others on the
  // first admission.
  int64_t age = 0;
  int64_t num_overtaken = 0;  // by whom came later, while it waited to be admitted first
  int num_deferrals = 0;      // steps it let pass because its prompt was being computed
  bool was_admitted = false;
  std::vector<int32_t> blocks;
  int64_t num_shared_blocks = 0;  // the first so many are in the tree of prefixes
  int64_t num_computed = 0;       // positions whose KV is there

  // Engine.
  Completion completion;
  std::optional<Detokenizer> detokenizer;  // none without a tokenizer
  StopMatcher stop_matcher;

  /// Tokens there are to compute, computed or not.
  int64_t num_known() const {
    return prompt_rows + static_cast<int64_t>(completion.output_ids.size());
  }
  int64_t num_pending() const { return num_known() - num_computed; }
  inline int32_t token_at(int64_t position) const;
  inline SplitText text() const;
  /// Whether its rows give the log-probabilities of the prompt.
  inline bool scores_prompt() const;
};

struct ActiveRequest {
  Request request;
  std::vector<Sequence> sequences;  // never resized after submit
  StopStrings stop_strings;
  std::vector<int32_t> stop_ids;  // end-of-text and stop ids that count, sorted
  // logit_bias with every stop id forbidden: used before min_tokens; empty when that is 0.
  std::vector<LogitBias> min_tokens_bias;

  // Scheduler.
  int num_live = 0;  // sequences that have not ended
  bool was_admitted = false;
  int64_t num_cached_tokens = 0;             // of the prompt, found when it was admitted first
  PrefixCache::Root* prefix_root = nullptr;  // null: nothing is shared
  // What a search found of the prompt, in that state of the tree.
  int64_t num_cached_blocks = 0;
  int64_t searched_at = -1;
  Tenant* tenant = nullptr;
  RequestAffinity affinity;

  // Engine.
  RequestResult result;  // prompt_logprobs fills by rising position
  bool is_started = false;
  bool is_ended = false;

  /// The next prompt token whose log-probability is not known yet.
  int64_t next_scored() const {
    return request.score_from + static_cast<int64_t>(result.prompt_logprobs.size());
  }
};

inline int32_t Sequence::token_at(int64_t position) const {
  const std::vector<int32_t>& prompt = request->request.prompt_ids;
  const int64_t num_prompt = static_cast<int64_t>(prompt.size());
  return position < num_prompt ? prompt[position] : completion.output_ids[position - num_prompt];
}

inline SplitText Sequence::text() const {
  return {request->request.prompt_ids, completion.output_ids};
}

inline bool Sequence::scores_prompt() const {
  return request->request.score_prompt && completion_idx == 0;
}

}  // namespace augur
