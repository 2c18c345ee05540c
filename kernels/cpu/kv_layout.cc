#include "kernels/cpu/kv_layout.h"

#include <limits>
#include <string>

#include "kernels/cpu/token_kernels.h"
#include "kernels/require.h"

namespace augur::cpu {

KvLayout kv_layout(int block_size, int num_kv_heads, int head_dim, KvFormat format) {
  AUGUR_REQUIRE(block_size > 0 && block_size % kKvGroup == 0,
                "block_size is " + std::to_string(block_size) +
                    "; the CPU backends take multiples of " + std::to_string(kKvGroup));
  AUGUR_REQUIRE(num_kv_heads > 0, "num_kv_heads is " + std::to_string(num_kv_heads));
  AUGUR_REQUIRE(head_dim >= 2 && head_dim <= kMaxHeadDim && head_dim % 2 == 0,
                "head_dim is " + std::to_string(head_dim) + "; even numbers up to " +
                    std::to_string(kMaxHeadDim) + " are accepted");
  KvLayout layout;
  layout.block_size = block_size;
  const bool is_int8 = format == KvFormat::kInt8;
  const int64_t element_bytes = is_int8 ? 1 : 2;
  const int64_t scale_bytes = is_int8 ? kKvScaleBytes : 0;
  layout.key_group_bytes = kKvGroup * head_dim * element_bytes + scale_bytes;
  layout.value_row_bytes = (head_dim + 15) / 16 * 16 * 2 * element_bytes;
  layout.value_group_bytes = kKvGroup / 2 * layout.value_row_bytes + scale_bytes;
  layout.values_offset = block_size / kKvGroup * layout.key_group_bytes;
  layout.head_bytes = layout.values_offset + block_size / kKvGroup * layout.value_group_bytes;
  AUGUR_REQUIRE(layout.head_bytes <= std::numeric_limits<int64_t>::max() / num_kv_heads,
                std::to_string(num_kv_heads) + " heads of " + std::to_string(layout.head_bytes) +
                    " bytes a block");
  layout.block_bytes = layout.head_bytes * num_kv_heads;
  return layout;
}

int64_t kv_block_bytes_cpu(int block_size, int num_kv_heads, int head_dim, KvFormat format) {
  return kv_layout(block_size, num_kv_heads, head_dim, format).block_bytes;
}

}  // namespace augur::cpu
