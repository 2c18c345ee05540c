// The effective configuration: defaults, then a YAML file, then the command line.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "configs/engine_config.h"

namespace augur {

/// A value from the command line.
struct ConfigOverride {
  std::string path;    // "kv_cache.block_size"
  std::string value;   // "32"
  std::string option;  // as the person wrote it, for errors: "--set kv_cache.block_size=32"
};

/// Splits "a.b=c" of a --set option. Throws ConfigError when there is no '='.
ConfigOverride parse_set_option(std::string_view text);

struct EffectiveConfig {
  EngineConfig config;
  /// Where each value that is not the default came from: "FILE:line" or "--set".
  std::map<std::string, std::string> sources;

  /// "default", or the entry of `sources`.
  std::string source_of(const std::string& path) const;
};

/// Reads and checks everything. Throws ConfigError that names the file and line, or the option,
/// the key, what was found and what is accepted.
EffectiveConfig load_config(const std::optional<std::filesystem::path>& file,
                            std::span<const ConfigOverride> overrides);

/// Checks that need two values together. Throws ConfigError.
void check_together(const EffectiveConfig& effective);

}  // namespace augur
