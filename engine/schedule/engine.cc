#include "engine/schedule/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <unordered_map>
#include <utility>

#include "engine/schedule/scheduler.h"
#include "engine/schedule/step_builder.h"
#include "engine/schedule/validation.h"
#include "kernels/require.h"

namespace augur {
namespace {

/// Mixes all bits of `x` into all bits of the result (the finaliser of SplitMix64; Steele, Lea and
/// Flood 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// The seed of a request that names none: of the engine's seed and the request's id (FNV-1a) alone,
/// so that neither the order of arrival nor other requests matter.
uint64_t derive_seed(uint64_t engine_seed, std::string_view id) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return mix(mix(engine_seed + 0x9E3779B97F4A7C15u) ^ hash);
}

std::vector<LogitBias> forbid(const std::vector<LogitBias>& biases,
                              const std::vector<int32_t>& sorted_ids) {
  std::vector<LogitBias> result;
  for (const LogitBias& bias : biases) {
    const bool is_forbidden =
        std::binary_search(sorted_ids.begin(), sorted_ids.end(), bias.token_id);
    if (!is_forbidden) result.push_back(bias);
  }
  for (const int32_t id : sorted_ids) {
    result.push_back({id, -std::numeric_limits<float>::infinity()});
  }
  return result;
}

ScheduleLimits schedule_limits(const EngineOptions& options, const ModelRunner::Limits& limits) {
  return {.max_running = std::min(options.max_batch_size, limits.max_seqs),
          .max_rows = std::min(options.max_tokens_per_step, limits.max_tokens),
          .num_blocks = limits.num_kv_blocks,
          .block_size = limits.block_size};
}

ScheduleOptions schedule_options(const EngineOptions& options) {
  return {.policy = options.policy,
          .affinity = options.affinity,
          .fair_queueing = options.fair_queueing,
          .prefix_cache = options.prefix_cache,
          .on_admitted = options.on_admitted};
}

}  // namespace

class Engine::Impl {
 public:
  Impl(const EngineOptions& options, ModelRunner& runner, const Tokenizer* tokenizer)
      : options_(options),
        runner_(runner),
        limits_(runner.limits()),
        tokenizer_(tokenizer),
        scheduler_(schedule_limits(options, limits_), schedule_options(options)) {
    AUGUR_REQUIRE(
        limits_.max_context >= 1 && limits_.max_context <= std::numeric_limits<int32_t>::max(),
        fmt::format("max_context is {}", limits_.max_context));
    AUGUR_REQUIRE(limits_.vocab_size >= 1, fmt::format("vocab_size is {}", limits_.vocab_size));
    for (const int32_t id : options_.eos_token_ids) {
      AUGUR_REQUIRE(
          id >= 0 && id < limits_.vocab_size,
          fmt::format("end-of-text token {} of a vocabulary of {}", id, limits_.vocab_size));
    }
  }

  // The runner outlives the engine, and another engine may use it.
  ~Impl() { drop_flights(); }

  std::string check(const Request& request) const {
    if (requests_.contains(request.id)) {
      return fmt::format("request id \"{}\" is in use; accepted: an id no live request has",
                         request.id);
    }
    return validate_request(request, limits_, options_.eos_token_ids, tokenizer_ != nullptr);
  }

  void submit(Request request);
  bool step();
  bool abort(std::string_view id);

  const Scheduler& scheduler() const { return scheduler_; }
  int64_t flush_prefix_cache() { return scheduler_.flush_prefixes(); }
  const EngineCounters& counters() const { return counters_; }

 private:
  /// What on_update will be told at the end of the step.
  struct News {
    ActiveRequest* request = nullptr;
    RequestUpdate update;
  };

  /// A step that was launched.
  struct Flight {
    std::vector<ScheduledRows> plan;
    StepBatch batch;
    std::vector<LogitOwner> owners;
  };

  void init_sequence(ActiveRequest& active, Sequence& sequence) const;
  /// Returns false when the step failed; the requests that it failed for have ended then.
  bool launch(Flight& flight);
  /// Plans the step after one that is under way, whose sampled tokens are not known yet. Empty when
  /// that cannot be done without them, or would keep others waiting.
  void plan_ahead(const Flight& flight, std::vector<ScheduledRows>& plan);
  void count_rows(const std::vector<ScheduledRows>& plan);
  void mark_started(const std::vector<ScheduledRows>& plan, RequestTimes::Time now);
  void fail(const Flight& flight, const StepFailed& error);
  void collect(const Flight& flight);
  void drop_flights();
  void forget(const Sequence& sequence);
  void take_results(Flight& flight);
  void take_prompt_score(ActiveRequest& active, const LogitRow& row, LogitResult& result);
  void take_token(Sequence& sequence, LogitResult& result);
  /// Appends a token's text, and says whether it ended the completion with a stop string.
  bool append_text(Sequence& sequence, int32_t token_id, bool is_stop_id, bool is_last);
  RequestUpdate& next_update(ActiveRequest& active);
  void end_sequence(Sequence& sequence, FinishReason reason);
  void deliver();
  void finish(ActiveRequest& active);

