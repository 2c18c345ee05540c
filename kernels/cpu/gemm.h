// The inner loops of every matrix product, one set per instruction set.
//
// A product is tokens [n, cols] times weights [rows, cols] transposed. The tokens are first packed
// into the form the unit reads best; the work is then cut into blocks (some tokens by some panels
// of 16 weight rows) that workers take. Every sum runs along the columns in one fixed order, one
// accumulator per result, so how a product is cut never changes a bit of it.
// This header is read by units compiled for wider instruction sets: it holds no inline functions
// with code that the linker could take from such a unit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cpu/isa.h"

namespace augur::cpu {

enum class GemmOutput : uint8_t {
  kF32,    // out [num_tokens, num_rows] f32
  kBf16,   // out [num_tokens, num_rows] bf16
  kGated,  // silu(weights x) * (up x), packed as the tokens of the next product
};

/// One block of a product. Tokens and panels count from the start of `tokens`, `weights`, `out`.
struct GemmBlock {
  GemmOutput output = GemmOutput::kF32;
  const std::byte* tokens = nullptr;   // packed, num_col_tiles wide
  const std::byte* weights = nullptr;  // tiles of tile_layout.h
  const std::byte* up = nullptr;       // kGated only, shaped as weights
  // `weights` and `up` are int8 tiles of quantize.h. Requires num_tokens <= max_int8_tokens.
  bool is_int8 = false;
  // Set where the panels of weights lie in L2, and nothing needs to be brought there ahead.
  bool has_cached_weights = false;
  int64_t first_weight_panel = 0;  // the panel that `weights` and `up` begin with
  // What each row's sums are multiplied by before all else: [num_rows], up to a whole panel; or
  // null. up_scales: kGated only, given where scales are.
  const float* scales = nullptr;
  const float* up_scales = nullptr;
  const float* bias = nullptr;  // [num_rows] or null; not with kGated
  void* out = nullptr;
  int64_t out_stride = 0;  // elements; kGated: unused
  // Set where `out` is larger than the L2 of all cores at work: it may then be written past them.
  bool is_large_out = false;
  int64_t num_rows = 0;  // rows of the whole weight matrix
  int64_t num_col_tiles = 0;
  int64_t first_token = 0;  // a multiple of token_group
  int64_t num_tokens = 0;
  int64_t first_panel = 0;
  int64_t num_panels = 0;
};

/// Token t of `to` becomes row rows[t] of x, or row t without `rows`, for t in [first_token,
/// first_token + num_tokens); columns are padded with zeros.
struct PackTokensArgs {
  const Bf16* x = nullptr;
  int64_t x_stride = 0;  // elements
  int64_t num_cols = 0;
  const int32_t* rows = nullptr;
  int64_t first_token = 0;  // a multiple of token_group
  int64_t num_tokens = 0;
  std::byte* to = nullptr;
};

/// One token of a MoE layer: out = sum over its choices, in order, of weights[i] * row places[i] of
/// `results`, plus `shared` where given.
struct CombineArgs {
  const float* results = nullptr;
  int64_t result_stride = 0;  // elements
  const int32_t* places = nullptr;
  const float* weights = nullptr;
  int num_choices = 0;
  const float* shared = nullptr;
  float* out = nullptr;
  int64_t num_cols = 0;
};

struct GemmUnit {
  int64_t token_group;  // blocks of packed tokens begin at multiples of this
  int64_t panel_group;  // blocks of this many panels (and multiples) run best
  int64_t block_bytes;  // bf16 tokens of one block that stay in L2 beside the weights
  // Up to as many tokens multiply() widens int8 weights on their way to the registers; more would
  // pass over them again and again, and widen() comes first.
  int64_t max_int8_tokens;
  int64_t (*packed_bytes)(int64_t num_tokens, int64_t num_col_tiles);
  void (*pack_tokens)(const PackTokensArgs& args);
  void (*multiply)(const GemmBlock& block);
  // Turns int8 tiles (quantize.h) into bf16 tiles of the same whole numbers; 64-byte aligned. Null
  // where max_int8_tokens has no bound.
  void (*widen)(const std::byte* from, int64_t num_tiles, std::byte* to);
  void (*combine)(const CombineArgs& args);
};

/// Requires has_isa(isa).
const GemmUnit& gemm_unit(Isa isa);

extern const GemmUnit kPortableGemm;
extern const GemmUnit kAvx2Gemm;
extern const GemmUnit kAvx512Gemm;
extern const GemmUnit kAmxGemm;

}  // namespace augur::cpu
