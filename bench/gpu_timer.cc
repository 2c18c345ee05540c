#include "bench/gpu_timer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "bench/l2_flush.h"

namespace augur::bench {
namespace {

constexpr int kRuns = 11;
constexpr int64_t kFlushBytes = int64_t{256} << 20;

}  // namespace

bool has_gpu() {
  int num_devices = 0;
  return cudaGetDeviceCount(&num_devices) == cudaSuccess && num_devices > 0;
}

GpuPeak gpu_peak() {
  cudaDeviceProp properties;
  AUGUR_CUDA(cudaGetDeviceProperties(&properties, 0));
  const std::string name = properties.name;
  // Copies and 8192^3 bf16 products measured on these two.
  if (name.find("H200") != std::string::npos) return {4.3e12, 790e12};
  if (name.find("H100") != std::string::npos) return {3.0e12, 798e12};
  int memory_khz = 0;
  int bus_bits = 0;
  int sm_khz = 0;
  AUGUR_CUDA(cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, 0));
  AUGUR_CUDA(cudaDeviceGetAttribute(&bus_bits, cudaDevAttrGlobalMemoryBusWidth, 0));
  AUGUR_CUDA(cudaDeviceGetAttribute(&sm_khz, cudaDevAttrClockRate, 0));
  // Two transfers a clock; 1,024 dense bf16 multiply-adds a clock and multiprocessor since 8.0.
  return {2e3 * memory_khz * bus_bits / 8, 2e3 * sm_khz * 1024 * properties.multiProcessorCount};
}

GpuTimer::GpuTimer()
    : stream_(cuda::make_stream()),
      start_(cuda::make_event()),
      stop_(cuda::make_event()),
      flush_(cuda::allocate_device(kFlushBytes)) {
  AUGUR_CUDA(cudaMemsetAsync(flush_.data(), 0, kFlushBytes, stream()));
}

double GpuTimer::seconds(const std::function<void(int repetition)>& work, bool clears_l2) {
  if (!clears_l2) return graph_seconds(work);
  const double both = graph_seconds([&](int repetition) {
    read_all(flush_.data(), kFlushBytes, stream());
    work(repetition);
  });
  return both - graph_seconds([&](int) { read_all(flush_.data(), kFlushBytes, stream()); });
}

double GpuTimer::graph_seconds(const std::function<void(int repetition)>& work) {
  AUGUR_CUDA(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kRepetitions; ++i) work(i);
  cudaGraph_t raw_graph = nullptr;
  AUGUR_CUDA(cudaStreamEndCapture(stream(), &raw_graph));
  const cuda::Graph graph(raw_graph);
  cudaGraphExec_t raw_exec = nullptr;
  AUGUR_CUDA(cudaGraphInstantiate(&raw_exec, graph.get(), 0));
  const cuda::GraphExec exec(raw_exec);
  std::vector<float> run_ms;
  for (int run = 0; run < kRuns + 2; ++run) {
    AUGUR_CUDA(cudaEventRecord(start_.get(), stream()));
    AUGUR_CUDA(cudaGraphLaunch(exec.get(), stream()));
    AUGUR_CUDA(cudaEventRecord(stop_.get(), stream()));
    AUGUR_CUDA(cudaEventSynchronize(stop_.get()));
    float ms = 0;
    AUGUR_CUDA(cudaEventElapsedTime(&ms, start_.get(), stop_.get()));
    if (run >= 2) run_ms.push_back(ms);  // the first two warm up
  }
  std::nth_element(run_ms.begin(), run_ms.begin() + kRuns / 2, run_ms.end());
  return 1e-3 * run_ms[kRuns / 2] / kRepetitions;
}

void run_gpu_benchmark(benchmark::State& state,
                       double num_bytes,
                       double num_flops,
                       const std::function<void(cudaStream_t, int repetition)>& work,
                       bool clears_l2) {
  GpuTimer timer;
  double seconds = 0;
  for (auto _ : state) {
    seconds = timer.seconds([&](int repetition) { work(timer.stream(), repetition); }, clears_l2);
    state.SetIterationTime(seconds);
  }
  const GpuPeak peak = gpu_peak();
  const double bound =
      std::max(num_bytes / peak.bytes_per_second, num_flops / peak.bf16_flops_per_second);
  state.counters["us"] = seconds * 1e6;
  state.counters["bound_us"] = bound * 1e6;
  state.counters["TB/s"] = num_bytes / seconds * 1e-12;
  state.counters["TFLOP/s"] = num_flops / seconds * 1e-12;
  state.counters["%bound"] = 100 * bound / seconds;
}

}  // namespace augur::bench
