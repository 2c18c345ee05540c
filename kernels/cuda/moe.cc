#include "kernels/cuda/moe.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/moe_plan.h"
#include "kernels/cuda/moe_portable.h"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int64_t kAlignment = 256;
// No kernel cuts an expert's rows into smaller tiles; smaller tiles need the larger plan.
constexpr int kSmallestTileRows = 8;

// Parts of the workspace, one after another.
class Carver {
 public:
  explicit Carver(std::span<std::byte> memory) : memory_(memory) {}

  std::byte* take(int64_t num_bytes) {
    std::byte* const start = memory_.data() + used_;
    used_ += (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
    AUGUR_REQUIRE(used_ <= static_cast<int64_t>(memory_.size()),
                  std::to_string(used_) + " bytes of " + std::to_string(memory_.size()));
    return start;
  }

 private:
  std::span<std::byte> memory_;
  int64_t used_ = 0;
};

}  // namespace

int64_t moe_workspace_bytes(const StepLimits& limits) {
  int64_t num_bytes = 0;
  const int64_t max_tokens = limits.max_tokens;
  if (limits.mlp_intermediate_size > 0) {
    num_bytes = moe_portable_workspace_bytes(max_tokens, 1, limits.hidden_size,
                                             limits.mlp_intermediate_size) +
                kAlignment;
  }
  if (limits.num_experts > 0) {
    const int top_k = static_cast<int>(limits.top_k);
    num_bytes += moe_plan_bytes(max_tokens * top_k, limits.num_experts, kSmallestTileRows) +
                 max_tokens * limits.hidden_size * 2 +
                 moe_portable_workspace_bytes(max_tokens, top_k, limits.hidden_size,
                                              limits.expert_intermediate_size) +
                 3 * kAlignment;
  }
  return num_bytes;
}

void mlp(const MlpArgs& args, std::span<std::byte> workspace, cudaStream_t stream) {
  const int64_t num_tokens = args.x.num_rows;
  if (num_tokens == 0) return;
  mlp_portable({.mlp = args, .workspace = workspace.data()}, stream);
}

void moe(const MoeArgs& args, std::span<std::byte> workspace, cudaStream_t stream) {
  const int64_t num_tokens = args.x.num_rows;
  if (num_tokens == 0) return;
  const ExpertLayout& layout = args.table.layout;
  Carver carver(workspace);
  MoePrefillArgs moe;
  moe.moe = args;
  if (args.shared.gate.data != nullptr) {
    moe.shared_out = dense(carver.take(num_tokens * layout.hidden_size * 2), DType::kBF16,
                           num_tokens, layout.hidden_size);
    const int64_t mlp_bytes =
        moe_portable_workspace_bytes(num_tokens, 1, layout.hidden_size, args.shared.gate.num_rows);
    mlp({.x = args.x, .weights = args.shared, .out = moe.shared_out},
        {carver.take(mlp_bytes), static_cast<size_t>(mlp_bytes)}, stream);
  }
  const int64_t num_assignments = num_tokens * args.top_k;
  const int tile_rows = moe_portable_tile_rows(num_tokens, args.top_k, args.table.num_experts);
  moe.plan = place_moe_plan(
      carver.take(moe_plan_bytes(num_assignments, args.table.num_experts, tile_rows)),
      num_assignments, args.table.num_experts, tile_rows);
  plan_moe({.experts = args.experts,
            .num_assignments = num_assignments,
            .slot_of_expert = args.table.slot_of_expert,
            .num_experts = args.table.num_experts,
            .plan = moe.plan},
           stream);
  moe.workspace = carver.take(moe_portable_workspace_bytes(
      num_tokens, args.top_k, layout.hidden_size, layout.intermediate_size));
  moe_portable(moe, stream);
}

}  // namespace augur::cuda
