// Drawing tokens on the device. See kernels/sampling.h for the settings and kernels/cpu/sampler.h
// for what they leave open: both hold here too.
//
// The same token as on the CPU for the same logits and settings, except where the rounding of sums
// decides: random numbers are the same bits, cuts are exact in the same order of tokens, the draw
// walks the kept tokens by rising id, and weights have the CPU's bits (where it fuses multiply and
// add) but in the sums over whole rows of the first pass, whose relative error is below 1e-6. Sums
// run in an order that depends on the vocabulary size alone, so the same inputs give the same
// tokens run after run, whatever other rows there are.
//
// Threading: one thread. Nothing allocates after construction; sample() waits for the device only
// when it is more than kNumStages calls ahead of it, or when lists need more room than there is.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/cuda/handles.h"
#include "kernels/cuda/logprobs.h"
#include "kernels/sampling.h"

namespace augur::cuda {

class DeviceSampler {
 public:
  struct Limits {
    int64_t max_rows = 0;
    int64_t vocab_size = 0;
    /// Words of lists copied at a time: two for each bias and one for each id of the histories that
    /// penalties read. One row's lists must fit; rows beyond are drawn in further launches.
    int64_t max_list_words = 0;
    RowBlocks blocks = RowBlocks::kFastest;
  };

  /// Device memory that the constructor allocates.
  static int64_t device_bytes(const Limits& limits);
  explicit DeviceSampler(const Limits& limits);

  /// Asynchronous on `stream`; all calls use the same one. args.logits and args.token_ids are
  /// device memory, the settings may be gone when it returns.
  /// Requires at most max_rows rows of vocab_size logits, and of the settings what
  /// kernels/cpu/sampler.h does.
  void sample(const SampleArgs& args, cudaStream_t stream);

  static constexpr int kNumStages = 4;

 private:
  // What one launch reads, in page-locked memory, and until when it is read.
  struct Stage {
    Buffer pinned;
    Event is_read;
  };

  // Constant after construction.
  const Limits limits_;
  const bool uses_cluster_;
  Buffer device_;         // plans and lists of one launch
  Buffer adjusted_rows_;  // without clusters
  // Changed by sample().
  std::array<Stage, kNumStages> stages_;
  int next_stage_ = 0;
};

/// Reading each logit once.
int64_t bytes_moved(const SampleArgs& args);

}  // namespace augur::cuda
