#include "engine/server/snapshots.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "engine/server/engine_loop.h"
#include "engine/server/http_server.h"

namespace augur::server {
namespace {

constexpr std::chrono::seconds kPatience{1};

}  // namespace

Snapshots::Snapshots(const ServedModel& model,
                     EngineLoop& loop,
                     HttpServer& server,
                     ExpertSnapshot first)
    : model_(model), loop_(loop), server_(server), last_(std::move(first)) {}

void Snapshots::ask(bool with_experts, Receiver receiver) {
  pending_.push_back({std::chrono::steady_clock::now(), std::move(receiver)});
  if (is_asked_ && (is_asked_with_experts_ || !with_experts)) return;
  is_asked_ = true;
  is_asked_with_experts_ = with_experts;
  const bool is_running = loop_.call([this, with_experts](Engine&) {
    auto taken = std::make_shared<ExpertSnapshot>(model_.snapshot(with_experts));
    server_.post([this, taken] { take(std::move(*taken)); });
  });
  if (is_running) return;
  is_asked_ = false;
  server_.post([this] { take(ExpertSnapshot(last_)); });
}

void Snapshots::take(ExpertSnapshot&& snapshot) {
  if (!snapshot.experts) snapshot.experts = std::move(last_.experts);
  last_ = std::move(snapshot);
  is_asked_ = false;
  for (Pending& pending : std::exchange(pending_, {})) pending.receiver(last_);
}

void Snapshots::tick() {
  const auto now = std::chrono::steady_clock::now();
  const auto waits = [&](const Pending& pending) { return now - pending.asked < kPatience; };
  const auto due = std::stable_partition(pending_.begin(), pending_.end(), waits);
  std::vector<Pending> served(std::make_move_iterator(due),
                              std::make_move_iterator(pending_.end()));
  pending_.erase(due, pending_.end());
  for (Pending& pending : served) pending.receiver(last_);
}

}  // namespace augur::server
