#include "kernels/cuda/sm90_moe_decode.h"

#include <algorithm>

#include "kernels/cuda/align_up.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/moe_stream_copy.cuh"
#include "kernels/cuda/moe_stream_multiply.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

using namespace moe_stream;

// Whether two blocks may share a multiprocessor.
constexpr bool can_pair(int tile_rows) {
  return tile_rows <= 32;
}

template <int kMatrices, int kN, int kRows>
__global__ void __launch_bounds__(num_threads(kN), can_pair(kN) ? 2 : 1)
    moe_stream_kernel(const __grid_constant__ StreamArgs args) {
  extern __shared__ __align__(128) std::byte memory[];
  const Smem<kMatrices, kN, kRows> smem{memory, args.num_stages};
  if (threadIdx.x == 0) {
    for (int s = 0; s < args.num_stages; ++s) {
      barrier_init(smem.posted(s), 1);
      barrier_init(smem.full(s), num_full_arrivals(kN));
      barrier_init(smem.empty(s), kConsumers);
    }
    barrier_init_fence();
  }
  // The first kernel has waited for the call before, which counted itself, and not yet ended.
  uint32_t call = 0;
  if (kMatrices == 1 && threadIdx.x == kWeightsWarp * 32) call = __ldcg(args.state.num_calls) + 1;
  __syncthreads();
  if (kMatrices == 1) let_next_kernel_start();
  const auto warp = static_cast<int>(threadIdx.x / 32);
  const auto lane = static_cast<int>(threadIdx.x % 32);
  if (warp == kWeightsWarp) {
    WeightsProducer<kMatrices, kN, kRows> producer{args, smem, {args.num_stages}, call};
    producer.run(lane);
  } else if (warp > kWeightsWarp) {
    using Producer = TokensProducer<kMatrices, kN, kRows>;
    Producer producer{
        args, smem, (warp - kWeightsWarp - 1) * Producer::kRowsOfWarp, lane, {args.num_stages}};
    producer.run();
  } else {
    Consumer<kMatrices, kN, kRows> consumer{args, smem, warp, lane / 4, lane % 4};
    consumer.run();
  }
}

// A thread makes four columns of a token.
constexpr int kSumThreads = 128;
constexpr int kSumCols = 4;

__global__ void moe_sum_kernel(const float* y,
                               int64_t y_stride,
                               const int32_t* experts,
                               int top_k,
                               Tensor shared,
                               Tensor out,
                               bool is_out_aligned) {
  let_next_kernel_start();
  wait_for_previous_kernels();
  const int64_t token = blockIdx.y;
  const int64_t col = (int64_t{blockIdx.x} * kSumThreads + threadIdx.x) * kSumCols;
  if (col >= out.num_cols) return;
  float values[kSumCols] = {};
#pragma unroll 8
  for (int choice = 0; choice < top_k; ++choice) {
    const int64_t assignment = token * top_k + choice;
    if (experts[assignment] < 0) continue;
    const float4 part = *reinterpret_cast<const float4*>(y + assignment * y_stride + col);
    values[0] += part.x;
    values[1] += part.y;
    values[2] += part.z;
    values[3] += part.w;
  }
  const auto num_cols = static_cast<int>(min(out.num_cols - col, int64_t{kSumCols}));
  if (shared.data != nullptr) {
    for (int i = 0; i < num_cols; ++i) values[i] += read_as_float(shared, token, col + i);
  }
  write_four(out.data, out.dtype == DType::kBF16, is_out_aligned, token * out.row_stride + col,
             num_cols, values);
}

// Copies rows that bulk copies cannot take as they are into rows of whole tiles.
__global__ void pad_rows_kernel(Tensor x, __nv_bfloat16* to, int64_t to_stride) {
  let_next_kernel_start();
  wait_for_previous_kernels();
  const int64_t row = blockIdx.x;
  for (int64_t col = threadIdx.x; col < to_stride; col += blockDim.x) {
    to[row * to_stride + col] =
        col < x.num_cols ? static_cast<const __nv_bfloat16*>(x.data)[row * x.row_stride + col]
                         : __float2bfloat16(0.0f);
  }
}

constexpr int64_t kCounterBytes = 64;  // each in sectors of its own
constexpr int kNumCounters = 4;
constexpr int kFewestRows = 16;  // of an item

int64_t padded(int64_t num_cols) {
  return num_tiles(num_cols) * kTileCols;
}
bool is_aligned(const Tensor& tensor, int64_t num_elements) {
  const int64_t num_bytes = num_elements * dtype_bytes(tensor.dtype);
  return reinterpret_cast<uintptr_t>(tensor.data) % num_bytes == 0 &&
         tensor.row_stride % num_elements == 0;
}

