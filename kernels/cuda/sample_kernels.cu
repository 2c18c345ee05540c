#include "kernels/cuda/sample_kernels.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_slice.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kCountedAtOnce = 4096;  // tokens whose occurrences are counted in one walk of a list
constexpr int kNumPivots = 3;         // of one round of a search: it quarters the range
// A top-p alone is tried among about this many best tokens before all are searched.
template <int kBlocks>
constexpr int kTriedForTopP = kBlocks == 1 ? kNumGroups : 32 * kBlocks;

// What the blocks of a row tell each other.
struct Survey {
  double total;  // weight of the slice's tokens that are left
  double mass;   // weight of those listed
  int num_listed;
};
struct PivotSums {
  double mass[kNumPivots];
  int count[kNumPivots];
};

template <int kBlocks>
struct Shared {
  RowPlan plan;
  SliceBounds bounds_parts[kBlocks];
  Survey survey_parts[kBlocks];
  PivotSums pivot_parts[2][kBlocks];
  double draw_parts[kBlocks];
  double warp_sums[2 * kNumPivots][kRowWarps];
  Key warp_keys[kRowWarps];
  SliceBounds bounds;
  Key cut;  // set by the first block, in all of them
  int num_listed;
  int lowest_id;
  KeyList list;
  union {
    GroupScratch groups;
    int counts[kCountedAtOnce];
    struct {
      float weights[kListCapacity];
      double sums[kListCapacity];
    } best;
  };
};

// One row's draw, by kBlocks blocks. Every member function is called by all threads of all of them
// unless it says otherwise; `largest`, cuts and decisions are the same in all.
template <int kBlocks>
class RowDraw {
 public:
  __device__ RowDraw(const SampleParams& params,
                     Shared<kBlocks>& shared,
                     int64_t row,
                     float* slice_memory)
      : params_(params), shared_(shared), plan_(shared.plan), row_(row), memory_(slice_memory) {}

  __device__ void run(bool is_first_row);

 private:
  __device__ bool is_first() const { return block_rank<kBlocks>() == 0; }
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ bool is_adjusted() const {
    return plan_.num_biases + plan_.num_prompt_ids + plan_.num_output_ids > 0;
  }
  __device__ float weight(float logit) const {
    return exp_not_positive(__fmul_rn(logit - largest_, plan_.scale));
  }
  template <typename Visit>
  __device__ __forceinline__ void for_each_four(const Visit& visit) const {
    for (int i = thread() * 4; i < slice_.count; i += kRowThreads * 4) visit(slice_.four(i), i);
  }

  __device__ void load();
  __device__ void own_the_row();
  __device__ void adjust();
  __device__ void find_largest(int num_wanted);
  __device__ void share_among_infinite();
  __device__ int lowest_allowed() const;
  __device__ Survey survey(Key floor, Key lowest, Key end, bool weighs);
  __device__ Key find_cut(Key floor, bool by_mass, double needed);
  __device__ void draw_from_list(int count, double total);
  __device__ void draw_from_slices(Key floor);
  __device__ int first_passing(double target, double passed, const Cut& cut) const;

  const SampleParams& params_;
  Shared<kBlocks>& shared_;
  const RowPlan& plan_;
  const int64_t row_;
  float* const memory_;  // of this block's slice, where it may be changed
  RowSlice slice_;
  float largest_ = 0;
  Key bound_ = 0;
};

// --- Loading and adjusting
// ------------------------------------------------------------------------

template <int kBlocks>
__device__ void RowDraw<kBlocks>::load() {
  slice_ =
      start_slice<kBlocks>(params_.logits + row_ * params_.row_stride, params_.vocab_size, memory_);
  // One warp reads the plan: it may lie across the bus.
  constexpr int kPlanWords = sizeof(RowPlan) / 4;
  static_assert(sizeof(RowPlan) % 4 == 0 && kPlanWords <= 32);
  if (thread() < kPlanWords) {
    reinterpret_cast<uint32_t*>(&shared_.plan)[thread()] =
        reinterpret_cast<const uint32_t*>(params_.plans + row_)[thread()];
  }
  if (thread() == 0) {
    shared_.list.count = 0;
    shared_.num_listed = 0;
  }
  if constexpr (kBlocks == 1) __syncthreads();
  finish_slice<kBlocks>();
}

