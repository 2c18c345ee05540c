// The effective config as YAML, and the help on its keys.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

#include "configs/load_config.h"

namespace augur {

/// Top-level sections that only augur-server reads: other programs leave them out.
inline constexpr std::array<std::string_view, 3> kServerSections{"server", "metrics", "warmup"};

/// A YAML file with every key, each with its source as a comment, but for those in the sections
/// `left_out`. Reading it gives the same config.
std::string write_config(const EffectiveConfig& effective,
                         std::span<const std::string_view> left_out = {});

/// A line or more per key for --help: key, what it accepts, its default, what it means.
std::string config_help(std::span<const std::string_view> left_out = {});

/// The same as Markdown tables: of kServerSections for docs/server.md, of the others for
/// docs/configuration.md.
std::string config_reference_markdown(bool of_server);

}  // namespace augur