// The workspace: h, y and x in whole tiles.
struct Workspace {
  __nv_bfloat16* h;
  float* y;
  __nv_bfloat16* x;
  int64_t num_bytes;

  Workspace(
      std::byte* memory, int64_t num_tokens, int top_k, int64_t hidden, int64_t intermediate) {
    const int64_t h_bytes = align_up(num_tokens * top_k * padded(intermediate) * 2);
    const int64_t y_bytes = align_up(num_tokens * top_k * padded(hidden) * 4);
    h = reinterpret_cast<__nv_bfloat16*>(memory);
    y = reinterpret_cast<float*>(memory + h_bytes);
    x = reinterpret_cast<__nv_bfloat16*>(memory + h_bytes + y_bytes);
    num_bytes = h_bytes + y_bytes + align_up(num_tokens * padded(hidden) * 2);
  }
};

State place_state(std::byte* memory) {
  const auto counter = [&](int i) { return memory + i * kCounterBytes; };
  return {reinterpret_cast<int32_t*>(counter(0)), reinterpret_cast<int32_t*>(counter(1)),
          reinterpret_cast<int32_t*>(counter(2)), reinterpret_cast<uint32_t*>(counter(3)),
          reinterpret_cast<uint32_t*>(counter(kNumCounters))};
}

// All of a multiprocessor's shared memory, or half, less what blocks reserve.
constexpr int kSmemBytes = 227 * 1024;
constexpr int kHalfSmemBytes = (228 * 1024) / 2 - 1024;

template <int kMatrices, int kN, int kRows>
void stream_weights(StreamArgs args, bool is_paired, cudaStream_t stream) {
  using Layout = Smem<kMatrices, kN, kRows>;
  constexpr auto max_stages = [](int num_bytes) {
    return std::min((num_bytes - Layout::kFixed) / Layout::kPerStage, kMaxStages);
  };
  static_assert(max_stages(kSmemBytes) >= 4);
  // With fewer stages the copies would wait for the products.
  constexpr int kFewestStages = 3;
  constexpr int kStagesOfHalf = max_stages(kHalfSmemBytes);
  args.num_stages =
      is_paired && kStagesOfHalf >= kFewestStages ? kStagesOfHalf : max_stages(kSmemBytes);
  auto* const kernel = moe_stream_kernel<kMatrices, kN, kRows>;
  static const bool is_allowed = (allow_smem(kernel, kSmemBytes), true);
  (void)is_allowed;
  launch(kernel,
         {.grid = dim3(static_cast<unsigned>(device_traits().num_sms)),
          .block = dim3(num_threads(kN)),
          .smem_bytes = Layout::num_bytes(args.num_stages)},
         stream, args);
}

template <int kMatrices, int kN>
void stream_weights(int rows, bool is_paired, const StreamArgs& args, cudaStream_t stream) {
  if (rows == 64) return stream_weights<kMatrices, kN, 64>(args, is_paired, stream);
  if (rows == 32) return stream_weights<kMatrices, kN, 32>(args, is_paired, stream);
  if constexpr (kN <= 32) {
    if (rows == 16) return stream_weights<kMatrices, kN, 16>(args, is_paired, stream);
  }
  AUGUR_REQUIRE(false, std::to_string(rows) + " rows by " + std::to_string(kN) + " tokens");
}

template <int kMatrices>
void stream_weights(const MoeDecodeConfig& config,
                    int rows,
                    const StreamArgs& args,
                    cudaStream_t stream) {
  const bool is_paired = config.is_paired;
  switch (config.tile_rows) {
    case 8:
      return stream_weights<kMatrices, 8>(rows, is_paired, args, stream);
    case 16:
      return stream_weights<kMatrices, 16>(rows, is_paired, args, stream);
    case 32:
      return stream_weights<kMatrices, 32>(rows, is_paired, args, stream);
    case 64:
      return stream_weights<kMatrices, 64>(rows, /*is_paired=*/false, args, stream);
    default:
      AUGUR_REQUIRE(false, config.to_string());
  }
}

// x as the kernels can copy it: itself, or a copy in the workspace.
StreamArgs with_tokens(StreamArgs args, const Tensor& x, __nv_bfloat16* copy, cudaStream_t stream) {
  AUGUR_REQUIRE(x.dtype == DType::kBF16, "x is not bf16");
  if (x.num_cols % kTileCols == 0 && is_aligned(x, 8)) {
    args.x = static_cast<const __nv_bfloat16*>(x.data);
    args.x_stride = x.row_stride;
    return args;
  }
  args.x = copy;
  args.x_stride = padded(x.num_cols);
  launch(pad_rows_kernel,
         {.grid = dim3(static_cast<unsigned>(x.num_rows)), .block = dim3(kSumThreads)}, stream, x,
         copy, args.x_stride);
  return args;
}