// Makes the slice this block's own, to change it.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::own_the_row() {
  if constexpr (kBlocks == 1) {
    if (slice_.logits == memory_) return;
    for (int i = thread(); i < (slice_.count + 3) / 4 * 4; i += kRowThreads) {
      memory_[i] = i < slice_.count ? slice_.logits[i] : kMinusInfinity;
    }
    slice_.logits = memory_;
    slice_.has_whole_fours = true;
    __syncthreads();
  }
}

// Biases and penalties, as kernels/cpu/sampler.cc rounds them.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::adjust() {
  own_the_row();
  const int32_t* const biases = params_.lists + plan_.first_word;
  for (int i = thread(); i < plan_.num_biases; i += kRowThreads) {
    const int id = biases[2 * i];
    if (i > 0 && biases[2 * i - 2] == id) continue;  // the first of a token's adds them all
    const int at = id - slice_.first_id;
    if (at < 0 || at >= slice_.count) continue;
    float logit = memory_[at];
    for (int j = i; j < plan_.num_biases && biases[2 * j] == id; ++j) {
      logit = __fadd_rn(logit, __int_as_float(biases[2 * j + 1]));
    }
    memory_[at] = logit;
  }
  __syncthreads();
  const int32_t* const prompt_ids = biases + 2 * plan_.num_biases;
  const int num_history = plan_.num_prompt_ids + plan_.num_output_ids;
  if (num_history == 0) return;
  const bool penalises_repetition = plan_.repetition_penalty != 1;
  const bool counts_output = plan_.presence_penalty != 0 || plan_.frequency_penalty != 0;
  for (int start = 0; start < slice_.count; start += kCountedAtOnce) {
    const int num_counted = min(kCountedAtOnce, slice_.count - start);
    float* const logits = memory_ + start;
    const int first_id = slice_.first_id + start;
    const auto clear = [&] {
      for (int i = thread(); i < num_counted; i += kRowThreads) shared_.counts[i] = 0;
      __syncthreads();
    };
    if (penalises_repetition) {
      clear();
      for (int i = thread(); i < num_history; i += kRowThreads) {
        const int at = prompt_ids[i] - first_id;  // the output follows the prompt
        if (at < 0 || at >= num_counted || atomicAdd(&shared_.counts[at], 1) > 0) continue;
        const float logit = logits[at];
        logits[at] = logit > 0 ? __fdiv_rn(logit, plan_.repetition_penalty)
                               : __fmul_rn(logit, plan_.repetition_penalty);
      }
      __syncthreads();
    }
    if (!counts_output) continue;
    clear();
    for (int i = plan_.num_prompt_ids + thread(); i < num_history; i += kRowThreads) {
      const int at = prompt_ids[i] - first_id;
      if (at >= 0 && at < num_counted) atomicAdd(&shared_.counts[at], 1);
    }
    __syncthreads();
    for (int i = thread(); i < num_counted; i += kRowThreads) {
      if (shared_.counts[i] == 0) continue;
      const auto count = static_cast<float>(shared_.counts[i]);
      logits[i] = __fsub_rn(
          logits[i], __fadd_rn(plan_.presence_penalty, __fmul_rn(plan_.frequency_penalty, count)));
    }
    __syncthreads();
  }
}

// --- The largest logit and the tokens left
// --------------------------------------------------------

// Sets bounds_parts, largest_ and, where num_wanted > 0, bound_.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::find_largest(int num_wanted) {
  const Key thread_best = best_of_thread(slice_);
  if (num_wanted > 0) {
    find_bounds(thread_best, num_wanted, kBlocks, shared_.groups, shared_.bounds);
  } else {
    const Key best = block_max(thread_best, shared_.warp_keys);
    if (thread() == 0) shared_.bounds = {best, 0, 0};
  }
  __syncthreads();
}

// Tokens of logit +infinity share the draw, and differences must stay numbers.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::share_among_infinite() {
  own_the_row();
  for (int i = thread(); i < slice_.count; i += kRowThreads) {
    memory_[i] = memory_[i] == -kMinusInfinity ? 0 : kMinusInfinity;
  }
  __syncthreads();
}

