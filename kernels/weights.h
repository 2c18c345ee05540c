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

/// A weight matrix [num_rows outputs, num_cols inputs], bf16, packed by Ops::pack_rows.
/// Only the operations of the same backend know the layout behind `data`.
struct PackedMatrix {
  const std::byte* data = nullptr;
  int64_t num_rows = 0;
  int64_t num_cols = 0;
};

/// A gated MLP: down(silu(gate(x)) * up(x)). gate and up are [intermediate, hidden], down is
/// [hidden, intermediate]. Source: Shazeer 2020, arXiv:2002.05202 (SwiGLU).
struct MlpWeights {
  PackedMatrix gate;
  PackedMatrix up;
  PackedMatrix down;
};

/// Where the three matrices lie in one expert's block. Blocks of a model are all alike, so that
/// any slot can hold any expert; offsets are multiples of 64 bytes.
struct ExpertLayout {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t up_offset = 0;    // bytes; gate lies at 0
  int64_t down_offset = 0;  // bytes
  int64_t block_bytes = 0;

  MlpWeights view(const std::byte* block) const {
    return {{block, intermediate_size, hidden_size},
            {block + up_offset, intermediate_size, hidden_size},
            {block + down_offset, hidden_size, intermediate_size}};
  }
};

/// The experts of one layer as the kernels address them: expert e lies in slot slot_of_expert[e]
/// of one pool. The table is in the backend's memory; routing and slots never visit the host.
struct ExpertTable {
  const std::byte* slots = nullptr;
  ExpertLayout layout;
  const int32_t* slot_of_expert = nullptr;  // [num_experts]
  int num_experts = 0;
};

}  // namespace augur
