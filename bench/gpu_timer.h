// Timing GPU work: repetitions in one CUDA graph, as an engine runs them, and against its bound.
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>

#include "kernels/cuda/handles.h"

namespace augur::bench {

/// What the memory and the tensor cores of this device deliver at best: measured figures (docs/
/// performance.md) where the device is known, its clocks and bus otherwise.
struct GpuPeak {
  double bytes_per_second = 0;
  double bf16_flops_per_second = 0;
};
GpuPeak gpu_peak();

class GpuTimer {
 public:
  GpuTimer();

  cudaStream_t stream() const { return stream_.get(); }

  /// The median seconds of one call of `work`, which queues work on stream(). kRepetitions calls
  /// are captured as one graph (call i gets i, to rotate its inputs) and the graph is run several
  /// times. With `clears_l2` each call is preceded by reading 256 MiB of other memory, whose own
  /// time is subtracted; without it the caller rotates more inputs than L2 holds.
  double seconds(const std::function<void(int repetition)>& work, bool clears_l2 = true);

  static constexpr int kRepetitions = 20;

 private:
  double graph_seconds(const std::function<void(int repetition)>& work);

  cuda::Stream stream_;
  cuda::Event start_;
  cuda::Event stop_;
  Buffer flush_;
};

/// Runs `work` under Google Benchmark with manual time and reports microseconds, TB/s, TFLOP/s and
/// the share of the larger of the two bounds. Skips with an error where there is no GPU.
void run_gpu_benchmark(benchmark::State& state,
                       double num_bytes,
                       double num_flops,
                       const std::function<void(cudaStream_t, int repetition)>& work,
                       bool clears_l2 = true);

/// Whether there is a GPU to time anything on.
bool has_gpu();

}  // namespace augur::bench
