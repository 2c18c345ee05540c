// What tests of CUDA kernels share: a stream, device copies of host data, and skipping where there
// is no GPU.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/handles.h"
#include "kernels/cuda/launch.h"

namespace augur::cuda {

class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int num_devices = 0;
    if (cudaGetDeviceCount(&num_devices) != cudaSuccess || num_devices == 0) {
      GTEST_SKIP() << "no CUDA device";
    }
    stream_ = make_stream();
  }

  cudaStream_t stream() const { return stream_.get(); }

  /// A device copy that lives as long as the test.
  template <typename T>
  T* upload(const std::vector<T>& values) {
    T* const data = device_array<T>(static_cast<int64_t>(values.size()));
    AUGUR_CUDA(cudaMemcpyAsync(data, values.data(), values.size() * sizeof(T),
                               cudaMemcpyHostToDevice, stream()));
    AUGUR_CUDA(cudaStreamSynchronize(stream()));
    return data;
  }
  /// `count` elements whose bytes are all 0xFF: NaN as floats, so that what is not written shows.
  template <typename T>
  T* device_array(int64_t count) {
    buffers_.push_back(allocate_device(count * static_cast<int64_t>(sizeof(T))));
    if (count > 0) {
      AUGUR_CUDA(
          cudaMemsetAsync(buffers_.back().data(), 0xFF, buffers_.back().num_bytes(), stream()));
    }
    return buffers_.back().template as<T>();
  }
  template <typename T>
  std::vector<T> download(const T* data, int64_t count) {
    std::vector<T> values(count);
    AUGUR_CUDA(
        cudaMemcpyAsync(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost, stream()));
    AUGUR_CUDA(cudaStreamSynchronize(stream()));
    return values;
  }

 private:
  Stream stream_;
  std::vector<Buffer> buffers_;
};

}  // namespace augur::cuda
