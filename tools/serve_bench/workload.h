// The requests of a run: what each of them sends.
//
// Request i is a function of the options and i alone, so runs with the same seed send the same
// whatever the order in which requests end.
// Threading: immutable after construction.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "tools/serve_bench/options.h"

namespace augur::serve_bench {

struct PlannedRequest {
  std::string body;                 // JSON
  int64_t known_prompt_tokens = 0;  // of prompts of token ids; else 0
  int64_t max_tokens = 0;
  /// Disconnect when so many chunks with content have come; absent: never.
  std::optional<int64_t> abort_after_chunks;
};

/// A line of a dataset.
struct DatasetRow {
  std::string prompt_member;  // `"prompt":...` or `"messages":...`, JSON
  int64_t num_token_ids = 0;  // where the prompt is token ids
  int64_t max_tokens = 0;     // 0: as the options say
};

/// Reads JSON lines of {"prompt": text or token ids}, {"text": ...} or {"messages": [...]}, each
/// with an optional "max_tokens"; other members are passed over, and so are blank lines. A text
/// becomes a user's message where the endpoint is chat. Throws ConfigError with file and line.
std::vector<DatasetRow> read_dataset(const std::string& file, Endpoint endpoint);

class Workload {
 public:
  /// `vocab_size` bounds the ids of random prompts; unused with a dataset and in chat. Throws
  /// ConfigError for a dataset that cannot be used or an extra body that is none.
  Workload(const Options& options, const std::string& model, int64_t vocab_size);

  /// Requests with a negative number are like the others: they warm up. `max_tokens` caps what is
  /// asked for.
  PlannedRequest plan(int64_t request_idx,
                      int64_t max_tokens = std::numeric_limits<int64_t>::max()) const;

  const char* path() const;  // of the endpoint
  int64_t num_dataset_rows() const { return static_cast<int64_t>(rows_.size()); }

 private:
  class Random;
  int64_t draw_length(int64_t length, Random& random) const;
  void append_random_prompt(Random& random, PlannedRequest& plan) const;

  const Options options_;
  const int64_t vocab_size_;
  std::vector<DatasetRow> rows_;
  std::string body_begin_;  // all that is the same for each, without the closing brace
};

}  // namespace augur::serve_bench
