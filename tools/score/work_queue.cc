#include "tools/score/work_queue.h"

#include <chrono>
#include <utility>

namespace augur::score {

int64_t WorkItem::weight() const {
  constexpr int64_t kItemWeight = 32;  // an item of one token still takes some hundred bytes
  const auto* document = std::get_if<EncodedDocument>(&content);
  return kItemWeight + (document != nullptr ? static_cast<int64_t>(document->ids.size()) : 0);
}

bool WorkQueue::push(std::vector<WorkItem>&& items) {
  int64_t weight = 0;
  for (const WorkItem& item : items) weight += item.weight();
  std::unique_lock lock(mutex_);
  can_push_.wait(lock, [&] {
    return is_closed_ || weight_inside_ == 0 || weight_inside_ + weight <= max_weight_;
  });
  if (is_closed_) return false;
  weight_inside_ += weight;
  for (WorkItem& item : items) items_.push_back(std::move(item));
  can_pop_.notify_one();
  return true;
}

void WorkQueue::end(std::exception_ptr failure) {
  const std::lock_guard lock(mutex_);
  is_ended_ = true;
  failure_ = std::move(failure);
  can_pop_.notify_one();
}

bool WorkQueue::is_drained() const {
  const std::lock_guard lock(mutex_);
  return items_.empty();
}

bool WorkQueue::is_closed() const {
  const std::lock_guard lock(mutex_);
  return is_closed_;
}

WorkQueue::Pop WorkQueue::pop(WorkItem& item, bool wait) {
  std::unique_lock lock(mutex_);
  if (wait)
    can_pop_.wait_for(lock, std::chrono::milliseconds(100),
                      [&] { return is_ended_ || !items_.empty(); });
  if (!items_.empty()) {
    item = std::move(items_.front());
    items_.pop_front();
    return Pop::kItem;
  }
  if (!is_ended_) return Pop::kEmpty;
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  return Pop::kEnd;
}

void WorkQueue::release(int64_t weight) {
  const std::lock_guard lock(mutex_);
  weight_inside_ -= weight;
  can_push_.notify_one();
}

void WorkQueue::close() {
  const std::lock_guard lock(mutex_);
  is_closed_ = true;
  can_push_.notify_one();
}

}  // namespace augur::score
