// The options of augur-bench serve.
#pragma once

#include <functional>

#include "tools/serve_bench/options.h"

namespace CLI {
class App;
}

namespace augur::serve_bench {

/// Adds the options to a command. What is returned is called after parsing: it reads what needs
/// more than its type and checks what does not go together. It throws ConfigError. Both arguments
/// outlive it.
std::function<void()> add_serve_options(CLI::App& command, Options& options);

}  // namespace augur::serve_bench
