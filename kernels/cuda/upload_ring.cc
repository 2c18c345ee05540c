#include "kernels/cuda/upload_ring.h"

#include <algorithm>
#include <cstring>

namespace augur::cuda {
namespace {

constexpr int64_t kAlignment = 64;

}  // namespace

UploadRing::UploadRing()
    : memory_(allocate_pinned(2 * kHalfBytes)), used_{make_order_event(), make_order_event()} {}

void UploadRing::upload(void* to, const void* from_host, int64_t num_bytes, cudaStream_t stream) {
  for (int64_t done = 0; done < num_bytes;) {
    if (offset_ >= kHalfBytes) {
      AUGUR_CUDA(cudaEventRecord(used_[half_].get(), stream));
      half_ ^= 1;
      offset_ = 0;
      AUGUR_CUDA(cudaEventSynchronize(used_[half_].get()));
    }
    const int64_t count = std::min(num_bytes - done, kHalfBytes - offset_);
    std::byte* const staged = memory_.data() + half_ * kHalfBytes + offset_;
    std::memcpy(staged, static_cast<const std::byte*>(from_host) + done,
                static_cast<size_t>(count));
    AUGUR_CUDA(cudaMemcpyAsync(static_cast<std::byte*>(to) + done, staged,
                               static_cast<size_t>(count), cudaMemcpyHostToDevice, stream));
    offset_ = (offset_ + count + kAlignment - 1) / kAlignment * kAlignment;
    done += count;
  }
}

}  // namespace augur::cuda
