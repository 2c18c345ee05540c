#include "kernels/cuda/weight_packer.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/cuda/pack.h"
#include "kernels/require.h"

namespace augur::cuda {

WeightPacker::WeightPacker(int device) : device_(device) {
  lanes_.reserve(kNumLanes);
}

WeightPacker::Lane& WeightPacker::take_lane() {
  std::unique_lock lock(mutex_);
  if (free_lanes_.empty() && lanes_.size() < kNumLanes) {
    lanes_.push_back({allocate_pinned(kLaneBytes), allocate_device(kLaneBytes), make_stream()});
    return lanes_.back();
  }
  lane_is_free_.wait(lock, [&] { return !free_lanes_.empty(); });
  Lane& lane = *free_lanes_.back();
  free_lanes_.pop_back();
  return lane;
}

void WeightPacker::give_back(Lane& lane) {
  {
    const std::lock_guard lock(mutex_);
    free_lanes_.push_back(&lane);
  }
  lane_is_free_.notify_one();
}

void WeightPacker::pack_rows(MatrixUse use,
                             std::byte* to,
                             int64_t num_rows,
                             int64_t num_cols,
                             int64_t first_row,
                             int64_t count,
                             const Bf16* from_host) {
  AUGUR_REQUIRE(first_row >= 0 && count >= 0 && first_row + count <= num_rows,
                "rows " + std::to_string(first_row) + " and " + std::to_string(count) +
                    " more of " + std::to_string(num_rows));
  AUGUR_CUDA(cudaSetDevice(device_));
  const int64_t row_bytes = num_cols * static_cast<int64_t>(sizeof(Bf16));
  AUGUR_REQUIRE(row_bytes <= kLaneBytes, "a row of " + std::to_string(num_cols) + " values");
  const int64_t rows_per_copy = kLaneBytes / row_bytes;
  for (int64_t row = 0; row < count; row += rows_per_copy) {
    const int64_t num_copied = std::min(rows_per_copy, count - row);
    const auto num_bytes = static_cast<size_t>(num_copied * row_bytes);
    Lane& lane = take_lane();
    // The lane's last copy must have left the staging memory.
    AUGUR_CUDA(cudaStreamSynchronize(lane.stream.get()));
    std::memcpy(lane.pinned.data(), from_host + row * num_cols, num_bytes);
    const bool is_tiled = use == MatrixUse::kMlp;
    std::byte* const landing = is_tiled ? lane.device.data() : to + (first_row + row) * row_bytes;
    AUGUR_CUDA(cudaMemcpyAsync(landing, lane.pinned.data(), num_bytes, cudaMemcpyHostToDevice,
                               lane.stream.get()));
    if (is_tiled) {
      pack_tiled(to, num_rows, num_cols, first_row + row, num_copied, lane.device.as<const Bf16>(),
                 lane.stream.get());
    }
    give_back(lane);
  }
}

void WeightPacker::synchronize() {
  const std::lock_guard lock(mutex_);
  for (const Lane& lane : lanes_) AUGUR_CUDA(cudaStreamSynchronize(lane.stream.get()));
}

}  // namespace augur::cuda
