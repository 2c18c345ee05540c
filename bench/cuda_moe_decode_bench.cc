// The routed experts of one layer, and gated MLPs, for few tokens: from the router's choices and
// the plan made of them (which has a benchmark of its own) to the combined result.
//
// Repetitions choose other experts each time, so that L2 does not hold their weights.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu_timer.h"
#include "kernels/cuda/mlp_layout.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/sm90_moe_decode.h"

namespace augur::bench {
namespace {

struct Shape {
  const char* name;
  int64_t hidden;
  int64_t intermediate;
  int num_experts;
  int top_k;
};
constexpr Shape kQwen30 = {"qwen3_30b", 2048, 768, 128, 8};
constexpr Shape kMixtral = {"mixtral_8x7b", 4096, 14336, 8, 2};
constexpr Shape kQwen235 = {"qwen3_235b", 4096, 1536, 128, 8};

enum class Routing {
  kBalanced,  // every expert as often as any other
  kPowerLaw,  // expert of rank r with probability r^-1.01
};

template <typename T>
class DeviceCopy {
 public:
  explicit DeviceCopy(const std::vector<T>& values)
      : buffer_(cuda::allocate_device(static_cast<int64_t>(values.size() * sizeof(T)))) {
    AUGUR_CUDA(cudaMemcpy(buffer_.data(), values.data(), values.size() * sizeof(T),
                          cudaMemcpyHostToDevice));
  }
  T* data() const { return buffer_.template as<T>(); }

