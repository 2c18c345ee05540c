// The order in which numbered things were last used, oldest first. Every operation takes constant
// time and none allocates.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <vector>

namespace augur {

class LruOrder {
 public:
  /// Of things 0 to count - 1, none of which is in the order yet.
  explicit LruOrder(int count) : next_(count + 1), previous_(count + 1) {
    next_[count] = previous_[count] = count;
    for (int i = 0; i < count; ++i) next_[i] = -1;
  }

  /// Puts `item` last, whether it was in the order or not.
  void touch(int item) {
    remove(item);
    const int last = previous_[end()];
    next_[last] = item;
    previous_[item] = last;
    next_[item] = end();
    previous_[end()] = item;
  }
  /// Nothing happens when it is not in the order.
  void remove(int item) {
    if (next_[item] < 0) return;
    next_[previous_[item]] = next_[item];
    previous_[next_[item]] = previous_[item];
    next_[item] = -1;
  }
  /// -1 when there is none.
  int oldest() const { return next_[end()] == end() ? -1 : next_[end()]; }

 private:
  // A ring through one more element, which is both its ends.
  int end() const { return static_cast<int>(next_.size()) - 1; }

  std::vector<int32_t> next_;  // -1: not in the order
  std::vector<int32_t> previous_;
};

}  // namespace augur
