#include "kernels/cuda/moe.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/align_up.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/moe_plan.h"
#include "kernels/cuda/moe_portable.h"
#include "kernels/cuda/sm90_moe_decode.h"
#include "kernels/cuda/sm90_moe_prefill.h"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

// No kernel cuts an expert's rows into smaller tiles; smaller tiles need the larger plan.
constexpr int kSmallestTileRows = 8;

enum class Path { kDecode, kPrefill, kPortable };

// Rows of an expert, on average, up to which its weights stream past them at the speed of memory;
// with more the tiles of the prefill kernels are used better.
constexpr int64_t kMaxDecodeRowsPerExpert = 32;
constexpr int64_t kMaxDecodeTokens = 128;

Path choose_path(const Tensor& x, int64_t num_rows_per_expert) {
  if (!device_traits().is_hopper()) return Path::kPortable;
  if (x.num_rows <= kMaxDecodeTokens && num_rows_per_expert <= kMaxDecodeRowsPerExpert) {
    return Path::kDecode;
  }
  const bool rows_are_aligned =
      x.num_cols % 8 == 0 && x.row_stride % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  return rows_are_aligned ? Path::kPrefill : Path::kPortable;
}

// Parts of the scratch, one after another, and the state beside them.
class Carver {
 public:
  explicit Carver(const MoeMemory& memory) : memory_(memory) {}

  std::byte* state() const { return memory_.state; }
  std::byte* take(int64_t num_bytes) {
    std::byte* const start = memory_.scratch.data() + used_;
    used_ += align_up(num_bytes);
    AUGUR_REQUIRE(used_ <= static_cast<int64_t>(memory_.scratch.size()),
                  std::to_string(used_) + " bytes of " + std::to_string(memory_.scratch.size()));
    return start;
  }

 private:
  const MoeMemory memory_;
  int64_t used_ = 0;
};

// Of whichever kernels run.
int64_t kernel_workspace_bytes(
    int64_t num_tokens, int top_k, int num_experts, int64_t hidden, int64_t intermediate) {
  int64_t num_bytes = moe_portable_workspace_bytes(num_tokens, top_k, hidden, intermediate);
  if (!device_traits().is_hopper()) return align_up(num_bytes);
  num_bytes = std::max(num_bytes, moe_decode_workspace_bytes(std::min(num_tokens, kMaxDecodeTokens),
                                                             top_k, hidden, intermediate));
  if (hidden % 8 == 0) {
    num_bytes = std::max(num_bytes, sm90_moe_prefill_workspace_bytes(num_tokens, top_k, num_experts,
                                                                     hidden, intermediate));
  }
  return align_up(num_bytes);
}

void run_mlp(const MlpArgs& args, Carver& carver, cudaStream_t stream) {
  const int64_t num_tokens = args.x.num_rows;
  const int64_t hidden = args.x.num_cols;
  const int64_t intermediate = args.weights.gate.num_rows;
  std::byte* const workspace =
      carver.take(kernel_workspace_bytes(num_tokens, 1, 1, hidden, intermediate));
  switch (choose_path(args.x, num_tokens)) {
    case Path::kDecode:
      sm90_mlp_decode({.mlp = args,
                       .config = mlp_decode_config(num_tokens, hidden, intermediate),
                       .workspace = workspace,
                       .state = carver.state()},
                      stream);
      return;
    case Path::kPrefill:
      sm90_mlp_prefill({.mlp = args, .workspace = workspace}, stream);
      return;
    case Path::kPortable:
      mlp_portable({.mlp = args, .workspace = workspace}, stream);
      return;
  }
}

MoePlan make_plan(const MoeArgs& args, int tile_rows, Carver& carver, cudaStream_t stream) {
  const int64_t num_assignments = args.x.num_rows * args.top_k;
  const int num_experts = args.table.num_experts;
  const MoePlan plan =
      place_moe_plan(carver.take(moe_plan_bytes(num_assignments, num_experts, tile_rows)),
                     num_assignments, num_experts, tile_rows);
  plan_moe({.experts = args.experts,
            .num_assignments = num_assignments,
            .slot_of_expert = args.table.slot_of_expert,
            .num_experts = num_experts,
            .plan = plan},
           stream);
  return plan;
}

}  // namespace

