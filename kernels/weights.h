// Weight matrices in the layout of the backend that packed them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace augur {

/// Which operations read a matrix: a backend may lay it out differently for each.
enum class MatrixUse : uint8_t {
  kProjection,  // linear and embed
  kMlp,         // mlp and moe: gate, up and down
};

/// What the weights of an expert are kept as.
enum class ExpertFormat : uint8_t {
  kBF16,
  kInt8,  // a signed byte a weight, times one float32 scale per output row: about half the bytes
};

/// A weight matrix [num_rows outputs, num_cols inputs], packed by Ops::pack_rows (bf16), or by
/// Ops::quantize_expert (int8), which only the moe operation reads.
/// Only the operations of the same backend know the layout behind `data`.
struct PackedMatrix {
  const std::byte* data = nullptr;
  int64_t num_rows = 0;
  int64_t num_cols = 0;
  // Null: bf16. Otherwise [num_rows], padded with zeros to a multiple of 16: a weight is its int8
  // value times its row's scale.
  const float* scales = nullptr;
};

/// A gated MLP: down(silu(gate(x)) * up(x)). gate and up are [intermediate, hidden], down is
/// [hidden, intermediate]. Source: Shazeer 2020, arXiv:2002.05202 (SwiGLU).
struct MlpWeights {
  PackedMatrix gate;
  PackedMatrix up;
  PackedMatrix down;
};

/// Where the three matrices lie in one expert's block: gate, up, down, and for int8 the scales of
/// each in that order. Blocks of one format are all alike, so that any slot can hold any expert;
/// offsets are multiples of 64 bytes. expert_layout() of kernels/ops.h makes one.
struct ExpertLayout {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t up_offset = 0;    // bytes; gate lies at 0
  int64_t down_offset = 0;  // bytes
  int64_t block_bytes = 0;
  ExpertFormat format = ExpertFormat::kBF16;
  int64_t gate_scales_offset = 0;  // bytes; kInt8 only, as the next two
  int64_t up_scales_offset = 0;
  int64_t down_scales_offset = 0;

  MlpWeights view(const std::byte* block) const {
    const auto scales = [&](int64_t offset) {
      return format == ExpertFormat::kInt8 ? reinterpret_cast<const float*>(block + offset)
                                           : nullptr;
    };
    return {{block, intermediate_size, hidden_size, scales(gate_scales_offset)},
            {block + up_offset, intermediate_size, hidden_size, scales(up_scales_offset)},
            {block + down_offset, hidden_size, intermediate_size, scales(down_scales_offset)}};
  }
};

/// The experts of one layer as the kernels address them: expert e lies in slot slot_of_expert[e]
/// of one pool. The table is in the backend's memory; routing and slots never visit the host.
struct ExpertTable {
  const std::byte* slots = nullptr;
  ExpertLayout layout;
  const int32_t* slot_of_expert = nullptr;  // [num_experts]
  int num_experts = 0;

  /// For backends whose memory the host reads. Requires expert < num_experts, and in a slot.
  MlpWeights view(int32_t expert) const {
    return layout.view(slots + slot_of_expert[expert] * layout.block_bytes);
  }
};

}  // namespace augur
