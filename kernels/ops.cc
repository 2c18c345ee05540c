#include "kernels/ops.h"

#include "kernels/require.h"

namespace augur {

ExpertLayout expert_layout(const Ops& ops, int64_t hidden_size, int64_t intermediate_size) {
  AUGUR_REQUIRE(hidden_size > 0 && intermediate_size > 0,
                std::to_string(hidden_size) + " x " + std::to_string(intermediate_size));
  const int64_t projection_bytes = ops.packed_bytes(MatrixUse::kMlp, intermediate_size, hidden_size);
  ExpertLayout layout;
  layout.hidden_size = hidden_size;
  layout.intermediate_size = intermediate_size;
  layout.up_offset = projection_bytes;
  layout.down_offset = 2 * projection_bytes;
  layout.block_bytes = layout.down_offset + ops.packed_bytes(MatrixUse::kMlp, hidden_size, intermediate_size);
  return layout;
}

}  // namespace augur
