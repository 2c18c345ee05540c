// The effective config as YAML, and the help on its keys.
#pragma once

#include <string>

#include "configs/load_config.h"

namespace augur {

/// A YAML file with every key, each with its source as a comment. Reading it gives the same
/// config.
std::string write_config(const EffectiveConfig& effective);

/// A line or more per key for --help: key, what it accepts, its default, what it means.
std::string config_help();

/// The same as the Markdown tables of docs/configuration.md.
std::string config_reference_markdown();

}  // namespace augur