// Both kernels. `common` has what they share: rows, the plan, the choices, slot_bytes.
void run_mlps(StreamArgs common,
              const MlpWeights& weights,
              const Tensor& x,
              const Tensor& out,
              const MoeDecodeConfig& config,
              const Workspace& workspace,
              cudaStream_t stream) {
  const int64_t hidden = weights.gate.num_cols;
  const int64_t intermediate = weights.gate.num_rows;
  common.gate_up_rows = config.gate_up_rows;
  StreamArgs args = with_tokens(common, x, workspace.x, stream);
  args.matrices[0] = weights.gate.data;
  args.matrices[1] = weights.up.data;
  args.num_k_tiles = static_cast<int>(num_tiles(hidden));
  args.num_groups = static_cast<int>(padded(intermediate) / config.gate_up_rows);
  args.out = workspace.h;
  args.out_stride = padded(intermediate);
  args.num_out_cols = intermediate;
  args.shared = {};
  stream_weights<2>(config, config.gate_up_rows, args, stream);

  args = common;
  args.matrices[0] = weights.down.data;
  args.matrices[1] = nullptr;
  args.num_k_tiles = static_cast<int>(num_tiles(intermediate));
  args.num_groups = static_cast<int>(padded(hidden) / config.down_rows);
  args.x = workspace.h;
  args.x_stride = padded(intermediate);
  args.num_out_cols = hidden;
  args.out = out.data;
  args.out_stride = out.row_stride;
  args.is_out_bf16 = out.dtype == DType::kBF16;
  args.is_out_aligned = is_aligned(out, 4);
  stream_weights<1>(config, config.down_rows, args, stream);
}

}  // namespace

std::string MoeDecodeConfig::to_string() const {
  return "tiles of " + std::to_string(tile_rows) + " tokens, items of " +
         std::to_string(gate_up_rows) + " rows of gate and up and " + std::to_string(down_rows) +
         " of down, " + (needs_plan ? "planned" : "without a plan") + (is_paired ? ", paired" : "");
}

namespace {

// num_mlps: different ones that the tokens can need. is_summed: down makes the tokens' sums itself.
MoeDecodeConfig decode_config(int64_t num_tokens,
                              int64_t num_mlps,
                              bool is_summed,
                              int64_t hidden_size,
                              int64_t intermediate_size) {
  MoeDecodeConfig config;
  config.tile_rows = num_tokens <= 8 ? 8 : num_tokens <= 16 ? 16 : num_tokens <= 32 ? 32 : 64;
  const int fewest_rows = config.tile_rows == 64 ? 32 : kFewestRows;
  const auto rows_for = [&](int64_t num_strips, int64_t wanted_items) {
    int rows = kTileRows;
    while (rows > fewest_rows && num_strips * (kTileRows / rows) < wanted_items) rows /= 2;
    return rows;
  };
  // An MLP's tokens are cut into as many tiles as they fill; an expert has one or more.
  const int64_t tiles_of_mlp = num_mlps == 1 ? ceil_div<int64_t>(num_tokens, config.tile_rows) : 1;
  // Three items and more for each of about 130 multiprocessors, so that the last ones end nearly
  // together. Where down sums over a token's experts its items are few and long: one for each.
  // Fewer rows make each item read the tokens again: experts of wide tiles have items enough.
  constexpr int64_t kMultiprocessors = 128;
  const int64_t gate_strips = num_mlps * tiles_of_mlp * num_tiles(intermediate_size);
  const int64_t down_strips = (is_summed ? 1 : num_mlps) * tiles_of_mlp * num_tiles(hidden_size);
  config.gate_up_rows = is_summed && config.tile_rows == 8
                            ? kFewestRows
                            : rows_for(gate_strips, 3 * kMultiprocessors);
  config.down_rows = rows_for(down_strips, is_summed ? kMultiprocessors : 3 * kMultiprocessors);
  // Few long items of down are best begun early, beside those of gate and up, unless all is over in
  // less time than a block takes to start. Otherwise one longer ring of stages reads a little
  // faster than two.
  constexpr int64_t kWorthPairing = int64_t{64} << 20;
  config.is_paired =
      is_summed && num_mlps * 3 * hidden_size * intermediate_size * 2 >= kWorthPairing;
  return config;
}

}  // namespace

MoeDecodeConfig moe_decode_config(int64_t num_tokens,
                                  int top_k,
                                  int num_experts,
                                  int64_t hidden_size,
                                  int64_t intermediate_size) {
  const bool is_one_token = num_tokens == 1 && top_k <= kMaxChoices;
  MoeDecodeConfig config =
      decode_config(num_tokens, std::min<int64_t>(num_tokens * top_k, num_experts), is_one_token,
                    hidden_size, intermediate_size);
  config.needs_plan = !is_one_token;
  return config;
}

