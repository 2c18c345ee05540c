// What happened to one request, and the figures that follow from it.
//
// Definitions, which are those of `vllm bench serve`:
//   TTFT  from sending (before connecting) to the first chunk with content
//   ITL   between one chunk with content and the next
//   TPOT  (E2E - TTFT) / (output tokens - 1), of requests with two tokens or more
//   E2E   from sending to the last byte of the response
// All of this is a function of the events, so that it can be tested with any clock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/serve_bench/options.h"

namespace augur::serve_bench {

enum class Outcome : uint8_t {
  kOk,
  kFailed,
  kRefused,  // 429 or 503
  kAborted,  // disconnected by us, on purpose
  kCutOff,   // under way when the run was interrupted
};

struct RequestEvents {
  int64_t request_idx = 0;
  int64_t send_us = 0;              // times are of one clock
  std::vector<int64_t> content_us;  // of each chunk with content; empty when not streamed
  int64_t end_us = 0;               // of the last byte, or of the failure
  Outcome outcome = Outcome::kFailed;
  int status = 0;       // of HTTP; 0 without a response
  std::string failure;  // kFailed: its kind, "HTTP 500", "timeout"
  std::string detail;   // of a failure or refusal: what the server or the system said
  std::optional<int64_t> retry_after_s;
  // As the server counts them.
  std::optional<int64_t> usage_prompt_tokens;
  std::optional<int64_t> usage_output_tokens;
  int64_t known_prompt_tokens = 0;  // of prompts of token ids; else 0
};

struct RequestFigures {
  double e2e_ms = 0;
  std::optional<double> ttft_ms;  // absent without content
  std::optional<double> tpot_ms;  // absent below two output tokens, or without TTFT
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  bool is_prompt_known = false;      // by usage, or because we sent ids
  bool is_counted_by_usage = false;  // else output_tokens are chunks
  bool is_good = false;              // succeeded and kept what `goodput` asks for
};

/// A missing TTFT or TPOT keeps any bound: there was no second token to be late.
RequestFigures figures_of(const RequestEvents& events, const Goodput& goodput);

/// One line of JSON, for --save-requests; `start_us` is when the run began.
std::string request_row(const RequestEvents& events,
                        const RequestFigures& figures,
                        int64_t start_us);

const char* name_of(Outcome outcome);

}  // namespace augur::serve_bench
