// The options of augur-score, parsed and checked.
#pragma once

#include <optional>

#include "tools/score/options.h"

namespace augur::score {

struct CommandLine {
  Options options;
  /// Set when the program is to end at once: after --help or --version (0), or a wrong option
  /// (1), which has been told on stderr.
  std::optional<int> exit_status;
};

/// Throws ConfigError for a --set that is not KEY=VALUE.
CommandLine parse_command_line(int argc, const char* const* argv);

}  // namespace augur::score