// For one thread: the lowest id that no bias forbids.
template <int kBlocks>
__device__ int RowDraw<kBlocks>::lowest_allowed() const {
  const int32_t* const biases = params_.lists + plan_.first_word;
  int id = 0;
  for (int i = 0; i < plan_.num_biases; ++i) {
    if (__int_as_float(biases[2 * i + 1]) != kMinusInfinity || biases[2 * i] < id) continue;
    if (biases[2 * i] > id) break;
    ++id;
  }
  return id < params_.vocab_size ? id : 0;
}

// Lists the tokens of keys [lowest, end) and, if it weighs, adds up those from `floor` on and the
// listed ones.
template <int kBlocks>
__device__ Survey RowDraw<kBlocks>::survey(Key floor, Key lowest, Key end, bool weighs) {
  const Cut left(floor);
  const float lowest_logit = logit_of(lowest);
  double total = 0;
  double mass = 0;
  for_each_four([&](const float4& x, int i) {
    const float values[4] = {x.x, x.y, x.z, x.w};
    if (weighs) {
      float weights[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        weights[j] = left.keeps(values[j], slice_.first_id + i + j) ? weight(values[j]) : 0;
      }
      total += (weights[0] + weights[1]) + (weights[2] + weights[3]);
    }
    if (!(x.x >= lowest_logit || x.y >= lowest_logit || x.z >= lowest_logit ||
          x.w >= lowest_logit)) {
      return;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const Key key = key_of(values[j], slice_.first_id + i + j);
      if (key < lowest || key >= end) continue;
      if (atomicAdd(&shared_.num_listed, 1) < kListCapacity) push<kBlocks>(shared_.list, key);
      if (weighs) mass += weight(values[j]);
    }
  });
  if (weighs) {
    total = block_sum(total, shared_.warp_sums[0]);
    mass = block_sum(mass, shared_.warp_sums[1]);
  } else {
    __syncthreads();
  }
  exchange<kBlocks>(shared_.survey_parts, Survey{total, mass, shared_.num_listed});
  Survey all = {0, 0, 0};
  for (int i = 0; i < kBlocks; ++i) {
    all.total += shared_.survey_parts[i].total;
    all.mass += shared_.survey_parts[i].mass;
    all.num_listed += shared_.survey_parts[i].num_listed;
  }
  return all;
}

// --- Exact cuts of any size
// -----------------------------------------------------------------------

