#include "kernels/cpu/linear.h"

#include <string>

#include "kernels/cpu/gemm_plan.h"
#include "kernels/cpu/tile_layout.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

std::string shape(int64_t num_rows, int64_t num_cols) {
  return std::to_string(num_rows) + " x " + std::to_string(num_cols);
}

void check_matrix(const PackedMatrix& matrix, int64_t num_rows, int64_t num_cols) {
  AUGUR_REQUIRE(
      matrix.data != nullptr && matrix.num_rows == num_rows && matrix.num_cols == num_cols,
      "weights are " + shape(matrix.num_rows, matrix.num_cols) + ", not " +
          shape(num_rows, num_cols));
  AUGUR_REQUIRE(reinterpret_cast<uintptr_t>(matrix.data) % 64 == 0, "weights are unaligned");
  AUGUR_REQUIRE(matrix.scales == nullptr, "only experts may be int8");
}

}  // namespace

void check_mlp(const MlpWeights& weights, int64_t hidden_size) {
  check_matrix(weights.gate, weights.gate.num_rows, hidden_size);
  check_matrix(weights.up, weights.gate.num_rows, hidden_size);
  check_matrix(weights.down, hidden_size, weights.gate.num_rows);
}

int64_t linear_scratch_bytes(int64_t num_tokens, int64_t num_cols, Isa isa) {
  return ScratchCarver::padded(gemm_unit(isa).packed_bytes(num_tokens, num_col_tiles(num_cols)));
}

void linear(const LinearArgs& args, Isa isa, WorkerPool& pool, std::span<std::byte> scratch) {
  const int64_t num_tokens = args.x.num_rows;
  AUGUR_REQUIRE(args.x.dtype == DType::kBF16, "x must be bf16");
  AUGUR_REQUIRE(args.out.dtype == DType::kF32 || args.out.dtype == DType::kBF16,
                "out must be f32 or bf16");
  AUGUR_REQUIRE(args.out.num_rows == num_tokens && args.out.num_cols == args.weight.num_rows,
                "out is " + shape(args.out.num_rows, args.out.num_cols) + ", not " +
                    shape(num_tokens, args.weight.num_rows));
  if (num_tokens == 0 || args.weight.num_rows == 0) return;
  check_matrix(args.weight, args.out.num_cols, args.x.num_cols);

  const GemmUnit& unit = gemm_unit(isa);
  const int64_t num_panels = num_row_tiles(args.weight.num_rows);
  GemmBlock block;
  block.num_col_tiles = num_col_tiles(args.x.num_cols);
  std::byte* const tokens =
      ScratchCarver(scratch).take(unit.packed_bytes(num_tokens, block.num_col_tiles));
  pack_all_tokens(unit, args.x, /*rows=*/nullptr, num_tokens, tokens, pool);

  block.output = args.out.dtype == DType::kF32 ? GemmOutput::kF32 : GemmOutput::kBf16;
  block.tokens = tokens;
  block.weights = args.weight.data;
  block.bias = args.bias;
  block.out = args.out.data;
  block.out_stride = args.out.row_stride;
  block.is_large_out = is_large_out(num_tokens, block.out_stride, pool.num_threads());
  block.num_rows = args.weight.num_rows;
  const GemmPlan plan = plan_gemm(unit, num_tokens, block.num_col_tiles, num_panels,
                                  unit.panel_group, pool.num_threads());
  pool.parallel_for(plan.num_chunks(), [&](int64_t chunk_idx, int) {
    GemmBlock part = block;
    set_chunk(plan, num_panels, unit.panel_group, chunk_idx, part);
    unit.multiply(part);
  });
}

int64_t mlp_scratch_bytes(int64_t num_tokens,
                          int64_t hidden_size,
                          int64_t intermediate_size,
                          Isa isa) {
  return linear_scratch_bytes(num_tokens, hidden_size, isa) +
         linear_scratch_bytes(num_tokens, intermediate_size, isa);
}

void mlp(const MlpArgs& args, Isa isa, WorkerPool& pool, std::span<std::byte> scratch) {
  const int64_t num_tokens = args.x.num_rows;
  const int64_t hidden_size = args.x.num_cols;
  AUGUR_REQUIRE(args.x.dtype == DType::kBF16, "x must be bf16");
  AUGUR_REQUIRE(args.out.dtype == DType::kF32 && args.out.num_rows == num_tokens &&
                    args.out.num_cols == hidden_size,
                "out must be f32 and " + shape(num_tokens, hidden_size));
  if (num_tokens == 0) return;
  check_mlp(args.weights, hidden_size);

  const GemmUnit& unit = gemm_unit(isa);
  const int64_t intermediate_size = args.weights.gate.num_rows;
  ScratchCarver carver(scratch);
  GemmBlock gate_up;
  gate_up.num_col_tiles = num_col_tiles(hidden_size);
  std::byte* const tokens = carver.take(unit.packed_bytes(num_tokens, gate_up.num_col_tiles));
  std::byte* const gated =
      carver.take(unit.packed_bytes(num_tokens, num_col_tiles(intermediate_size)));
  pack_all_tokens(unit, args.x, /*rows=*/nullptr, num_tokens, tokens, pool);

  gate_up.output = GemmOutput::kGated;
  gate_up.tokens = tokens;
  gate_up.weights = args.weights.gate.data;
  gate_up.up = args.weights.up.data;
  gate_up.out = gated;
  gate_up.num_rows = intermediate_size;
  const int64_t num_gate_panels = num_row_tiles(intermediate_size);
  const int64_t gate_group = unit.panel_group / 2;  // as many up panels beside them
  const GemmPlan gate_plan = plan_gemm(unit, num_tokens, gate_up.num_col_tiles, num_gate_panels,
                                       gate_group, pool.num_threads());
  pool.parallel_for(gate_plan.num_chunks(), [&](int64_t chunk_idx, int) {
    GemmBlock part = gate_up;
    set_chunk(gate_plan, num_gate_panels, gate_group, chunk_idx, part);
    unit.multiply(part);
  });

  GemmBlock down;
  down.tokens = gated;
  down.weights = args.weights.down.data;
  down.out = args.out.data;
  down.out_stride = args.out.row_stride;
  down.is_large_out = is_large_out(num_tokens, down.out_stride, pool.num_threads());
  down.num_rows = hidden_size;
  down.num_col_tiles = num_col_tiles(intermediate_size);
  const int64_t num_panels = num_row_tiles(hidden_size);
  const GemmPlan down_plan = plan_gemm(unit, num_tokens, down.num_col_tiles, num_panels,
                                       unit.panel_group, pool.num_threads());
  pool.parallel_for(down_plan.num_chunks(), [&](int64_t chunk_idx, int) {
    GemmBlock part = down;
    set_chunk(down_plan, num_panels, unit.panel_group, chunk_idx, part);
    unit.multiply(part);
  });
}

}  // namespace augur::cpu