  // Constant after construction.
  const EngineOptions options_;
  ModelRunner& runner_;
  const ModelRunner::Limits limits_;
  const Tokenizer* const tokenizer_;

  Scheduler scheduler_;
  // By id; the keys are the ids inside the requests.
  std::unordered_map<std::string_view, std::unique_ptr<ActiveRequest>> requests_;
  EngineCounters counters_;

  // Steps under way, the older first. They keep their memory.
  std::array<Flight, ModelRunner::kMaxSteps> flights_;
  int num_flights_ = 0;

  // Of one step; they keep their memory.
  std::vector<LogitResult> results_;
  std::vector<Sequence*> prefilled_;     // those that generate nothing, when their prompt is done
  std::vector<ActiveRequest*> started_;  // on_started is due
  std::vector<News> news_;
  size_t num_news_ = 0;
  std::vector<std::unique_ptr<ActiveRequest>> ended_;  // deleted once nothing points to them
  bool is_delivering_ = false;
};

void Engine::Impl::submit(Request request) {
  const std::string error = check(request);
  AUGUR_REQUIRE(error.empty(), error);
  auto active = std::make_unique<ActiveRequest>();
  active->request = std::move(request);
  const Request& asked = active->request;
  const SamplingParams& params = asked.sampling;
  active->stop_strings = StopStrings(params.stop);
  active->stop_ids = stop_ids(params, options_.eos_token_ids);
  if (params.min_tokens > 0) active->min_tokens_bias = forbid(params.logit_bias, active->stop_ids);
  active->result.id = asked.id;
  active->result.num_prompt_tokens = static_cast<int64_t>(asked.prompt_ids.size());
  active->result.times.submitted = std::chrono::steady_clock::now();
  const int num_sequences = params.max_tokens > 0 ? params.n : 1;
  active->sequences.reserve(num_sequences);
  for (int i = 0; i < num_sequences; ++i) {
    active->sequences.push_back(
        Sequence{.request = active.get(),
                 .completion_idx = i,
                 .stop_matcher = StopMatcher(active->stop_strings, params.include_stop_in_output)});
    init_sequence(*active, active->sequences.back());
  }
  ActiveRequest& added = *active;
  requests_.emplace(asked.id, std::move(active));
  scheduler_.add(added);
}

void Engine::Impl::init_sequence(ActiveRequest& active, Sequence& sequence) const {
  const Request& request = active.request;
  const SamplingParams& params = request.sampling;
  sequence.generates = params.max_tokens > 0;
  sequence.max_length = max_length(request, limits_);
  sequence.max_positions = max_positions(request, sequence.max_length);
  sequence.prompt_rows =
      sequence.generates ? static_cast<int64_t>(request.prompt_ids.size()) : sequence.max_positions;
  SamplingRow& sampling = sequence.sampling;
  sampling.temperature = params.temperature;
  sampling.top_k = std::max(params.top_k, 0);
  sampling.top_p = params.top_p;
  sampling.min_p = params.min_p;
  sampling.repetition_penalty = params.repetition_penalty;
  sampling.presence_penalty = params.presence_penalty;
  sampling.frequency_penalty = params.frequency_penalty;
  sampling.seed = params.seed.value_or(derive_seed(options_.seed, request.id)) +
                  static_cast<uint64_t>(sequence.completion_idx);
  sampling.prompt_ids = request.prompt_ids;
  if (tokenizer_ != nullptr && sequence.generates) {
    sequence.detokenizer.emplace(*tokenizer_, params.skip_special_tokens);
  }
}

bool Engine::Impl::step() {
  AUGUR_REQUIRE(!is_delivering_, "step() was called from a callback");
  if (requests_.empty()) {
    drop_flights();
    return false;
  }
  if (num_flights_ == 0) {
    flights_[0].plan = scheduler_.plan();
    AUGUR_REQUIRE(!flights_[0].plan.empty(), "there are requests, but nothing could be scheduled");
    if (!launch(flights_[0])) {
      deliver();
      return true;
    }
  }
  // The next step is queued before the results of this one are there: the device goes on while the
  // host reads them.
  if (num_flights_ == 1 && runner_.runs_ahead()) {
    plan_ahead(flights_[0], flights_[1].plan);
    if (!flights_[1].plan.empty()) launch(flights_[1]);
  }
  try {
    collect(flights_[0]);
  } catch (...) {
    drop_flights();
    throw;
  }

  // From here on nothing fails, so that a step is taken as a whole or not at all.
  Flight& flight = flights_[0];
  prefilled_.clear();
  for (const ScheduledRows& rows : flight.plan) {
    if (rows.sequence == nullptr || rows.sequence->generates) continue;
    if (rows.end() == rows.sequence->num_known()) prefilled_.push_back(rows.sequence);
  }
  scheduler_.commit(flight.plan);
  take_results(flight);
  std::swap(flights_[0], flights_[1]);
  --num_flights_;
  deliver();
  return true;
}

bool Engine::Impl::launch(Flight& flight) {
  const auto start = std::chrono::steady_clock::now();
  build_step(flight.plan, limits_.block_size, flight.batch, flight.owners);
  try {
    runner_.launch(flight.batch);
  } catch (const StepFailed& error) {
    fail(flight, error);
    return false;
  }
  ++num_flights_;
  count_rows(flight.plan);
  const auto now = std::chrono::steady_clock::now();
  mark_started(flight.plan, now);
  const auto elapsed = now - start;
  counters_.step_us += std::chrono::duration_cast<std::chrono::microseconds>(elapsed).count();
  return true;
}

// Ends the requests that a step cannot be run with. The others are as they were before it.
void Engine::Impl::fail(const Flight& flight, const StepFailed& error) {
  num_news_ = 0;
  for (const int seq_idx : error.seqs) {
    ActiveRequest& active = *flight.plan[seq_idx].sequence->request;
    if (!active.result.error.empty()) continue;  // of another sequence of it
    active.result.error = error.what();
    for (Sequence& sequence : active.sequences) {
      if (sequence.state != Sequence::State::kEnded) {
        end_sequence(sequence, FinishReason::kFailed);
      }
    }
  }
}

void Engine::Impl::plan_ahead(const Flight& flight, std::vector<ScheduledRows>& plan) {
  plan.clear();
  if (scheduler_.could_admit() ||
      scheduler_.num_running() != static_cast<int64_t>(flight.plan.size()))
    return;
  // Every sequence has one sampled row in the flight, in the order of the plan.
  int32_t sampled_row = -1;
  for (const ScheduledRows& rows : flight.plan) {
    if (rows.sequence == nullptr || !samples(rows)) return plan.clear();
    do {
      ++sampled_row;
    } while (flight.owners[sampled_row].is_prompt_score);
    Sequence& sequence = *rows.sequence;
    const SamplingRow& sampling = sequence.sampling;
    if (sampling.penalises_repetition() || sampling.counts_output()) return plan.clear();
    const int64_t length = rows.end() + 1;  // with the token being sampled
    if (length >= sequence.max_length) continue;
    if (!scheduler_.try_grow(sequence, length)) return plan.clear();
    plan.push_back({&sequence, 1, rows.end(), sampled_row});
  }
}

void Engine::Impl::collect(const Flight& flight) {
  const auto start = std::chrono::steady_clock::now();
  runner_.collect(results_);
  const auto elapsed = std::chrono::steady_clock::now() - start;
  counters_.step_us += std::chrono::duration_cast<std::chrono::microseconds>(elapsed).count();
  AUGUR_REQUIRE(results_.size() == flight.batch.logit_rows.size(),
                fmt::format("the runner gave {} results for {} logit rows", results_.size(),
                            flight.batch.logit_rows.size()));
  for (size_t i = 0; i < results_.size(); ++i) {
    const int32_t id = results_[i].sampled_id;
    AUGUR_REQUIRE(!flight.batch.logit_rows[i].wants_sample || (id >= 0 && id < limits_.vocab_size),
                  fmt::format("token {} was sampled in logit row {}, of a vocabulary of {}", id, i,
                              limits_.vocab_size));
  }
}

// What is under way is of no use any more; its results are waited for and thrown away.
void Engine::Impl::drop_flights() {
  for (; num_flights_ > 0; --num_flights_) {
    try {
      runner_.collect(results_);
    } catch (const std::exception&) {
      // The step that is being dropped for a failure fails again: nothing more to say.
    }
  }
}

// Rows of a sequence that has ended are computed all the same where they are under way.
void Engine::Impl::forget(const Sequence& sequence) {
  for (int i = 0; i < num_flights_; ++i) {
    for (ScheduledRows& rows : flights_[i].plan) {
      if (rows.sequence == &sequence) rows.sequence = nullptr;
    }
    for (LogitOwner& owner : flights_[i].owners) {
      if (owner.sequence == &sequence) owner.sequence = nullptr;
    }
  }
}

void Engine::Impl::count_rows(const std::vector<ScheduledRows>& plan) {
  ++counters_.num_steps;
  const ScheduleCounters& scheduled = scheduler_.counters();
  counters_.preemptions = scheduled.preemptions;
  counters_.reordered_admissions = scheduled.reordered_admissions;
  counters_.prefix_query_tokens = scheduled.prefix_query_tokens;
  counters_.prefix_hit_tokens = scheduled.prefix_hit_tokens;
  counters_.prefix_evicted_blocks = scheduler_.kv().num_evicted();
  for (const ScheduledRows& rows : plan) {
    const Sequence& sequence = *rows.sequence;
    const bool is_decode =
        rows.sampled_row >= 0 || (rows.num_rows == 1 && sequence.num_pending() == 1 &&
                                  !sequence.completion.output_ids.empty());
    (is_decode ? counters_.decode_tokens : counters_.prefill_tokens) += rows.num_rows;
  }
}

void Engine::Impl::mark_started(const std::vector<ScheduledRows>& plan, RequestTimes::Time now) {
  for (const ScheduledRows& rows : plan) {
    ActiveRequest& active = *rows.sequence->request;
    if (std::exchange(active.is_started, true)) continue;
    active.result.times.started = now;
    active.result.num_cached_tokens = active.num_cached_tokens;
    if (active.request.on_started) started_.push_back(&active);
  }
}

void Engine::Impl::take_results(Flight& flight) {
  num_news_ = 0;
  for (size_t i = 0; i < results_.size(); ++i) {
    if (flight.owners[i].sequence == nullptr) continue;
    Sequence& sequence = *flight.owners[i].sequence;
    if (flight.owners[i].is_prompt_score) {
      take_prompt_score(*sequence.request, flight.batch.logit_rows[i], results_[i]);
    } else {
      take_token(sequence, results_[i]);
    }
  }
  for (Sequence* sequence : prefilled_) end_sequence(*sequence, FinishReason::kNone);
}

void Engine::Impl::take_prompt_score(ActiveRequest& active,
                                     const LogitRow& row,
                                     LogitResult& result) {
  active.result.prompt_logprobs.push_back({row.target_id, result.logprob, std::move(result.top)});
}

void Engine::Impl::take_token(Sequence& sequence, LogitResult& result) {
  ActiveRequest& active = *sequence.request;
  const SamplingParams& params = active.request.sampling;
  Completion& completion = sequence.completion;
  const int32_t token_id = result.sampled_id;
  const size_t old_text_bytes = completion.text.size();

  if (active.result.times.first_token == RequestTimes::Time()) {
    active.result.times.first_token = std::chrono::steady_clock::now();
  }
  completion.output_ids.push_back(token_id);
  if (params.logprobs >= 0) {
    completion.logprobs.push_back({token_id, result.logprob, std::move(result.top)});
  }
  const bool is_stop_id =
      std::binary_search(active.stop_ids.begin(), active.stop_ids.end(), token_id);
  const bool is_full = sequence.num_known() == sequence.max_length;
  const bool is_stopped =
      append_text(sequence, token_id, is_stop_id, /*is_last=*/is_stop_id || is_full);
  const FinishReason reason = is_stopped || is_stop_id ? FinishReason::kStop
                              : is_full                ? FinishReason::kLength
                                                       : FinishReason::kNone;
  if (active.request.on_update) {
    RequestUpdate& update = next_update(active);
    update.completion_idx = sequence.completion_idx;
    update.text.assign(completion.text, old_text_bytes);
    update.token_ids.assign(1, token_id);
    update.logprobs.clear();
    if (params.logprobs >= 0) update.logprobs.push_back(completion.logprobs.back());
    update.finish_reason = reason;
    update.matched_stop = completion.matched_stop;
  }
  if (reason != FinishReason::kNone) end_sequence(sequence, reason);
}