// The highest key such that the tokens from it on number, or weigh, at least `needed`; `floor` if
// all from there on do not. Quarters the range of keys until the rest of it fits the list.
template <int kBlocks>
__device__ Key RowDraw<kBlocks>::find_cut(Key floor, bool by_mass, double needed) {
  Key low = floor;                                                 // enough from here on
  Key end = (static_cast<Key>(ordered_bits(largest_)) + 1) << 32;  // not enough from here on
  double above = 0;                                                // count or weight from `end` on
  int num_between = 0;                                             // in [low, end)
  for (int round = 0;; ++round) {
    Key pivots[kNumPivots];
    for (int p = 0; p < kNumPivots; ++p) pivots[p] = low + (end - low) / (kNumPivots + 1) * (p + 1);
    if (round == 0) pivots[0] = low;  // to know how many there are
    PivotSums sums = {};
    const float low_logit = logit_of(low);
    for_each_four([&](const float4& x, int i) {
      const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (!(values[j] >= low_logit)) continue;
        const Key key = key_of(values[j], slice_.first_id + i + j);
        if (key < low || key >= end) continue;
        const float mass = by_mass ? weight(values[j]) : 0;
#pragma unroll
        for (int p = 0; p < kNumPivots; ++p) {
          if (key < pivots[p]) continue;
          ++sums.count[p];
          sums.mass[p] += mass;
        }
      }
    });
#pragma unroll
    for (int p = 0; p < kNumPivots; ++p) {
      sums.mass[p] = block_sum(sums.mass[p], shared_.warp_sums[p]);
      sums.count[p] = static_cast<int>(
          block_sum(static_cast<double>(sums.count[p]), shared_.warp_sums[kNumPivots + p]));
    }
    PivotSums* const parts = shared_.pivot_parts[round % 2];
    exchange<kBlocks>(parts, sums);
    sums = {};
    for (int b = 0; b < kBlocks; ++b) {
      for (int p = 0; p < kNumPivots; ++p) {
        sums.mass[p] += parts[b].mass[p];
        sums.count[p] += parts[b].count[p];
      }
    }
    if (round == 0) {
      num_between = sums.count[0];
      if ((by_mass ? sums.mass[0] : sums.count[0]) < needed) return floor;
    }
    // The highest pivot from which on there is enough.
    const double above_end = above;
    const int num_from_low = num_between;
    int num_from_next = 0;
    bool is_found = false;
#pragma unroll
    for (int p = kNumPivots - 1; p >= 0; --p) {
      if (is_found) continue;
      if (above_end + (by_mass ? sums.mass[p] : sums.count[p]) >= needed) {
        low = pivots[p];
        num_between = sums.count[p] - num_from_next;
        is_found = true;
      } else {
        end = pivots[p];
        above = above_end + (by_mass ? sums.mass[p] : sums.count[p]);
        num_from_next = sums.count[p];
      }
    }
    if (!is_found) num_between = num_from_low - num_from_next;
    if (num_between <= kListCapacity || end - low <= kNumPivots + 1) break;
  }

  // Order what is left and find the place in it.
  if (thread() == 0) {
    shared_.list.count = 0;
    shared_.num_listed = 0;
  }
  row_barrier<kBlocks>();
  const int count = survey(kAboveAll, low, end, /*weighs=*/false).num_listed;
  if (is_first()) {
    sort_list(shared_.list, count);
    __syncthreads();
    if (thread() == 0) {
      Key cut = low;
      for (int i = 0; i < count; ++i) {
        cut = shared_.list.sorted[i];
        above += by_mass ? weight(logit_of(cut)) : 1;
        if (above >= needed) break;
      }
      for (int i = 0; i < kBlocks; ++i) *in_block<kBlocks>(&shared_.cut, i) = cut;
    }
  }
  row_barrier<kBlocks>();
  return shared_.cut;
}

// --- Draws
// ----------------------------------------------------------------------------------------

// A random number's place among the weights, below their total even after rounding.
__device__ __forceinline__ double draw_target(double uniform, double total) {
  const double below_total = __longlong_as_double(__double_as_longlong(total) - 1);
  return fmin(uniform * total, below_total);
}

// For the first block, when all tokens that may be kept are in its list. `total` is the weight that
// top_p is a share of, or negative: that of the top_k.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::draw_from_list(int count, double total) {
  sort_list(shared_.list, count);
  if (thread() == 0) {
    shared_.lowest_id = params_.vocab_size;
    shared_.num_listed = count;
  }
  __syncthreads();
  const Key* const keys = shared_.list.sorted;
  int num_kept = plan_.top_k > 0 ? min(count, plan_.top_k) : count;
  const int i = thread();
  const float own_weight = i < num_kept ? weight(logit_of(keys[i])) : 0;
  if (i < num_kept) shared_.best.weights[i] = own_weight;

  // The end of the nucleus: sums in rank order, by warp and then over warps.
  if (plan_.top_p < 1) {
    double sum = own_weight;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const double before = __shfl_up_sync(kAllLanes, sum, step);
      if (i % 32 >= step) sum += before;
    }
    if (i % 32 == 31) shared_.warp_sums[0][i / 32] = sum;
    __syncthreads();
    double before = 0;
    double all = 0;
    for (int warp = 0; warp < kRowWarps; ++warp) {
      if (warp == i / 32) before = all;
      all += shared_.warp_sums[0][warp];
    }
    const double needed = plan_.top_p * (total < 0 ? all : total);
    if (i < num_kept && before + sum >= needed) atomicMin(&shared_.num_listed, i + 1);
    __syncthreads();
    num_kept = min(num_kept, shared_.num_listed);
  } else {
    __syncthreads();
  }

  // The draw by rising id: each token's weight and that of all kept ones below it.
  const int id = i < num_kept ? id_of(keys[i]) : 0;
  double passed = 0;
  double kept_total = 0;
  if (i < num_kept) {
    for (int j = 0; j < num_kept; ++j) {
      const double other = shared_.best.weights[j];
      kept_total += other;
      if (id_of(keys[j]) <= id) passed += other;
    }
    if (own_weight > 0 && passed > draw_target(plan_.uniform, kept_total)) {
      atomicMin(&shared_.lowest_id, id);
    }
  }
  __syncthreads();
  if (shared_.lowest_id < params_.vocab_size) {
    if (i == 0) params_.token_ids[row_] = shared_.lowest_id;
    return;
  }
  // Rounding kept all from passing: the last that has weight.
  const Key last = block_max<Key>(own_weight > 0 ? static_cast<Key>(id) : 0, shared_.warp_keys);
  if (i == 0) params_.token_ids[row_] = static_cast<int>(last);
}

