// The instruction sets the CPU kernels are written for, and which of them this machine has.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace augur::cpu {

/// From plain C++ upwards; a machine that has one has those before it.
enum class Isa : uint8_t {
  kPortable,
  kAvx2,    // AVX2, FMA, F16C
  kAvx512,  // AVX-512 F, BW, DQ, VL and BF16
  kAmx,     // kAvx512 and AMX tiles with bf16
};

std::string_view isa_name(Isa isa);
/// "portable", "avx2", "avx512", "amx"; nothing for other names.
std::optional<Isa> parse_isa(std::string_view name);

/// The best instruction set of this machine. Asks the kernel for AMX's tile state on the first
/// call, as Linux requires once per process.
Isa best_isa();
inline bool has_isa(Isa isa) {
  return isa <= best_isa();
}

}  // namespace augur::cpu
