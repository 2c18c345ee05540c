// What runs the requests: the engine, or a stand-in in tests.
#pragma once

#include <cstdint>
#include <string>

#include "engine/schedule/request.h"

namespace augur::score {

/// The part of augur::Engine that this program uses, with its contract (engine/schedule/engine.h).
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string check(const Request& request) const = 0;
  virtual void submit(Request request) = 0;
  virtual bool step() = 0;
  virtual int64_t num_waiting() const = 0;
  /// Prompt and output tokens computed so far.
  virtual int64_t num_tokens_done() const = 0;
};

}  // namespace augur::score