int64_t moe_state_bytes(const StepLimits& limits) {
  if (!device_traits().is_hopper()) return 0;
  const int64_t num_tokens = std::min(limits.max_tokens, kMaxDecodeTokens);
  int64_t num_bytes = 0;
  if (limits.mlp_intermediate_size > 0) {
    num_bytes = moe_decode_state_bytes(num_tokens, 1, limits.mlp_intermediate_size);
  }
  if (limits.num_experts > 0) {
    num_bytes =
        std::max(num_bytes, moe_decode_state_bytes(num_tokens, static_cast<int>(limits.top_k),
                                                   limits.expert_intermediate_size));
  }
  return num_bytes;
}

int64_t moe_scratch_bytes(const StepLimits& limits) {
  const int64_t max_tokens = limits.max_tokens;
  int64_t num_bytes = 0;
  if (limits.mlp_intermediate_size > 0) {
    num_bytes +=
        kernel_workspace_bytes(max_tokens, 1, 1, limits.hidden_size, limits.mlp_intermediate_size);
  }
  if (limits.num_experts > 0) {
    const int top_k = static_cast<int>(limits.top_k);
    const int num_experts = static_cast<int>(limits.num_experts);
    num_bytes +=
        align_up(moe_plan_bytes(max_tokens * top_k, num_experts, kSmallestTileRows)) +
        align_up(max_tokens * limits.hidden_size * dtype_bytes(DType::kBF16)) +  // shared_out
        kernel_workspace_bytes(max_tokens, top_k, num_experts, limits.hidden_size,
                               limits.expert_intermediate_size);
  }
  return num_bytes;
}

void mlp(const MlpArgs& args, const MoeMemory& memory, cudaStream_t stream) {
  if (args.x.num_rows == 0) return;
  Carver carver(memory);
  run_mlp(args, carver, stream);
}

void moe(const MoeArgs& args, const MoeMemory& memory, cudaStream_t stream) {
  AUGUR_REQUIRE(args.feed == nullptr, "experts cannot be fed from the host");
  const int64_t num_tokens = args.x.num_rows;
  AUGUR_REQUIRE(args.table.layout.format == ExpertFormat::kBF16 && args.low_bit.slots == nullptr,
                "experts are bf16 on CUDA");
  if (num_tokens == 0) return;
  const int64_t hidden = args.table.layout.hidden_size;
  const int64_t intermediate = args.table.layout.intermediate_size;
  const int num_experts = args.table.num_experts;
  Carver carver(memory);
  Tensor shared_out;
  if (args.shared.gate.data != nullptr) {
    shared_out = dense(carver.take(num_tokens * hidden * dtype_bytes(DType::kBF16)), DType::kBF16,
                       num_tokens, hidden);
    run_mlp({.x = args.x, .weights = args.shared, .out = shared_out}, carver, stream);
  }
  std::byte* const kernel_workspace = carver.take(
      kernel_workspace_bytes(num_tokens, args.top_k, num_experts, hidden, intermediate));
  const int64_t rows_per_expert = ceil_div<int64_t>(num_tokens * args.top_k, num_experts);
  switch (choose_path(args.x, rows_per_expert)) {
    case Path::kDecode: {
      MoeDecodeArgs decode;
      decode.moe = args;
      decode.shared_out = shared_out;
      decode.config = moe_decode_config(num_tokens, args.top_k, num_experts, hidden, intermediate);
      if (decode.config.needs_plan) {
        decode.plan = make_plan(args, decode.config.tile_rows, carver, stream);
      }
      decode.workspace = kernel_workspace;
      decode.state = carver.state();
      sm90_moe_decode(decode, stream);
      return;
    }
    case Path::kPrefill: {
      const int tile_rows =
          moe_prefill_config(num_tokens, args.top_k, num_experts, hidden, intermediate).tile_rows;
      sm90_moe_prefill({.moe = args,
                        .plan = make_plan(args, tile_rows, carver, stream),
                        .workspace = kernel_workspace,
                        .shared_out = shared_out},
                       stream);
      return;
    }
    case Path::kPortable:
      moe_portable(
          {.moe = args,
           .plan = make_plan(args, moe_portable_tile_rows(num_tokens, args.top_k, num_experts),
                             carver, stream),
           .workspace = kernel_workspace,
           .shared_out = shared_out},
          stream);
      return;
  }
}

}  // namespace augur::cuda
