// Projections on disk, so that a server need not sample and fit them again.
//
// Little-endian: "AUGRPRJ1", u32 hidden_size, u32 dims, u32 num_layers, u32 zero; then layer after
// layer f32 offset [dims] and f32 matrix [hidden_size, dims] row-major; then a u64 FNV-1a hash of
// all bytes before it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/projection.h"

namespace augur {

/// Requires at least one projection, all present and of one shape.
std::string encode_projections(std::span<const Projection> by_layer);
/// `where` names the bytes in errors. Throws ConfigError when they are not what
/// encode_projections wrote: sizes are checked before anything is allocated.
std::vector<Projection> decode_projections(std::string_view bytes, const std::string& where);

/// Replaces the file once all is written. Throws ConfigError.
void save_projections(const std::filesystem::path& path, std::span<const Projection> by_layer);
/// Throws ConfigError when the file is damaged, or made for another model than one of
/// `num_layers` MoE layers and `hidden_size`, or for other `dims`.
std::vector<Projection> load_projections(const std::filesystem::path& path,
                                         int num_layers,
                                         int64_t hidden_size,
                                         int dims);

}  // namespace augur
