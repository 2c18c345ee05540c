// What is asked of the server besides the load: its models, its vocabulary, an empty cache.
//
// Each waits for the answer. Threading: the client's thread, while nothing else is under way.
#pragma once

#include <cstdint>
#include <string>

#include "tools/serve_bench/http_client.h"

namespace augur::serve_bench {

/// The first model of /v1/models. Throws ConfigError when the server cannot be reached, refuses, or
/// lists none.
std::string first_model(HttpClient& client);

/// "vocab_size", wherever /server_info (or /get_server_info, as older SGLang has it) has it; 0
/// where the server does not say. Throws ConfigError when it cannot be reached.
int64_t served_vocab_size(HttpClient& client);

/// POST /flush_cache. Throws ConfigError unless that was done.
void flush_server_cache(HttpClient& client);

}  // namespace augur::serve_bench
