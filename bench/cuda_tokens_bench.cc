// The kernels around the large ones, at the sizes of two models. `cold` clears L2 before each call;
// otherwise calls follow one another as in a decode step, whose few rows the kernel before has left
// in L2.
#include <random>
#include <vector>

#include "bench/gpu_timer.h"
#include "kernels/bf16.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/moe_plan.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rope_cache.h"
#include "kernels/cuda/router.h"

namespace augur::bench {
namespace {

struct Model {
  const char* name;
  int64_t hidden;
  int num_heads, num_kv_heads, rotary_dim;
  int num_experts, top_k;
  RouterScoring scoring;
};
constexpr Model kModels[] = {
    {"qwen3-30b", 2048, 32, 4, 128, 128, 8, RouterScoring::kSoftmax},
    {"glm-4.5-air", 4096, 96, 8, 64, 128, 8, RouterScoring::kSigmoid},
};
constexpr int kHeadDim = 128;
constexpr int kBlockSize = 64;

// Device memory for one benchmark, filled with what the kernels accept.
class Arena {
 public:
  template <typename T>
  T* zeros(int64_t count) {
    buffers_.push_back(cuda::allocate_device(count * static_cast<int64_t>(sizeof(T))));
    AUGUR_CUDA(cudaMemset(buffers_.back().data(), 0, buffers_.back().num_bytes()));
    return buffers_.back().as<T>();
  }
  template <typename T>
  T* copy(const std::vector<T>& values) {
    T* const data = zeros<T>(static_cast<int64_t>(values.size()));
    AUGUR_CUDA(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return data;
  }
  float* random_floats(int64_t count) { return copy(drawn(count)); }
  float* random_bf16_values(int64_t count) {
    std::vector<float> values = drawn(count);
    for (float& value : values) value = to_float(to_bf16(value));
    return copy(values);
  }
  Tensor tensor(DType dtype, int64_t num_rows, int64_t num_cols) {
    return dense(zeros<std::byte>(num_rows * num_cols * dtype_bytes(dtype)), dtype, num_rows,
                 num_cols);
  }

 private:
  static std::vector<float> drawn(int64_t count) {
    std::mt19937 generator(static_cast<uint32_t>(count));
    std::uniform_real_distribution<float> draw(-1, 1);
    std::vector<float> values(count);
    for (float& value : values) value = draw(generator);
    return values;
  }

  std::vector<Buffer> buffers_;
};

struct Case {
  const Model& model;
  int64_t num_tokens;
  bool is_cold;
};

bool begin(benchmark::State& state) {
  if (!has_gpu()) {
    state.SkipWithError("no CUDA device");
    return false;
  }
  state.SetLabel(kModels[state.range(0)].name);
  return true;
}
Case case_of(const benchmark::State& state) {
  return {kModels[state.range(0)], state.range(1), state.range(2) != 0};
}

void BM_Embed(benchmark::State& state) {
  if (!begin(state)) return;
  const auto [model, num_tokens, is_cold] = case_of(state);
  constexpr int64_t kVocab = 32'768;
  Arena arena;
  std::vector<int32_t> ids(num_tokens);
  for (int64_t i = 0; i < num_tokens; ++i) ids[i] = static_cast<int32_t>(i * 7919 % kVocab);
  const EmbedArgs args = {
      .table = {arena.zeros<std::byte>(kVocab * model.hidden * 2), kVocab, model.hidden},
      .token_ids = arena.copy(ids),
      .out = arena.tensor(DType::kF32, num_tokens, model.hidden)};
  run_gpu_benchmark(
      state, static_cast<double>(cuda::bytes_moved(args)), 0,
      [&](cudaStream_t stream, int) { cuda::embed(args, stream); }, is_cold);
}

void BM_AddRmsNorm(benchmark::State& state) {
  if (!begin(state)) return;
  const auto [model, num_tokens, is_cold] = case_of(state);
  Arena arena;
  const AddRmsNormArgs args = {.hidden = arena.tensor(DType::kF32, num_tokens, model.hidden),
                               .delta = arena.tensor(DType::kBF16, num_tokens, model.hidden),
                               .weight = arena.random_floats(model.hidden),
                               .eps = 1e-6f,
                               .out = arena.tensor(DType::kBF16, num_tokens, model.hidden),
                               .out_f32 = arena.tensor(DType::kF32, num_tokens, model.hidden)};
  run_gpu_benchmark(
      state, static_cast<double>(cuda::bytes_moved(args)), 0,
      [&](cudaStream_t stream, int) { cuda::add_rms_norm(args, stream); }, is_cold);
}

void BM_RopeAndCache(benchmark::State& state) {
  if (!begin(state)) return;
  const auto [model, num_tokens, is_cold] = case_of(state);
  Arena arena;
  constexpr int64_t kPositions = 8192;
  std::vector<int32_t> positions(num_tokens);
  std::vector<int64_t> slots(num_tokens);
  for (int64_t i = 0; i < num_tokens; ++i) {
    positions[i] = static_cast<int32_t>(i % kPositions);
    slots[i] = i;
  }
  const int64_t num_blocks = num_tokens / kBlockSize + 1;
  const int64_t num_heads = model.num_heads + 2 * model.num_kv_heads;
  RopeAndCacheArgs args;
  args.qkv = arena.tensor(DType::kBF16, num_tokens, num_heads * kHeadDim);
  args.num_heads = model.num_heads;
  args.q_norm = arena.random_floats(kHeadDim);
  args.k_norm = args.q_norm;
  args.norm_eps = 1e-6f;
  args.rope = {arena.random_floats(kPositions * model.rotary_dim / 2),
               arena.random_floats(kPositions * model.rotary_dim / 2), model.rotary_dim, false};
  args.positions = arena.copy(positions);
  args.kv_slots = arena.copy(slots);
  args.cache = {arena.zeros<std::byte>(
                    num_blocks * cuda::kv_block_bytes(kBlockSize, model.num_kv_heads, kHeadDim)),
                num_blocks, kBlockSize, model.num_kv_heads, kHeadDim};
  args.q_out = arena.tensor(DType::kBF16, num_tokens, int64_t{model.num_heads} * kHeadDim);
  run_gpu_benchmark(
      state, static_cast<double>(cuda::bytes_moved(args)), 0,
      [&](cudaStream_t stream, int) { cuda::rope_and_cache(args, stream); }, is_cold);
}

void BM_Router(benchmark::State& state) {
  if (!begin(state)) return;
  const auto [model, num_tokens, is_cold] = case_of(state);
  Arena arena;
  RouterArgs args;
  args.x =
      dense(arena.random_floats(num_tokens * model.hidden), DType::kF32, num_tokens, model.hidden);
  args.weight = arena.random_bf16_values(model.num_experts * model.hidden);  // as in checkpoints
  if (model.scoring == RouterScoring::kSigmoid) {
    args.correction = arena.random_floats(model.num_experts);
  }
  args.scoring = model.scoring;
  args.num_experts = model.num_experts;
  args.top_k = model.top_k;
  const int64_t num_assignments = num_tokens * model.top_k;
  args.experts = arena.zeros<int32_t>(num_assignments);
  args.weights = arena.zeros<float>(num_assignments);
  void* const workspace = arena.zeros<std::byte>(
      cuda::router_workspace_bytes(num_tokens, model.hidden, model.num_experts));
  // Two products of bf16 parts for one of floats: the weights have no low parts.
  const double flops = 4.0 * static_cast<double>(num_tokens * model.hidden * model.num_experts);
  run_gpu_benchmark(
      state, static_cast<double>(cuda::bytes_moved(args)), flops,
      [&](cudaStream_t stream, int) { cuda::router(args, workspace, stream); }, is_cold);
}

void BM_PlanMoe(benchmark::State& state) {
  if (!begin(state)) return;
  const auto [model, num_tokens, is_cold] = case_of(state);
  Arena arena;
  const int64_t num_assignments = num_tokens * model.top_k;
  std::mt19937 generator(3);
  std::uniform_int_distribution<int32_t> draw(0, model.num_experts - 1);
  std::vector<int32_t> experts(num_assignments);
  for (int32_t& expert : experts) expert = draw(generator);
  constexpr int kTileRows = 64;
  const cuda::MoePlanArgs args = {
      .experts = arena.copy(experts),
      .num_assignments = num_assignments,
      .slot_of_expert = arena.zeros<int32_t>(model.num_experts),
      .num_experts = model.num_experts,
      .plan = cuda::place_moe_plan(arena.zeros<std::byte>(cuda::moe_plan_bytes(
                                       num_assignments, model.num_experts, kTileRows)),
                                   num_assignments, model.num_experts, kTileRows)};
  run_gpu_benchmark(
      state, static_cast<double>(8 * num_assignments), 0,
      [&](cudaStream_t stream, int) { cuda::plan_moe(args, stream); }, is_cold);
}

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"model", "tokens", "cold"})->UseManualTime()->Iterations(1);
  for (const int64_t model : {0, 1}) {
    for (const int64_t num_tokens : {1, 8, 32, 64}) bench->Args({model, num_tokens, 0});
    for (const int64_t num_tokens : {1, 1024, 8192}) bench->Args({model, num_tokens, 1});
  }
}
BENCHMARK(BM_Embed)->Apply(sizes);
BENCHMARK(BM_AddRmsNorm)->Apply(sizes);
BENCHMARK(BM_RopeAndCache)->Apply(sizes);
BENCHMARK(BM_Router)->Apply(sizes);
BENCHMARK(BM_PlanMoe)->Apply(sizes);

}  // namespace
}  // namespace augur::bench
