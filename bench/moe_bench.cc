// One MoE layer of the shape of Qwen3-30B-A3B, and of the demo model, with bf16 and with int8
// weights: bytes of expert weights read per second against the measured bandwidth of memory, and
// the arithmetic rate.
//
// Every token chooses its own experts at random, so the number of experts read grows as in use.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "bench/cpu_peak.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/moe.h"

namespace augur::cpu {
namespace {

struct MoeShape {
  const char* name;
  int64_t hidden_size;
  int64_t intermediate_size;
  int num_experts;
  int top_k;
};
constexpr MoeShape kQwen = {"qwen3_30b", 2048, 768, 128, 8};
constexpr MoeShape kDemo = {"demo", 256, 64, 32, 4};

struct Layer {
  Layer(const MoeShape& shape, ExpertFormat format) {
    const auto ops = make_cpu_ops(/*num_threads=*/1);
    const ExpertLayout bf16 = expert_layout(*ops, shape.hidden_size, shape.intermediate_size);
    table.layout = expert_layout(*ops, shape.hidden_size, shape.intermediate_size, format);
    slots = allocate_host(table.layout.block_bytes * shape.num_experts);
    Buffer block = allocate_host(bf16.block_bytes);
    for (int expert = 0; expert < shape.num_experts; ++expert) {
      std::byte* const slot = slots.data() + expert * table.layout.block_bytes;
      std::byte* const to = format == ExpertFormat::kInt8 ? block.data() : slot;
      auto* const values = reinterpret_cast<uint16_t*>(to);
      for (int64_t i = 0; i < bf16.block_bytes / 2; ++i) {
        values[i] = static_cast<uint16_t>(0x3c00 | ((i + expert) * 40503 & 0x807f));
      }
      if (format == ExpertFormat::kInt8) ops->quantize_expert(bf16, to, table.layout, slot);
    }
    slot_of_expert.resize(shape.num_experts);
    std::iota(slot_of_expert.begin(), slot_of_expert.end(), 0);
    table.slots = slots.data();
    table.slot_of_expert = slot_of_expert.data();
    table.num_experts = shape.num_experts;
  }
  Buffer slots;
  std::vector<int32_t> slot_of_expert;
  ExpertTable table;
};

const char* name_of(ExpertFormat format) {
  return format == ExpertFormat::kInt8 ? "int8" : "bf16";
}

const Layer& layer_of(const MoeShape& shape, ExpertFormat format) {
  static std::map<std::string, Layer> layers;
  const std::string name = std::string(shape.name) + name_of(format);
  return layers.try_emplace(name, shape, format).first->second;
}

WorkerPool& pool() {
  static WorkerPool the_pool(static_cast<int>(std::thread::hardware_concurrency()));
  return the_pool;
}

double bandwidth() {
  static const double rate = read_bandwidth(pool());
  return rate;
}

// A few routings in turn, so that consecutive calls choose other experts.
constexpr int kNumRoutings = 8;

void moe_bench(
    benchmark::State& state, Isa isa, MoeShape shape, ExpertFormat format, int64_t num_tokens) {
  const Layer& layer = layer_of(shape, format);
  std::mt19937 engine(1);
  std::vector<int32_t> all(shape.num_experts);
  std::iota(all.begin(), all.end(), 0);
  std::vector<std::vector<int32_t>> routings(kNumRoutings);
  double experts_read = 0;
  for (auto& routing : routings) {
    std::vector<bool> is_used(shape.num_experts);
    for (int64_t t = 0; t < num_tokens; ++t) {
      std::shuffle(all.begin(), all.end(), engine);
      for (int k = 0; k < shape.top_k; ++k) {
        routing.push_back(all[k]);
        is_used[all[k]] = true;
      }
    }
    experts_read += std::count(is_used.begin(), is_used.end(), true);
  }
  experts_read /= kNumRoutings;
  const std::vector<float> weights(num_tokens * shape.top_k, 0.125f);
  Buffer x = allocate_host(num_tokens * shape.hidden_size * 2);
  std::memset(x.data(), 0x3c, x.num_bytes());
  Buffer out = allocate_host(num_tokens * shape.hidden_size * 4);
  Buffer scratch =
      allocate_host(moe_scratch_bytes({num_tokens, shape.hidden_size, shape.intermediate_size, 0,
                                       shape.num_experts, shape.top_k, pool().num_threads()},
                                      isa));
  MoeArgs args;
  args.x = dense(x.data(), DType::kBF16, num_tokens, shape.hidden_size);
  args.weights = weights.data();
  args.top_k = shape.top_k;
  args.table = layer.table;
  args.out = dense(out.data(), DType::kF32, num_tokens, shape.hidden_size);
  const std::span<std::byte> scratch_span = {scratch.data(),
                                             static_cast<size_t>(scratch.num_bytes())};
  args.experts = routings[0].data();
  moe(args, isa, pool(), scratch_span);  // the first touch of fresh memory is the kernel's work
  int routing_idx = 0;
  for (auto _ : state) {
    args.experts = routings[routing_idx].data();
    routing_idx = (routing_idx + 1) % kNumRoutings;
    moe(args, isa, pool(), scratch_span);
  }
  using benchmark::Counter;
  const double bytes = experts_read * static_cast<double>(layer.table.layout.block_bytes);
  const double flops = 6.0 * static_cast<double>(num_tokens * shape.top_k * shape.hidden_size *
                                                 shape.intermediate_size);
  state.counters["experts"] = experts_read;
  state.counters["bytes_per_second"] = Counter(bytes, Counter::kIsIterationInvariantRate);
  state.counters["of_read_bandwidth"] =
      Counter(bytes / bandwidth(), Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
}

}  // namespace
}  // namespace augur::cpu

int main(int argc, char** argv) {
  using namespace augur::cpu;
  using augur::ExpertFormat;
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (!has_isa(isa)) continue;
    for (const MoeShape& shape : {kQwen, kDemo}) {
      for (ExpertFormat format : {ExpertFormat::kBF16, ExpertFormat::kInt8}) {
        for (int64_t num_tokens : {1, 4, 8, 16, 64, 256, 512, 1024}) {
          const std::string name = "moe/" + std::string(isa_name(isa)) + "/" + shape.name + "/" +
                                   name_of(format) + "/tokens:" + std::to_string(num_tokens);
          benchmark::RegisterBenchmark(name.c_str(), moe_bench, isa, shape, format, num_tokens)
              ->UseRealTime()
              ->MinTime(0.2);
        }
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("threads", std::to_string(pool().num_threads()));
  benchmark::AddCustomContext("read GB/s", std::to_string(bandwidth() * 1e-9));
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
