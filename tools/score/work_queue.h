// What is handed from the thread that reads and encodes to the one that runs the model.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "tools/score/encode.h"
#include "tools/score/run_state.h"

namespace augur::score {

/// A line that could not be used.
struct LineProblem {
  std::string reason;
};

struct WorkItem {
  int64_t sequence = 0;     // 0, 1, ... over the items of this run, in the order of the input
  int64_t line_number = 0;  // in the file, from 1
  uint64_t line_hash = 0;
  int64_t line_bytes = 0;
  std::string id_json;  // may be empty with a LineProblem
  std::variant<EncodedDocument, LineProblem, HeldRow> content;

  /// What the item counts for against the queue's bound: tokens, and a little for itself.
  int64_t weight() const;
};

/// Bounds everything between reader and writer: an item counts from when it is pushed until
/// release() says that its row is written. Windows go in as a whole, since the items that the
/// writer waits for must be among those inside.
/// Threading: one thread pushes, one pops.
class WorkQueue {
 public:
  explicit WorkQueue(int64_t max_weight) : max_weight_(max_weight) {}

  // The reader's side.
  /// Adds items, waiting until there is room (or nothing is inside). Returns false when closed.
  bool push(std::vector<WorkItem>&& items);
  /// No more items come, `failure` being why if it is not the end of the input.
  void end(std::exception_ptr failure = nullptr);
  /// Whether the other side has nothing left to take.
  bool is_drained() const;
  bool is_closed() const;

  // The model's side.
  enum class Pop : uint8_t { kItem, kEmpty, kEnd };
  /// Takes an item. With `wait`, waits up to 100 ms for one. kEnd: none will come any more; then
  /// rethrows the failure that end() was given.
  Pop pop(WorkItem& item, bool wait);
  /// The row of an item of that weight has been written.
  void release(int64_t weight);
  /// Takes no more items; wakes the reader. Those inside may still be popped.
  void close();

 private:
  const int64_t max_weight_;
  mutable std::mutex mutex_;
  std::condition_variable can_push_;
  std::condition_variable can_pop_;
  std::deque<WorkItem> items_;
  int64_t weight_inside_ = 0;
  bool is_ended_ = false;
  bool is_closed_ = false;
  std::exception_ptr failure_;
};

}  // namespace augur::score
