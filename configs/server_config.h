// What augur-server adds to the configuration: where it listens, whom it lets in, how much it
// takes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "configs/config_field.h"

namespace augur {

inline constexpr std::array<std::string_view, 1> kMetricsCompatWords{"vllm"};

/// How much one client, and all of them, may ask for.
struct ServerLimitsConfig {
  int64_t max_connections = 4096;
  int64_t max_header_bytes = 16 << 10;
  int64_t max_body_bytes = 32 << 20;
  int64_t max_bodies_bytes = int64_t{1} << 30;
  int64_t max_stream_buffer_bytes = 1 << 20;
  double header_timeout_s = 10;
  double body_timeout_s = 60;
  double idle_timeout_s = 75;
  double write_timeout_s = 60;
  int64_t max_queued_requests = 1024;
  int64_t max_queued_tokens = 0;
  double waiting_timeout_s = 0;
  double running_timeout_s = 0;
  int64_t max_n = 128;
  int64_t max_prompts = 1024;
  int64_t max_sequences = 2048;
  int64_t max_stop_strings = 16;
  int64_t max_logit_bias = 1024;
  int64_t max_logprobs = 20;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    using Limits = ServerLimitsConfig;
    visit("max_connections", &Limits::max_connections,
          "connections at once; over it a new one is answered with 503", between(1, 1 << 20));
    visit("max_header_bytes", &Limits::max_header_bytes, "of a request's line and headers",
          FieldRule{.min = 1024, .max = 1 << 20, .is_bytes = true});
    visit("max_body_bytes", &Limits::max_body_bytes, "of a request's body",
          FieldRule{.min = 1024, .max = int64_t{1} << 30, .is_bytes = true});
    visit("max_bodies_bytes", &Limits::max_bodies_bytes,
          "of all bodies that are being read or parsed; over it: 503 server_is_overloaded",
          FieldRule{.min = 1024, .max = int64_t{1} << 40, .is_bytes = true});
    visit("max_stream_buffer_bytes", &Limits::max_stream_buffer_bytes,
          "what a client may leave unread of a streamed answer before it is disconnected",
          FieldRule{.min = 4096, .max = int64_t{1} << 30, .is_bytes = true});
    visit("header_timeout_s", &Limits::header_timeout_s,
          "seconds from a request's first byte to the end of its headers", between(1, 3600));
    visit("body_timeout_s", &Limits::body_timeout_s, "seconds from there to the end of its body",
          between(1, 3600));
    visit("idle_timeout_s", &Limits::idle_timeout_s,
          "seconds that a connection may stay open between requests", between(1, 86400));
    visit("write_timeout_s", &Limits::write_timeout_s,
          "seconds in which a client takes nothing of what is sent to it", between(1, 3600));
    visit("max_queued_requests", &Limits::max_queued_requests,
          "prompts that wait for their first step; over it: 503 server_is_overloaded",
          between(0, 1 << 20));
    visit("max_queued_tokens", &Limits::max_queued_tokens,
          "tokens of those prompts; 0: four times what the KV cache holds", between(0, 1 << 30));
    visit("waiting_timeout_s", &Limits::waiting_timeout_s,
          "seconds a request may wait for its first step, then: 503; 0: any number",
          between(0, 86400));
    visit("running_timeout_s", &Limits::running_timeout_s,
          "seconds a request may run from its first step on, then it ends with what there is and "
          "finish_reason abort; 0: any number",
          between(0, 86400));
    visit("max_n", &Limits::max_n, "completions of one prompt", between(1, 128));
    visit("max_prompts", &Limits::max_prompts, "prompts of one request", between(1, 65536));
    visit("max_sequences", &Limits::max_sequences, "prompts times completions of one request",
          between(1, 65536));
    visit("max_stop_strings", &Limits::max_stop_strings, "stop strings of one request",
          between(0, 64));
    visit("max_logit_bias", &Limits::max_logit_bias, "entries of logit_bias", between(0, 1 << 20));
    visit("max_logprobs", &Limits::max_logprobs, "likeliest tokens listed beside each token",
          between(0, 64));
  }
};

struct ServerConfig {
  std::string host = "127.0.0.1";
  int64_t port = 8000;
  std::string api_keys_file;
  std::vector<std::string> open_paths{"/health"};
  bool share_prefixes = false;
  std::vector<std::string> served_model_names;
  bool accept_any_model = false;
  bool strict_fields = false;
  int64_t num_workers = 2;
  double shutdown_timeout_s = 30;
  double soft_watchdog_s = 30;
  double hard_watchdog_s = 300;
  std::string profile_folder;
  ServerLimitsConfig limits;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("host", &ServerConfig::host,
          "address to listen on; 127.0.0.1: this machine only; 0.0.0.0 or ::: all networks, to be "
          "used with api_keys_file");
    visit("port", &ServerConfig::port, "TCP port; 0: one that is free, told at the start",
          between(0, 65535));
    visit("api_keys_file", &ServerConfig::api_keys_file,
          "file of API keys, one a line: KEY, NAME KEY or NAME KEY admin; empty: everyone may ask "
          "everything");
    visit("open_paths", &ServerConfig::open_paths,
          "paths that need no key, compared whole; the page's own files need none either");
    visit("share_prefixes", &ServerConfig::share_prefixes,
          "let requests of different API keys share the prefix cache; whose prompts are cached "
          "can then be told by timing");
    visit("served_model_names", &ServerConfig::served_model_names,
          "names the model answers to, the first being its own; empty: that of its folder");
    visit("accept_any_model", &ServerConfig::accept_any_model,
          "serve requests whatever model they name, instead of 404");
    visit("strict_fields", &ServerConfig::strict_fields,
          "refuse requests with fields that are not known, instead of ignoring these");
    visit("num_workers", &ServerConfig::num_workers, "threads that parse and tokenize requests",
          between(1, 64));
    visit("shutdown_timeout_s", &ServerConfig::shutdown_timeout_s,
          "seconds that SIGTERM leaves to requests under way", between(0, 86400));
    visit("soft_watchdog_s", &ServerConfig::soft_watchdog_s,
          "seconds after which a step counts as stuck and is reported, with stacks; 0: never",
          between(0, 86400));
    visit("hard_watchdog_s", &ServerConfig::hard_watchdog_s,
          "seconds after which a stuck step ends the process; 0: never", between(0, 86400));
    visit("profile_folder", &ServerConfig::profile_folder,
          "folder that /start_profile may write to; empty: it is refused");
    visit("limits", &ServerConfig::limits, "How much a client, and all of them, may ask for.");
  }
};

struct MetricsConfig {
  std::vector<std::string> compat;
  double log_interval_s = 10;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("compat", &MetricsConfig::compat,
          "also export figures under the names that other engines gave them",
          items_of(kMetricsCompatWords));
    visit("log_interval_s", &MetricsConfig::log_interval_s,
          "seconds between log lines of the server's figures, while there are requests; 0: none",
          between(0, 86400));
  }
};

struct WarmupConfig {
  std::vector<std::string> prompts;
  std::vector<std::string> system_prompts;

  template <typename Visitor>
  static void visit_fields(Visitor& visit) {
    visit("prompts", &WarmupConfig::prompts,
          "texts that are run before the server is ready, so that requests that begin with them "
          "find their keys and values");
    visit("system_prompts", &WarmupConfig::system_prompts,
          "the same for chats that begin with these system messages");
  }
};

}  // namespace augur