MoeDecodeConfig mlp_decode_config(int64_t num_tokens,
                                  int64_t hidden_size,
                                  int64_t intermediate_size) {
  return decode_config(num_tokens, 1, true, hidden_size, intermediate_size);
}

int64_t moe_decode_workspace_bytes(int64_t num_tokens,
                                   int top_k,
                                   int64_t hidden_size,
                                   int64_t intermediate_size) {
  return Workspace(nullptr, num_tokens, top_k, hidden_size, intermediate_size).num_bytes;
}

int64_t moe_decode_state_bytes(int64_t num_tokens, int top_k, int64_t intermediate_size) {
  return kNumCounters * kCounterBytes +
         num_tokens * top_k * (padded(intermediate_size) / kFewestRows) * 4;
}

void sm90_moe_decode(const MoeDecodeArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("sm90_moe_decode");
  const MoeArgs& moe = args.moe;
  const ExpertLayout& layout = moe.table.layout;
  const int64_t num_tokens = moe.x.num_rows;
  AUGUR_REQUIRE(moe.x.num_cols == layout.hidden_size && moe.out.num_cols == layout.hidden_size,
                "x has " + std::to_string(moe.x.num_cols) + " columns, the experts " +
                    std::to_string(layout.hidden_size));
  if (num_tokens == 0) return;
  const bool is_one_token = !args.config.needs_plan;
  AUGUR_REQUIRE(is_one_token ? num_tokens == 1 && moe.top_k <= kMaxChoices
                             : args.plan.tile_rows == args.config.tile_rows,
                args.config.to_string());
  const Workspace workspace(args.workspace, num_tokens, moe.top_k, layout.hidden_size,
                            layout.intermediate_size);
  StreamArgs common = {};
  common.state = place_state(args.state);
  common.slot_bytes = layout.block_bytes;
  common.rows = is_one_token ? Rows::kOneToken : Rows::kPlan;
  common.num_tokens = num_tokens;
  common.plan = args.plan;
  common.experts = moe.experts;
  common.weights = moe.weights;
  common.slot_of_expert = moe.table.slot_of_expert;
  common.top_k = moe.top_k;
  if (is_one_token) common.shared = args.shared_out;
  const int64_t y_stride = padded(layout.hidden_size);
  const Tensor y = {workspace.y, DType::kF32, num_tokens * moe.top_k, layout.hidden_size, y_stride};
  run_mlps(common, layout.view(moe.table.slots), moe.x, is_one_token ? moe.out : y, args.config,
           workspace, stream);
  if (is_one_token) return;
  launch(moe_sum_kernel,
         {.grid = dim3(
              static_cast<unsigned>(ceil_div<int64_t>(layout.hidden_size, kSumThreads * kSumCols)),
              static_cast<unsigned>(num_tokens)),
          .block = dim3(kSumThreads)},
         stream, workspace.y, y_stride, moe.experts, moe.top_k, args.shared_out, moe.out,
         is_aligned(moe.out, kSumCols));
}

int64_t bytes_moved(const MoeDecodeArgs& args, int64_t num_distinct_experts) {
  const MoeArgs& moe = args.moe;
  const ExpertLayout& layout = moe.table.layout;
  const int64_t num_tokens = moe.x.num_rows;
  return num_distinct_experts * 3 * layout.hidden_size * layout.intermediate_size * 2 +
         num_tokens * layout.hidden_size * (2 + dtype_bytes(moe.out.dtype)) +
         num_tokens * moe.top_k * 8;
}

void sm90_mlp_decode(const MlpDecodeArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("sm90_mlp_decode");
  const MlpArgs& mlp = args.mlp;
  AUGUR_REQUIRE(
      mlp.x.num_cols == mlp.weights.gate.num_cols && mlp.out.num_cols == mlp.weights.down.num_rows,
      "x has " + std::to_string(mlp.x.num_cols) + " columns");
  if (mlp.x.num_rows == 0) return;
  const Workspace workspace(args.workspace, mlp.x.num_rows, 1, mlp.weights.gate.num_cols,
                            mlp.weights.gate.num_rows);
  StreamArgs common = {};
  common.state = place_state(args.state);
  common.rows = Rows::kAllTokens;
  common.num_tokens = mlp.x.num_rows;
  common.top_k = 1;
  run_mlps(common, mlp.weights, mlp.x, mlp.out, args.config, workspace, stream);
}

int64_t bytes_moved(const MlpDecodeArgs& args) {
  const PackedMatrix& gate = args.mlp.weights.gate;
  return 3 * gate.num_rows * gate.num_cols * 2 +
         args.mlp.x.num_rows * gate.num_cols * (2 + dtype_bytes(args.mlp.out.dtype));
}

}  // namespace augur::cuda
