#include "engine/server/queue_rate.h"

#include <algorithm>
#include <cmath>

namespace augur::server {
namespace {

// What happened so long ago counts 1/e: long beside a step, short beside a change of load.
constexpr double kFadeS = 10;

double seconds(QueueRate::Time::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

/// Seconds until `amount` has left at the rate at which `left` did within `elapsed_s`.
double wait_s(int64_t amount, double left, double elapsed_s) {
  if (amount <= 0) return 0;
  return left > 0 ? static_cast<double>(amount) * elapsed_s / left : elapsed_s;
}

}  // namespace

void QueueRate::on_started(int64_t num_requests, int64_t num_tokens, Time now) {
  const double elapsed_s = std::max(0.0, seconds(now - since_));
  const double keep = std::exp(-elapsed_s / kFadeS);
  // The time itself fades while it passes: its integral.
  busy_s_ = busy_s_ * keep + kFadeS * (1 - keep);
  requests_ = requests_ * keep + static_cast<double>(num_requests);
  tokens_ = tokens_ * keep + static_cast<double>(num_tokens);
  since_ = now;
}

int QueueRate::retry_after_s(int64_t num_requests, int64_t num_tokens, Time now) const {
  // What has waited since the last start slows the estimate down, so that a queue that has stopped
  // is not praised for its past.
  const double elapsed_s = std::max(0.0, seconds(now - since_));
  const double keep = std::exp(-elapsed_s / kFadeS);
  const double busy_s = busy_s_ * keep + kFadeS * (1 - keep);
  const double wait = std::max(wait_s(num_requests, requests_ * keep, busy_s),
                               wait_s(num_tokens, tokens_ * keep, busy_s));
  if (!(wait < kMaxRetryS)) return kMaxRetryS;
  return std::max(kMinRetryS, static_cast<int>(std::ceil(wait)));
}

}  // namespace augur::server