// For one warp: walks its part of the slice until `passed` exceeds the target.
template <int kBlocks>
__device__ int RowDraw<kBlocks>::first_passing(double target, double passed, const Cut& cut) const {
  const int lane = thread() % 32;
  const int part = slice_capacity(slice_.count, kRowWarps * 32) * 32;
  const int first = thread() / 32 * part;
  const int end = min(first + part, slice_.count);
  int last = -1;  // with weight
  for (int start = first; start < end; start += 128) {
    const int i = start + lane * 4;
    float weights[4] = {};
    if (i < end) {
      const float4 x = slice_.four(i);
      const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int id = slice_.first_id + i + j;
        weights[j] = cut.keeps(values[j], id) ? weight(values[j]) : 0;
        if (weights[j] > 0) last = id;
      }
    }
    double sum = (weights[0] + weights[1]) + (weights[2] + weights[3]);
    const double step_sum = warp_sum(sum);
    if (passed + step_sum > target) {
      // Up to and with each lane, then token by token in the first lane that passes.
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const double before = __shfl_up_sync(kAllLanes, sum, step);
        if (lane >= step) sum += before;
      }
      const unsigned passing = __ballot_sync(kAllLanes, passed + sum > target);
      if (passing != 0) {
        const int chosen = __ffs(static_cast<int>(passing)) - 1;
        double before = __shfl_up_sync(kAllLanes, sum, 1);
        before = passed + (lane == 0 ? 0 : before);
        int own = -1;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (weights[j] == 0 || (own >= 0 && before > target)) continue;
          own = slice_.first_id + i + j;
          before += weights[j];
        }
        return __shfl_sync(kAllLanes, own, chosen);
      }
      break;
    }
    passed += step_sum;
  }
  return warp_max(last);
}

// A draw among all tokens from `floor` on.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::draw_from_slices(Key floor) {
  const Cut cut(floor);
  // Each warp has consecutive ids, so that sums of warps follow the order of ids.
  const int warp = thread() / 32;
  const int part = slice_capacity(slice_.count, kRowWarps * 32) * 32;
  const int first = warp * part;
  const int end = min(first + part, slice_.count);
  double sum = 0;
  for (int i = first + thread() % 32 * 4; i < end; i += 128) {
    const float4 x = slice_.four(i);
    const float values[4] = {x.x, x.y, x.z, x.w};
    float weights[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      weights[j] = cut.keeps(values[j], slice_.first_id + i + j) ? weight(values[j]) : 0;
    }
    sum += (weights[0] + weights[1]) + (weights[2] + weights[3]);
  }
  sum = warp_sum(sum);
  if (thread() % 32 == 0) shared_.warp_sums[0][warp] = sum;
  __syncthreads();
  double block_total = 0;
  for (int i = 0; i < kRowWarps; ++i) block_total += shared_.warp_sums[0][i];
  exchange<kBlocks>(shared_.draw_parts, block_total);
  double total = 0;
  for (int i = 0; i < kBlocks; ++i) total += shared_.draw_parts[i];
  const double target = draw_target(plan_.uniform, total);

  // The block, and in it the warp, where the sum passes the target.
  double passed = 0;
  int chosen = 0;
  while (passed + shared_.draw_parts[chosen] <= target) passed += shared_.draw_parts[chosen++];
  if (chosen != block_rank<kBlocks>()) return;
  int chosen_warp = 0;
  double passed_before = passed;
  for (int i = 0; i < kRowWarps; ++i) {
    if (shared_.warp_sums[0][i] == 0) continue;
    chosen_warp = i;  // where rounding keeps all from passing, the last that has weight
    passed_before = passed;
    passed += shared_.warp_sums[0][i];
    if (passed > target) break;
  }
  if (warp != chosen_warp) return;
  const int id = first_passing(target, passed_before, cut);
  if (thread() % 32 == 0) params_.token_ids[row_] = id;
}

