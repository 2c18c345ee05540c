// Page-locked memory through which small host data reach the device without waiting.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/handles.h"

namespace augur::cuda {

/// Copies host data to the device in stream order; the source may be used again at once. Only when
/// two halves of the ring are full of copies that have not run yet does it wait, for the older.
/// Threading: one thread.
class UploadRing {
 public:
  UploadRing();

  void upload(void* to, const void* from_host, int64_t num_bytes, cudaStream_t stream);

 private:
  static constexpr int64_t kHalfBytes = int64_t{4} << 20;

  Buffer memory_;
  Event used_[2];  // recorded behind the last copy out of each half
  int half_ = 0;
  int64_t offset_ = 0;  // in the current half
};

}  // namespace augur::cuda
