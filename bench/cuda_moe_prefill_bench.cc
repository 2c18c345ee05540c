// The routed experts of three models for many tokens: the chain of launches, and each step alone
// (gate_up with the laying out of x, where there is any).
//
// Weights are more than L2 holds several times over, so that every repetition finds it without
// them; the order of work is the engine's. The bound counts every expert that has rows once, x and
// out; what passes between the launches (h, y) is theirs to pay for.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu_timer.h"
#include "kernels/cuda/mlp_layout.h"
#include "kernels/cuda/moe_portable.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/sm90_moe_prefill.h"
#include "tests/kernels/host_moe_plan.h"

namespace augur::bench {
namespace {

struct Model {
  const char* name;
  int64_t hidden;
  int64_t intermediate;
  int num_experts;
  int top_k;
};
constexpr Model kModels[] = {{"qwen3_30b", 2048, 768, 128, 8},
                             {"mixtral", 4096, 14336, 8, 2},
                             {"qwen3_235b", 4096, 1536, 128, 8}};

enum class Routing { kBalanced, kUniform, kPowerLaw };
constexpr std::pair<Routing, const char*> kRoutings[] = {{Routing::kBalanced, "balanced"},
                                                         {Routing::kUniform, "uniform"},
                                                         {Routing::kPowerLaw, "powerlaw"}};

// kPowerLaw draws the experts' shares from the density x^-1.01 between 1 and 0.8 * tokens.
std::vector<int32_t> route(const Model& model, int64_t num_tokens, Routing routing) {
  std::vector<int32_t> experts(num_tokens * model.top_k);
  if (routing == Routing::kBalanced) {
    for (size_t i = 0; i < experts.size(); ++i) {
      experts[i] = static_cast<int32_t>(i % model.num_experts);
    }
    return experts;
  }
  std::mt19937_64 engine(7);
  std::uniform_real_distribution<double> draw(1e-12, 1.0);
  std::vector<double> shares(model.num_experts, 1.0);
  if (routing == Routing::kPowerLaw) {
    constexpr double kPower = -0.01;  // 1 - alpha
    const double high = std::pow(0.8 * static_cast<double>(num_tokens), kPower);
    for (double& share : shares) {
      share = std::pow(1.0 + draw(engine) * (high - 1.0), 1.0 / kPower);
    }
  }
  // Without replacement: the top_k largest of u^(1 / share).
  std::vector<std::pair<double, int32_t>> keys(model.num_experts);
  for (int64_t t = 0; t < num_tokens; ++t) {
    for (int32_t e = 0; e < model.num_experts; ++e) {
      keys[e] = {std::log(draw(engine)) / shares[e], e};
    }
    std::partial_sort(keys.begin(), keys.begin() + model.top_k, keys.end(), std::greater<>());
    for (int c = 0; c < model.top_k; ++c) experts[t * model.top_k + c] = keys[c].second;
  }
  return experts;
}

// The weights of the model last asked for.
const Buffer& weights_of(const Model& model, int64_t num_bytes) {
  static const Model* held = nullptr;
  static Buffer weights;
  if (held != &model) {
    weights = Buffer();
    weights = cuda::allocate_device(num_bytes);
    cuda::fill_random(weights.data(), num_bytes, 0.03f, 1, nullptr);
    held = &model;
  }
  return weights;
}

using Launcher = void (*)(const cuda::MoePrefillArgs&, cudaStream_t);
struct Part {
  const char* name;
  Launcher launcher;
  int first_matrix;  // of gate, up, down
  int num_matrices;
};
constexpr Part kParts[] = {{"chain", cuda::sm90_moe_prefill, 0, 3},
                           {"gate_up", cuda::sm90_moe_gate_up, 0, 2},
                           {"down", cuda::sm90_moe_down, 2, 1},
                           {"combine", cuda::sm90_moe_combine, 3, 0},
                           {"portable", cuda::moe_portable, 0, 3}};

void bm_moe_prefill(benchmark::State& state,
                    const Model& model,
                    int64_t num_tokens,
                    Routing routing,
                    const Part& part) {
  std::vector<Buffer> buffers;
  const auto upload = [&]<typename T>(const std::vector<T>& values) {
    const auto num_bytes = static_cast<int64_t>(values.size() * sizeof(T));
    buffers.push_back(cuda::allocate_device(num_bytes));
    AUGUR_CUDA(cudaMemcpy(buffers.back().data(), values.data(), num_bytes, cudaMemcpyHostToDevice));
    return buffers.back().template as<T>();
  };
  cuda::MoePrefillArgs args;
  ExpertLayout& layout = args.moe.table.layout;
  layout.hidden_size = model.hidden;
  layout.intermediate_size = model.intermediate;
  layout.up_offset = cuda::tiled_matrix_bytes(model.intermediate, model.hidden);
  layout.down_offset = 2 * layout.up_offset;
  layout.block_bytes = 3 * layout.up_offset;
  const std::vector<int32_t> experts = route(model, num_tokens, routing);
  std::vector<int32_t> slots(model.num_experts);
  for (int e = 0; e < model.num_experts; ++e) slots[e] = e;
  const bool is_portable = part.launcher == cuda::moe_portable;
  const int tile_rows =
      is_portable ? cuda::moe_portable_tile_rows(num_tokens, model.top_k, model.num_experts)
                  : cuda::moe_prefill_config(num_tokens, model.top_k, model.num_experts,
                                             model.hidden, model.intermediate)
                        .tile_rows;
  const cuda::HostMoePlan plan = cuda::host_moe_plan(experts, slots, tile_rows);
  args.plan = {upload(plan.sorted), upload(plan.tiles),
               upload(std::vector{static_cast<int32_t>(plan.tiles.size())}), tile_rows};
  args.moe.experts = upload(experts);
  args.moe.weights = upload(std::vector<float>(experts.size(), 1.0f / model.top_k));
  args.moe.top_k = model.top_k;
  args.moe.table.slots = weights_of(model, layout.block_bytes * model.num_experts).data();
  args.moe.table.slot_of_expert = upload(slots);
  args.moe.table.num_experts = model.num_experts;
  const int64_t row_values = num_tokens * model.hidden;
  buffers.push_back(cuda::allocate_device(row_values * 2));
  cuda::fill_random(buffers.back().data(), row_values * 2, 1.7f, 2, nullptr);
  args.moe.x = dense(buffers.back().data(), DType::kBF16, num_tokens, model.hidden);
  buffers.push_back(cuda::allocate_device(row_values * 2));
  args.moe.out = dense(buffers.back().data(), DType::kBF16, num_tokens, model.hidden);
  buffers.push_back(cuda::allocate_device(
      std::max(cuda::sm90_moe_prefill_workspace_bytes(num_tokens, model.top_k, model.num_experts,
                                                      model.hidden, model.intermediate),
               cuda::moe_portable_workspace_bytes(num_tokens, model.top_k, model.hidden,
                                                  model.intermediate))));
  args.workspace = buffers.back().data();
  AUGUR_CUDA(cudaDeviceSynchronize());
  if (!is_portable) cuda::sm90_moe_prefill(args, nullptr);  // h and y for the parts
  AUGUR_CUDA(cudaDeviceSynchronize());

  std::vector<bool> has_rows(model.num_experts);
  for (const int32_t expert : experts) has_rows[expert] = true;
  const auto num_active = static_cast<double>(std::ranges::count(has_rows, true));
  const double num_rows = static_cast<double>(experts.size());
  const auto x_bytes = static_cast<double>(row_values * 2);
  double num_bytes = num_active * static_cast<double>(layout.up_offset) * part.num_matrices;
  if (part.num_matrices == 0) num_bytes = num_rows * static_cast<double>(model.hidden) * 2;
  if (part.first_matrix == 0) num_bytes += x_bytes;
  if (part.first_matrix + part.num_matrices == 3 && part.first_matrix != 2) num_bytes += x_bytes;
  const double num_flops = 2.0 * num_rows * static_cast<double>(model.hidden) *
                           static_cast<double>(model.intermediate) * part.num_matrices;
  run_gpu_benchmark(
      state, num_bytes, num_flops, [&](cudaStream_t stream, int) { part.launcher(args, stream); },
      /*clears_l2=*/false);
}

void register_all() {
  for (const Model& model : kModels) {
    for (const int64_t num_tokens : {1024, 4096, 16384}) {
      for (const auto& [routing, routing_name] : kRoutings) {
        for (const Part& part : kParts) {
          const std::string name = std::string(model.name) + "/" + std::to_string(num_tokens) +
                                   "/" + routing_name + "/" + part.name;
          benchmark::RegisterBenchmark(
              name.c_str(),
              [&model, num_tokens, routing = routing, &part](benchmark::State& state) {
                bm_moe_prefill(state, model, num_tokens, routing, part);
              })
              ->UseManualTime()
              ->Iterations(1)
              ->Unit(benchmark::kMicrosecond);
        }
      }
    }
  }
}

const bool kIsRegistered = (register_all(), true);

}  // namespace
}  // namespace augur::bench
