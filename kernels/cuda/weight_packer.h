// Bringing weights to the device while several threads read them from files.
#pragma once

#include <cuda_runtime_api.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/cuda/handles.h"
#include "kernels/weights.h"

namespace augur::cuda {

/// Copies rows to the device and lays them out there, each call on a lane of its own: page-locked
/// staging, device staging and a stream, so that copies run beside the reading.
/// Threading: pack_rows from any thread; it waits while all lanes are taken.
class WeightPacker {
 public:
  /// `device` is the one the packer was made on.
  explicit WeightPacker(int device);

  /// See Ops::pack_rows. Returns once `from_host` may be used again.
  void pack_rows(MatrixUse use,
                 std::byte* to,
                 int64_t num_rows,
                 int64_t num_cols,
                 int64_t first_row,
                 int64_t count,
                 const Bf16* from_host);

  /// Waits until all that was packed lies in its place.
  void synchronize();

 private:
  struct Lane {
    Buffer pinned;
    Buffer device;
    Stream stream;
  };
  static constexpr int kNumLanes = 16;
  static constexpr int64_t kLaneBytes = int64_t{1} << 20;

  /// A lane whose staging is free. Lanes are made when first needed.
  Lane& take_lane();
  void give_back(Lane& lane);

  const int device_;
  std::mutex mutex_;
  std::condition_variable lane_is_free_;
  // Under mutex_. `lanes_` never moves: room for all is reserved.
  std::vector<Lane> lanes_;
  std::vector<Lane*> free_lanes_;
};

}  // namespace augur::cuda
