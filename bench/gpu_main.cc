// The main of the GPU benchmarks: names the device and what is taken as its peak, or says that
// there is none and runs nothing.
#include <cstdio>

#include "bench/gpu_timer.h"

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (!augur::bench::has_gpu()) {
    std::printf("no CUDA device: nothing to time\n");
    return 0;
  }
  cudaDeviceProp properties;
  AUGUR_CUDA(cudaGetDeviceProperties(&properties, 0));
  const augur::bench::GpuPeak peak = augur::bench::gpu_peak();
  std::printf("%s; shares are of %.2f TB/s and %.0f TFLOP/s\n", properties.name,
              peak.bytes_per_second * 1e-12, peak.bf16_flops_per_second * 1e-12);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
