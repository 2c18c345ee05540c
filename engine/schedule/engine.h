// Requests in, steps out: continuous batching over one model.
//
// Each step takes decode rows first and fills the token budget with prefill chunks. KV blocks are
// taken as a sequence grows; when none is left the newest running completion is preempted (of the
// worst priority, where the policy knows priorities): its blocks are given back and it is
// recomputed later, with the same result (docs/engine.md).
// Threading: one thread calls everything; callbacks run on it, inside step() or abort(). They may
// call submit() and abort(), but not step(), and do not throw.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/step_batch.h"
#include "engine/schedule/affinity.h"
#include "engine/schedule/request.h"
#include "engine/schedule/schedule_options.h"

namespace augur {

class Tokenizer;

struct EngineOptions {
  int64_t max_batch_size = 64;         // completions running at once
  int64_t max_tokens_per_step = 2048;  // prefill and decode rows of one step
  std::vector<int32_t> eos_token_ids;
  uint64_t seed = 0;  // for requests without one
  SchedulePolicy policy = SchedulePolicy::kFcfs;
  // kExpertAffinity needs the oracle; the rest bounds how far those who came first may be overtaken
  // by it and by kLongestPrefixMatch.
  AffinityOptions affinity;
  bool fair_queueing = false;       // tenants take turns by the tokens they were served
  bool prefix_cache = false;        // keys and values are kept for requests that begin alike
  AdmissionObserver on_admitted{};  // may be empty
};

/// Counted since the engine was made.
struct EngineCounters {
  int64_t num_steps = 0;
  int64_t prefill_tokens = 0;  // rows of prompts, and of outputs recomputed after a preemption
  int64_t decode_tokens = 0;   // rows of the newest output tokens
  int64_t preemptions = 0;
  int64_t reordered_admissions = 0;  // of completions that overtook another
  int64_t finished_requests = 0;     // those aborted too
  int64_t step_us = 0;               // inside ModelRunner::run
  // Of prompts when they were first admitted: tokens looked up in the prefix cache, those found.
  int64_t prefix_query_tokens = 0;
  int64_t prefix_hit_tokens = 0;
  int64_t prefix_evicted_blocks = 0;  // given up because memory was needed
};

class Engine {
 public:
  /// `runner` and `tokenizer` outlive the engine. Without a tokenizer there is no text and no
  /// stop string. The runner's limits bind as well as the options'; all of them are at least 1.
  Engine(const EngineOptions& options, ModelRunner& runner, const Tokenizer* tokenizer);
  ~Engine();

  /// Says why a request cannot be served (empty prompt, ids out of range, longer than the
  /// context, settings out of range, more KV than there is, an id in use), or returns an empty
  /// string. A request that passes is always finished.
  std::string check(const Request& request) const;

  /// Queues a request. Requires check(request).empty().
  void submit(Request request);

  /// Runs one step and delivers what became final. Returns false, having done nothing, when no
  /// request is left. What ModelRunner::run throws passes through, and the step can be tried again.
  bool step();

  /// Ends a request, waiting or running; its on_finished is called with what there is, text that
  /// was held back included. Returns false when no such request is there.
  bool abort(std::string_view id);

  int64_t num_waiting() const;           // completions
  int64_t num_running() const;           // completions
  int64_t num_free_kv_blocks() const;    // held by nobody; what only the prefix cache holds is not
  int64_t num_cached_kv_blocks() const;  // held by the prefix cache, in use or not
  int64_t num_idle_kv_blocks() const;    // of those, not in use: as good as free
  /// Gives up what the prefix cache holds and nobody uses. Returns the number of blocks freed.
  int64_t flush_prefix_cache();
  const EngineCounters& counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur
