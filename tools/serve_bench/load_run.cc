#include "tools/serve_bench/load_run.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "tools/serve_bench/exchange.h"

namespace augur::serve_bench {
namespace {

constexpr int64_t kTickUs = 50'000;              // how often interrupts are looked for
constexpr int64_t kCpuWindowUs = 1'000'000;      // over which the busiest share is taken
constexpr int64_t kProgressUs = 10'000'000;      // between lines of progress
constexpr int64_t kMaxBurst = 16;                // requests sent before answers are read again
constexpr int64_t kMaxFailedConnections = 1000;  // in a row: nobody is there any more

int64_t thread_cpu_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
}

double share(int64_t part_us, int64_t whole_us) {
  return whole_us > 0 ? static_cast<double>(part_us) / static_cast<double>(whole_us) : 0;
}

}  // namespace

class LoadRun::State {
 public:
  State(LoadRun& owner, const Phase& phase, Arrivals arrivals, const Sink& sink)
      : owner_(owner),
        client_(owner.client_),
        phase_(phase),
        arrivals_(std::move(arrivals)),
        sink_(sink) {}

  PhaseResult run() {
    result_.start_us = HttpClient::now_us();
    result_.end_us = result_.start_us;
    window_start_us_ = last_progress_us_ = result_.start_us;
    start_cpu_us_ = window_cpu_us_ = thread_cpu_us();
    next_arrival_s_ = arrivals_.next_s();
    tick();
    schedule_arrival();
    client_.run([this] { return is_over(); });
    tick_timer_.reset();
    arrival_timer_.reset();
    const int64_t whole_us = HttpClient::now_us() - result_.start_us;
    result_.cpu_share = share(thread_cpu_us() - start_cpu_us_, whole_us);
    result_.busiest_cpu_share = std::max(result_.busiest_cpu_share, result_.cpu_share);
    return result_;
  }

 private:
  bool has_more() const { return !is_stopped_ && num_arrived_ < phase_.num_requests; }
  bool is_over() const { return !has_more() && num_waiting_ == 0 && num_in_flight_ == 0; }
  bool has_room() const { return phase_.concurrency == 0 || num_in_flight_ < phase_.concurrency; }

  // In a closed loop the next arrival is when there is room.
  void schedule_arrival() {
    if (!has_more() || arrival_timer_ != nullptr) return;
    if (arrivals_.is_at_once() && !has_room()) return;
    const int64_t due_us = result_.start_us + static_cast<int64_t>(next_arrival_s_ * 1e6);
    arrival_timer_ = client_.call_at(due_us, [this] {
      arrival_timer_.reset();
      arrive();
    });
  }

  // Takes what is due, but lets answers be read in between.
  void arrive() {
    for (int64_t i = 0; i < kMaxBurst && has_more(); ++i) {
      if (arrivals_.is_at_once() && !has_room()) break;
      const int64_t now_us = HttpClient::now_us();
      const int64_t due_us = result_.start_us + static_cast<int64_t>(next_arrival_s_ * 1e6);
      if (due_us > now_us) break;
      ++num_arrived_;
      next_arrival_s_ = arrivals_.next_s();
      if (!has_room()) {
        ++num_waiting_;
        ++result_.num_delayed;
        continue;
      }
      const int64_t sent_us = send();
      if (arrivals_.is_at_once()) continue;
      const auto late_us = static_cast<double>(sent_us - due_us);
      result_.max_lateness_ms = std::max(result_.max_lateness_ms, late_us / 1000);
    }
    schedule_arrival();
  }

  int64_t send() {
    const int64_t number = result_.num_sent++;
    const int64_t request_idx = phase_.is_warmup ? -1 - number : number;
    PlannedRequest plan = owner_.workload_.plan(request_idx);
    if (phase_.is_warmup) plan.abort_after_chunks.reset();
    result_.peak_in_flight = std::max(result_.peak_in_flight, ++num_in_flight_);
    const int64_t send_us = HttpClient::now_us();
    client_.start(
        "POST", owner_.workload_.path(), plan.body,
        std::make_shared<Exchange>(request_idx, plan, owner_.is_streamed_, send_us, owner_.scanner_,
                                   [this](RequestEvents&& events) { on_done(std::move(events)); }));
    return send_us;
  }

  void on_done(RequestEvents&& events) {
    --num_in_flight_;
    ++num_ended_;
    result_.end_us = std::max(result_.end_us, events.end_us);
    num_failed_connections_ = events.failure == "connect failed" ? num_failed_connections_ + 1 : 0;
    sink_(std::move(events));
    if (num_failed_connections_ >= kMaxFailedConnections) {
      result_.gave_up = true;
      stop();
    }
    if (num_waiting_ > 0 && has_room()) {
      --num_waiting_;
      send();
    }
    if (arrivals_.is_at_once()) schedule_arrival();
  }

  void stop() {
    is_stopped_ = true;
    num_waiting_ = 0;
  }

  void tick() {
    const int64_t now_us = HttpClient::now_us();
    if (now_us - window_start_us_ >= kCpuWindowUs) {
      const int64_t cpu_us = thread_cpu_us();
      result_.busiest_cpu_share = std::max(
          result_.busiest_cpu_share, share(cpu_us - window_cpu_us_, now_us - window_start_us_));
      window_start_us_ = now_us;
      window_cpu_us_ = cpu_us;
    }
    if (now_us - last_progress_us_ >= kProgressUs) {
      last_progress_us_ = now_us;
      fmt::print(stderr, "{:.0f} s: {} requests ended, {} in flight\n",
                 static_cast<double>(now_us - result_.start_us) / 1e6, num_ended_, num_in_flight_);
    }
    const int64_t end_us = result_.start_us + static_cast<int64_t>(phase_.duration_s * 1e6);
    if (phase_.duration_s > 0 && now_us >= end_us) stop();
    if (!result_.is_interrupted && owner_.is_interrupted_()) {
      result_.is_interrupted = true;
      stop();
      client_.cancel_all();
    }
    int64_t next_us = now_us + kTickUs;
    if (phase_.duration_s > 0 && now_us < end_us) next_us = std::min(next_us, end_us);
    tick_timer_ = client_.call_at(next_us, [this] { tick(); });
  }

  LoadRun& owner_;
  HttpClient& client_;
  const Phase phase_;
  Arrivals arrivals_;
  const Sink& sink_;
  PhaseResult result_;
  double next_arrival_s_ = 0;
  int64_t num_arrived_ = 0;
  int64_t num_waiting_ = 0;  // arrived, not sent for want of room
  int64_t num_in_flight_ = 0;
  int64_t num_ended_ = 0;
  int64_t num_failed_connections_ = 0;  // in a row
  bool is_stopped_ = false;
  std::shared_ptr<void> arrival_timer_;
  std::shared_ptr<void> tick_timer_;
  int64_t start_cpu_us_ = 0;
  int64_t window_start_us_ = 0;
  int64_t window_cpu_us_ = 0;
  int64_t last_progress_us_ = 0;
};

LoadRun::LoadRun(HttpClient& client,
                 const Workload& workload,
                 bool is_streamed,
                 std::function<bool()> is_interrupted)
    : client_(client),
      workload_(workload),
      is_streamed_(is_streamed),
      is_interrupted_(std::move(is_interrupted)) {}

PhaseResult LoadRun::run(const Phase& phase, Arrivals arrivals, const Sink& sink) {
  return State(*this, phase, std::move(arrivals), sink).run();
}

}  // namespace augur::serve_bench