// --- The row
// --------------------------------------------------------------------------------------

template <int kBlocks>
__device__ void RowDraw<kBlocks>::run(bool is_first_row) {
  load();
  if (is_adjusted()) adjust();
  const bool is_greedy = plan_.top_k == 1;
  const int num_wanted = is_greedy         ? 0
                         : plan_.top_k > 0 ? min(plan_.top_k, kListCapacity)
                         : plan_.top_p < 1 ? kTriedForTopP<kBlocks>
                                           : 0;
  find_largest(num_wanted);
  if (is_first_row) row_wait<kBlocks>();  // all blocks have begun
  exchange<kBlocks>(shared_.bounds_parts, shared_.bounds);
  Key best = 0;
  for (int i = 0; i < kBlocks; ++i) best = max(best, shared_.bounds_parts[i].best);
  if (best < kAboveMinusInfinity) {
    if (is_first() && thread() == 0) params_.token_ids[row_] = lowest_allowed();
    return;
  }
  if (is_greedy) {
    if (is_first() && thread() == 0) params_.token_ids[row_] = id_of(best);
    return;
  }
  largest_ = logit_of(best);
  Key bound = row_bound<kBlocks>(shared_.bounds_parts);
  if (largest_ == -kMinusInfinity) {
    share_among_infinite();
    largest_ = 0;
    bound = logit_of(bound) == -kMinusInfinity ? key_of(0, id_of(bound)) : kAboveMinusInfinity;
  }

  // min_p: p >= min_p * p_max, said of logits.
  const auto lowest = static_cast<float>(
      fmax(static_cast<double>(largest_) + plan_.min_p_offset, -3.40282346638528859812e38));
  Key floor = static_cast<Key>(ordered_bits(lowest)) << 32;
  const bool is_filtered = plan_.top_k > 0 || plan_.top_p < 1;
  if (!is_filtered) {
    draw_from_slices(floor);
    return;
  }

  // The best few hold what is kept, unless top_k is large or the weights are spread wide.
  const bool weighs_all = plan_.top_k == 0;
  if (plan_.top_k <= kListCapacity) {
    const Survey seen = survey(floor, max(floor, bound), kAboveAll, weighs_all);
    const bool is_enough = !weighs_all || seen.mass >= plan_.top_p * seen.total;
    if (seen.num_listed <= kListCapacity && is_enough) {
      if (is_first()) draw_from_list(seen.num_listed, weighs_all ? seen.total : -1);
      return;
    }
    row_barrier<kBlocks>();
  }
  if (plan_.top_k > 0) floor = find_cut(floor, /*by_mass=*/false, plan_.top_k);
  if (plan_.top_p < 1) {
    const double total = survey(floor, kAboveAll, kAboveAll, /*weighs=*/true).total;
    floor = find_cut(floor, /*by_mass=*/true, plan_.top_p * total);
  }
  draw_from_slices(floor);
}

template <int kBlocks>
__global__ __launch_bounds__(kRowThreads) void sample_kernel(SampleParams params) {
  extern __shared__ __align__(16) float slice_memory[];
  __shared__ Shared<kBlocks> shared;
  wait_for_previous_kernels();
  let_next_kernel_start();
  row_arrive<kBlocks>();
  float* memory = slice_memory;
  if constexpr (kBlocks == 1) {
    memory = params.adjusted_rows + int64_t{blockIdx.x} * ((params.vocab_size + 3) / 4 * 4);
  }
  const int64_t first_row = blockIdx.x / kBlocks;
  for (int64_t row = first_row; row < params.num_rows; row += gridDim.x / kBlocks) {
    RowDraw<kBlocks>(params, shared, row, memory).run(row == first_row);
    row_barrier<kBlocks>();
  }
}