bool Engine::Impl::append_text(Sequence& sequence,
                               int32_t token_id,
                               bool is_stop_id,
                               bool is_last) {
  if (!sequence.detokenizer) return false;
  const ActiveRequest& active = *sequence.request;
  const SamplingParams& params = active.request.sampling;
  Completion& completion = sequence.completion;
  std::string piece;
  if (!is_stop_id || params.include_stop_in_output) piece = sequence.detokenizer->push(token_id);
  if (is_last) piece += sequence.detokenizer->finish();
  const bool may_match = static_cast<int64_t>(completion.output_ids.size()) > params.min_tokens;
  const int match = sequence.stop_matcher.push(piece, may_match, completion.text);
  if (match != StopMatcher::kNoMatch) {
    completion.matched_stop = active.stop_strings[match];
    return true;
  }
  if (is_last) sequence.stop_matcher.finish(completion.text);
  return false;
}

RequestUpdate& Engine::Impl::next_update(ActiveRequest& active) {
  if (num_news_ == news_.size()) news_.emplace_back();
  News& news = news_[num_news_++];
  news.request = &active;
  return news.update;
}

void Engine::Impl::end_sequence(Sequence& sequence, FinishReason reason) {
  ActiveRequest& active = *sequence.request;
  sequence.completion.finish_reason = reason;
  forget(sequence);
  scheduler_.end(sequence);
  if (active.num_live > 0) return;
  auto node = requests_.extract(active.request.id);
  ended_.push_back(std::move(node.mapped()));
}

// Callbacks come last, when everything else is settled: they may submit and abort.
void Engine::Impl::deliver() {
  is_delivering_ = true;
  for (size_t i = 0; i < started_.size(); ++i) {
    ActiveRequest& active = *started_[i];
    if (active.is_ended) continue;  // aborted by a callback before this one
    active.request.on_started(
        {active.result.num_prompt_tokens, active.result.num_cached_tokens, active.result.times});
  }
  started_.clear();
  for (size_t i = 0; i < num_news_; ++i) {
    // A callback before this one may have aborted the request.
    if (!news_[i].request->is_ended) news_[i].request->request.on_update(news_[i].update);
  }
  for (size_t i = 0; i < ended_.size(); ++i) {  // an abort in a callback adds to them
    if (!ended_[i]->is_ended) finish(*ended_[i]);
  }
  is_delivering_ = false;
  ended_.clear();
}

void Engine::Impl::finish(ActiveRequest& active) {
  active.is_ended = true;
  active.result.times.finished = std::chrono::steady_clock::now();
  ++counters_.finished_requests;
  if (active.request.sampling.max_tokens > 0) {
    for (Sequence& sequence : active.sequences) {
      active.result.completions.push_back(std::move(sequence.completion));
    }
  }
  if (active.request.on_finished) active.request.on_finished(std::move(active.result));
}

bool Engine::Impl::abort(std::string_view id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return false;
  ActiveRequest& active = *found->second;
  if (!is_delivering_) std::erase(started_, &active);
  for (Sequence& sequence : active.sequences) {
    if (sequence.state == Sequence::State::kEnded) continue;
    if (sequence.detokenizer) {
      std::string& text = sequence.completion.text;
      sequence.stop_matcher.push(sequence.detokenizer->finish(), /*may_match=*/false, text);
      sequence.stop_matcher.finish(text);
    }
    end_sequence(sequence, FinishReason::kAborted);
  }
  const bool is_in_callback = std::exchange(is_delivering_, true);
  finish(active);
  is_delivering_ = is_in_callback;
  if (!is_in_callback) ended_.clear();
  return true;
}

Engine::Engine(const EngineOptions& options, ModelRunner& runner, const Tokenizer* tokenizer)
    : impl_(std::make_unique<Impl>(options, runner, tokenizer)) {}
Engine::~Engine() = default;

std::string Engine::check(const Request& request) const {
  return impl_->check(request);
}
void Engine::submit(Request request) {
  impl_->submit(std::move(request));
}
bool Engine::step() {
  return impl_->step();
}
bool Engine::abort(std::string_view id) {
  return impl_->abort(id);
}
int64_t Engine::num_waiting() const {
  return impl_->scheduler().num_waiting();
}
int64_t Engine::num_running() const {
  return impl_->scheduler().num_running();
}
int64_t Engine::num_free_kv_blocks() const {
  return impl_->scheduler().kv().num_free();
}
int64_t Engine::num_cached_kv_blocks() const {
  return impl_->scheduler().kv().num_cached();
}
int64_t Engine::num_idle_kv_blocks() const {
  return impl_->scheduler().kv().num_idle();
}
int64_t Engine::flush_prefix_cache() {
  return impl_->flush_prefix_cache();
}
const EngineCounters& Engine::counters() const {
  return impl_->counters();
}

}  // namespace augur
