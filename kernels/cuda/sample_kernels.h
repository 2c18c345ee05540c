// The kernels behind DeviceSampler (kernels/cuda/sampler.h), and the settings as they read them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace augur::cuda {

/// SamplingRow with everything done that needs no logits.
struct RowPlan {
  double uniform = 0;       // the row's random number
  double min_p_offset = 0;  // ln(min_p) * temperature; -infinity without min_p
  float scale = 1;          // 1 / temperature, finite
  float top_p = 1;
  int32_t top_k = 0;  // 1 for temperature 0 too; 0: all
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  // In the lists: biases as (id, bits of the float), sorted by id and stable, then prompt ids, then
  // output ids.
  int64_t first_word = 0;
  int32_t num_biases = 0;
  int32_t num_prompt_ids = 0;
  int32_t num_output_ids = 0;

  bool operator==(const RowPlan&) const = default;
};

/// Rows whose plans can travel with the launch.
inline constexpr int kMaxOwnPlans = 32;

struct SampleParams {
  const float* logits = nullptr;
  int64_t row_stride = 0;
  int vocab_size = 0;
  int num_rows = 0;
  bool has_filters = false;        // some row has a top_k above 1 or a top_p below
  const RowPlan* plans = nullptr;  // device memory or page-locked host memory; null: own_plans
  const int32_t* lists = nullptr;  // device memory; null: nothing is adjusted
  int32_t* token_ids = nullptr;    // [num_rows]
  float* adjusted_rows = nullptr;  // [num_blocks, vocab], only with one block per row
  RowPlan own_plans[kMaxOwnPlans];
};

struct ArgmaxParams {
  const float* logits = nullptr;
  int64_t row_stride = 0;
  int vocab_size = 0;
  int num_rows = 0;
  int32_t* token_ids = nullptr;  // [num_rows]
};

/// Whether a row of this length fits into the shared memory of a cluster of the current device.
bool fits_cluster(int64_t vocab_size);

/// token_ids[r] = the id of the largest logit of row r, ties to the lower id, NaN as -infinity.
void argmax_rows(const ArgmaxParams& params, bool uses_cluster, cudaStream_t stream);

/// `num_blocks`: without clusters, how many blocks walk over the rows and have an adjusted row.
void sample_rows(const SampleParams& params,
                 bool uses_cluster,
                 int num_blocks,
                 cudaStream_t stream);

}  // namespace augur::cuda
