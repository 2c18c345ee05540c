// augur-bench serve: measures any OpenAI-compatible server over HTTP.
#pragma once

#include <functional>

#include "tools/serve_bench/report.h"

namespace augur::serve_bench {

/// Finds the model, probes the server with one short request, warms up, flushes the cache where
/// that is asked for, and measures. Throws ConfigError when the server cannot be reached or refuses
/// the probe, or an option does not hold. `is_interrupted` ends the run early.
Report measure(const Options& options, const std::function<bool()>& is_interrupted);

/// Measures, prints settings and table to stdout, writes the files asked for. SIGINT and SIGTERM
/// end the run early; what was measured by then is told. Returns the exit status: 0; 2 when
/// requests failed, or were refused without --allow-refusals; 130 when interrupted. Throws
/// ConfigError.
int run_serve_bench(const Options& options);

}  // namespace augur::serve_bench
