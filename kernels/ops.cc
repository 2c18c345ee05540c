#include "kernels/ops.h"

#include "kernels/require.h"

namespace augur {
namespace {

// A whole number of 64-byte lines: 16 rows.
int64_t scales_bytes(int64_t num_rows) {
  return (num_rows + 15) / 16 * 64;
}

}  // namespace

void Ops::quantize_expert(const ExpertLayout& from,
                          const std::byte* block,
                          const ExpertLayout& to,
                          std::byte* out) const {
  AUGUR_REQUIRE(false, description() + " has no int8 experts");
}

ExpertLayout expert_layout(const Ops& ops,
                           int64_t hidden_size,
                           int64_t intermediate_size,
                           ExpertFormat format) {
  AUGUR_REQUIRE(hidden_size > 0 && intermediate_size > 0,
                std::to_string(hidden_size) + " x " + std::to_string(intermediate_size));
  const bool is_int8 = format == ExpertFormat::kInt8;
  AUGUR_REQUIRE(!is_int8 || ops.has_int8_experts(), ops.description() + " has no int8 experts");
  const int64_t divisor = is_int8 ? 2 : 1;  // the backend knows the size in bf16
  const int64_t projection_bytes =
      ops.packed_bytes(MatrixUse::kMlp, intermediate_size, hidden_size) / divisor;
  const int64_t down_bytes =
      ops.packed_bytes(MatrixUse::kMlp, hidden_size, intermediate_size) / divisor;
  ExpertLayout layout;
  layout.hidden_size = hidden_size;
  layout.intermediate_size = intermediate_size;
  layout.up_offset = projection_bytes;
  layout.down_offset = 2 * projection_bytes;
  layout.block_bytes = layout.down_offset + down_bytes;
  layout.format = format;
  if (!is_int8) return layout;
  layout.gate_scales_offset = layout.block_bytes;
  layout.up_scales_offset = layout.gate_scales_offset + scales_bytes(intermediate_size);
  layout.down_scales_offset = layout.up_scales_offset + scales_bytes(intermediate_size);
  layout.block_bytes = layout.down_scales_offset + scales_bytes(hidden_size);
  return layout;
}

}  // namespace augur
