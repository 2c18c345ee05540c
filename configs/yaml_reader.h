// Reads a YAML file into the config structs.
//
// Only what a config needs is understood: one document of nested maps with scalar values and flat
// lists of them. Anchors, aliases, merge keys and tags are refused, so no input can grow beyond its
// own size.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/load_config.h"

namespace augur {

inline constexpr int64_t kMaxConfigFileBytes = int64_t{1} << 20;

/// Sets the fields that `text` names and their sources (`file_name`:line). Throws ConfigError
/// with file, line, key, what was found and what is accepted; for unknown and repeated keys too.
/// An empty document changes nothing.
void read_yaml(std::string_view text, const std::string& file_name, EffectiveConfig& effective);

/// The same from a file of at most kMaxConfigFileBytes.
void read_yaml_file(const std::filesystem::path& file, EffectiveConfig& effective);

/// The items of a list on the command line: "[a, "b, c"]" in YAML's flow form, one item without
/// brackets, none when empty. Nothing for what is no flat list.
std::optional<std::vector<std::string>> read_yaml_list(std::string_view text);

}  // namespace augur