// --- Largest logits alone
// -------------------------------------------------------------------------

template <int kBlocks>
__global__ __launch_bounds__(kRowThreads) void argmax_kernel(SampleParams params) {
  __shared__ Key parts[kBlocks];
  __shared__ Key warp_keys[kRowWarps];
  wait_for_previous_kernels();
  let_next_kernel_start();
  row_arrive<kBlocks>();
  const int64_t row = blockIdx.x / kBlocks;
  const float* const logits = params.logits + row * params.row_stride;
  const int capacity = slice_capacity(params.vocab_size, kBlocks);
  RowSlice slice;
  slice.first_id = min(block_rank<kBlocks>() * capacity, params.vocab_size);
  slice.count = min(capacity, params.vocab_size - slice.first_id);
  slice.logits = logits + slice.first_id;
  slice.has_whole_fours =
      params.vocab_size % 4 == 0 && reinterpret_cast<uint64_t>(logits) % 16 == 0;
  const Key best = block_max(best_of_thread(slice), warp_keys);
  row_wait<kBlocks>();  // all blocks have begun
  if (threadIdx.x == 0) *in_block<kBlocks>(&parts[block_rank<kBlocks>()], 0) = best;
  row_barrier<kBlocks>();
  if (block_rank<kBlocks>() != 0 || threadIdx.x != 0) return;
  Key row_best = 0;
  for (int i = 0; i < kBlocks; ++i) row_best = max(row_best, parts[i]);
  params.token_ids[row] = row_best < kAboveMinusInfinity ? 0 : id_of(row_best);
}

int64_t slice_bytes(int64_t vocab_size) {
  return int64_t{slice_capacity(vocab_size, kClusterBlocks)} * 4;
}

template <int kBlocks>
void launch_row_kernel(void (*kernel)(SampleParams),
                       const SampleParams& params,
                       int64_t num_rows,
                       int64_t smem_bytes,
                       cudaStream_t stream) {
  launch(kernel,
         {.grid = dim3(static_cast<unsigned>(num_rows * kBlocks)),
          .block = dim3(kRowThreads),
          .smem_bytes = smem_bytes,
          .cluster_size = kBlocks},
         stream, params);
}

}  // namespace

bool fits_cluster(int64_t vocab_size) {
  const DeviceTraits& traits = device_traits();
  return traits.is_hopper() &&
         slice_bytes(vocab_size) + int64_t{sizeof(Shared<kClusterBlocks>)} <= traits.max_smem_bytes;
}

void argmax_rows(const SampleParams& params, bool uses_cluster, cudaStream_t stream) {
  if (uses_cluster) {
    launch_row_kernel<kClusterBlocks>(argmax_kernel<kClusterBlocks>, params, params.num_rows, 0,
                                      stream);
  } else {
    launch_row_kernel<1>(argmax_kernel<1>, params, params.num_rows, 0, stream);
  }
}

void sample_rows(const SampleParams& params,
                 bool uses_cluster,
                 int num_blocks,
                 cudaStream_t stream) {
  if (uses_cluster) {
    const int64_t smem_bytes = slice_bytes(params.vocab_size);
    static const int64_t allowed = [] {
      const int64_t bytes =
          device_traits().max_smem_bytes - int64_t{sizeof(Shared<kClusterBlocks>)};
      allow_smem(sample_kernel<kClusterBlocks>, bytes);
      return bytes;
    }();
    AUGUR_REQUIRE(smem_bytes <= allowed, std::to_string(params.vocab_size));
    launch_row_kernel<kClusterBlocks>(sample_kernel<kClusterBlocks>, params, params.num_rows,
                                      smem_bytes, stream);
  } else {
    launch_row_kernel<1>(sample_kernel<1>, params, std::min(params.num_rows, num_blocks), 0,
                         stream);
  }
}

}  // namespace augur::cuda