 private:
  Buffer buffer_;
};

ExpertLayout layout_of(const Shape& shape) {
  const int64_t gate_bytes = cuda::tiled_matrix_bytes(shape.intermediate, shape.hidden);
  return {shape.hidden, shape.intermediate, gate_bytes, 2 * gate_bytes,
          2 * gate_bytes + cuda::tiled_matrix_bytes(shape.hidden, shape.intermediate)};
}

// Weights of all experts of a shape, made once.
const Buffer& pool_of(const Shape& shape) {
  static std::map<std::string, Buffer> pools;
  auto it = pools.find(shape.name);
  if (it == pools.end()) {
    pools.clear();  // one at a time: they are large
    const int64_t num_bytes = layout_of(shape).block_bytes * shape.num_experts;
    it = pools.emplace(shape.name, cuda::allocate_device(num_bytes)).first;
    cuda::fill_random(it->second.data(), num_bytes, 0.02f, 1, nullptr);
    AUGUR_CUDA(cudaDeviceSynchronize());
  }
  return it->second;
}

// What one repetition chooses, and the plan of it.
struct Choices {
  std::vector<int32_t> experts;
  std::vector<int32_t> sorted;
  std::vector<cuda::MoeTile> tiles;
  int num_distinct = 0;
};

Choices choose(const Shape& shape, int64_t num_tokens, Routing routing, int tile_rows, int seed) {
  std::mt19937 random(seed);
  Choices choices;
  std::vector<int32_t> ranked(shape.num_experts);
  std::iota(ranked.begin(), ranked.end(), 0);
  std::ranges::shuffle(ranked, random);
  for (int64_t token = 0; token < num_tokens; ++token) {
    std::vector<int32_t> chosen;
    for (int choice = 0; static_cast<int>(chosen.size()) < shape.top_k; ++choice) {
      int32_t expert = 0;
      if (routing == Routing::kBalanced) {
        expert = ranked[(token * shape.top_k + choice) % shape.num_experts];
      } else {
        std::vector<double> share(shape.num_experts);
        for (int i = 0; i < shape.num_experts; ++i) share[i] = std::pow(i + 1, -1.01);
        expert = ranked[std::discrete_distribution<int>(share.begin(), share.end())(random)];
      }
      if (std::ranges::find(chosen, expert) == chosen.end()) chosen.push_back(expert);
    }
    choices.experts.insert(choices.experts.end(), chosen.begin(), chosen.end());
  }
  for (int32_t e = 0; e < shape.num_experts; ++e) {
    const auto first = static_cast<int32_t>(choices.sorted.size());
    for (size_t a = 0; a < choices.experts.size(); ++a) {
      if (choices.experts[a] == e) choices.sorted.push_back(static_cast<int32_t>(a));
    }
    const auto end = static_cast<int32_t>(choices.sorted.size());
    if (first < end) ++choices.num_distinct;
    for (int32_t start = first; start < end; start += tile_rows) {
      choices.tiles.push_back({e, start, std::min(end - start, tile_rows), e});
    }
  }
  return choices;
}

void moe_decode(benchmark::State& state,
                const Shape& shape,
                Routing routing,
                int64_t num_tokens,
                cuda::MoeDecodeConfig config) {
  const ExpertLayout layout = layout_of(shape);
  std::vector<int32_t> slots(shape.num_experts);
  std::iota(slots.begin(), slots.end(), 0);
  const DeviceCopy<int32_t> device_slots(slots);
  const DeviceCopy<float> weights(std::vector<float>(num_tokens * shape.top_k, 0.125f));
  const Buffer x = cuda::allocate_device(num_tokens * shape.hidden * 2);
  cuda::fill_random(x.data(), x.num_bytes(), 1.0f, 2, nullptr);
  const Buffer out = cuda::allocate_device(num_tokens * shape.hidden * 4);
  const Buffer workspace = cuda::allocate_device(
      cuda::moe_decode_workspace_bytes(num_tokens, shape.top_k, shape.hidden, shape.intermediate));
  const DeviceCopy<std::byte> moe_state(std::vector<std::byte>(
      cuda::moe_decode_state_bytes(num_tokens, shape.top_k, shape.intermediate)));

  cuda::MoeDecodeArgs args;
  args.moe.x = dense(x.data(), DType::kBF16, num_tokens, shape.hidden);
  args.moe.weights = weights.data();
  args.moe.top_k = shape.top_k;
  args.moe.table = {pool_of(shape).data(), layout, device_slots.data(), shape.num_experts};
  args.moe.out = dense(out.data(), DType::kF32, num_tokens, shape.hidden);
  args.config = config;
  args.workspace = workspace.data();
  args.state = moe_state.data();

  std::vector<DeviceCopy<int32_t>> experts, sorted, num_tiles;
  std::vector<DeviceCopy<cuda::MoeTile>> tiles;
  double distinct = 0;
  for (int i = 0; i < GpuTimer::kRepetitions; ++i) {
    const Choices choices = choose(shape, num_tokens, routing, config.tile_rows, i);
    experts.emplace_back(choices.experts);
    sorted.emplace_back(choices.sorted);
    tiles.emplace_back(choices.tiles);
    num_tiles.emplace_back(std::vector<int32_t>{static_cast<int32_t>(choices.tiles.size())});
    distinct += static_cast<double>(choices.num_distinct) / GpuTimer::kRepetitions;
  }
  const double expert_bytes =
      static_cast<double>(cuda::bytes_moved(args, 1) - cuda::bytes_moved(args, 0));
  const double num_bytes =
      distinct * expert_bytes + static_cast<double>(cuda::bytes_moved(args, 0));
  const double num_flops =
      6.0 * static_cast<double>(num_tokens * shape.top_k * shape.hidden * shape.intermediate);
  run_gpu_benchmark(
      state, num_bytes, num_flops,
      [&](cudaStream_t stream, int repetition) {
        args.moe.experts = experts[repetition].data();
        args.plan = {sorted[repetition].data(), tiles[repetition].data(),
                     num_tiles[repetition].data(), config.tile_rows};
        cuda::sm90_moe_decode(args, stream);
      },
      /*clears_l2=*/false);
  state.counters["experts"] = distinct;
  state.SetLabel(config.to_string());
}

void mlp_decode(benchmark::State& state, const Shape& shape, int64_t num_tokens) {
  const ExpertLayout layout = layout_of(shape);
  const Buffer x = cuda::allocate_device(num_tokens * shape.hidden * 2);
  cuda::fill_random(x.data(), x.num_bytes(), 1.0f, 2, nullptr);
  const Buffer out = cuda::allocate_device(num_tokens * shape.hidden * 4);
  const Buffer workspace = cuda::allocate_device(
      cuda::moe_decode_workspace_bytes(num_tokens, 1, shape.hidden, shape.intermediate));
  const DeviceCopy<std::byte> moe_state(
      std::vector<std::byte>(cuda::moe_decode_state_bytes(num_tokens, 1, shape.intermediate)));
  cuda::MlpDecodeArgs args;
  args.mlp.x = dense(x.data(), DType::kBF16, num_tokens, shape.hidden);
  args.mlp.weights = layout.view(pool_of(shape).data());
  args.mlp.out = dense(out.data(), DType::kF32, num_tokens, shape.hidden);
  args.config = cuda::mlp_decode_config(num_tokens, shape.hidden, shape.intermediate);
  args.workspace = workspace.data();
  args.state = moe_state.data();
  const double num_flops =
      6.0 * static_cast<double>(num_tokens * shape.hidden * shape.intermediate);
  run_gpu_benchmark(
      state, static_cast<double>(cuda::bytes_moved(args)), num_flops,
      [&](cudaStream_t stream, int repetition) {
        args.mlp.weights = layout.view(pool_of(shape).data() +
                                       repetition % shape.num_experts * layout.block_bytes);
        cuda::sm90_mlp_decode(args, stream);
      },
      /*clears_l2=*/false);
  state.SetLabel(args.config.to_string());
}

void register_all() {
  for (const Shape* shape : {&kQwen30, &kMixtral, &kQwen235}) {
    for (const Routing routing : {Routing::kBalanced, Routing::kPowerLaw}) {
      for (const int64_t num_tokens : {1, 2, 4, 8, 16, 32, 64, 128}) {
        const std::string name = std::string("moe_decode/") + shape->name +
                                 (routing == Routing::kBalanced ? "/balanced/" : "/power_law/") +
                                 std::to_string(num_tokens);
        benchmark::RegisterBenchmark(
            name.c_str(),
            [=](benchmark::State& state) {
              moe_decode(state, *shape, routing, num_tokens,
                         cuda::moe_decode_config(num_tokens, shape->top_k, shape->num_experts,
                                                 shape->hidden, shape->intermediate));
            })
            ->UseManualTime()
            ->Iterations(1);
      }
    }
  }
  // Matrices of one expert as if they were a dense MLP or a shared expert; L2 holds small ones.
  for (const Shape* shape : {&kMixtral, &kQwen235}) {
    for (const int64_t num_tokens : {1, 8, 32, 128}) {
      const std::string name =
          std::string("mlp_decode/") + shape->name + "/" + std::to_string(num_tokens);
      benchmark::RegisterBenchmark(
          name.c_str(), [=](benchmark::State& state) { mlp_decode(state, *shape, num_tokens); })
          ->UseManualTime()
          ->Iterations(1);
    }
  }
}

const bool is_registered = (register_all(), true);

}  // namespace
}  // namespace augur::bench
