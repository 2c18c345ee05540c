// The draw of one row's token on the device, by one block or a cluster: see kernels/cuda/sampler.h.
//
// One pass finds the largest logit and, where that is enough, the weights' sums. top_k and top_p
// are cuts by key: found among the best few where these hold them, by a search among all otherwise.
// The draw walks the kept tokens by rising id.
#pragma once

#include <climits>

#include "kernels/cuda/row_adjust.cuh"
#include "kernels/cuda/row_best.cuh"
#include "kernels/cuda/sample_kernels.h"

namespace augur::cuda {

inline constexpr int kNumPivots = 3;  // of one round of a search: it quarters the range
// A top-p alone is tried among about this many best tokens before all are searched.
template <int kBlocks>
constexpr int kTriedForTopP = kBlocks == 1 ? kNumGroups : 32 * kBlocks;

// What the blocks of a row tell each other.
struct FirstLook {
  SliceBounds bounds;
  double sum;  // of weights relative to bounds.best
};
struct Survey {
  double total;  // weight of the tokens that are left
  double mass;   // weight of those listed
  int num_listed;
};
struct PivotSums {
  double values[2 * kNumPivots];  // counts, then weights
};

template <int kBlocks>
struct DrawShared {
  RowPlan plan;
  FirstLook first_parts[kBlocks];
  Survey survey_parts[kBlocks];
  PivotSums pivot_parts[2][kBlocks];
  double draw_parts[kBlocks];
  double warp_sums[2 * kNumPivots][kRowWarps];
  Key warp_keys[kRowWarps];
  SliceBounds bounds;
  Key cut;  // set by the first block, in all of them
  int num_listed;
  int num_kept;
  int chosen;      // the first id or thread that passes the target
  int last_id;     // with weight
  int num_pushed;  // to the first block's keys, by all
  KeyList<kBlocks> list;
  union {
    GroupScratch groups;
    int counts[kCountedAtOnce];
    double weights[kListCapacity];
  };
};

// One row's draw, by kBlocks blocks. Every member function is called by all threads of all of them
// unless it says otherwise; largest_, cuts and decisions are the same in all.
template <int kBlocks>
class RowDraw {
 public:
  __device__ RowDraw(const SampleParams& params,
                     DrawShared<kBlocks>& shared,
                     int64_t row,
                     float* slice_memory)
      : params_(params), shared_(shared), plan_(shared.plan), row_(row), memory_(slice_memory) {}

  // kFilters: whether any row of the call has a top_k above 1 or a top_p.
  template <bool kFilters>
  __device__ void run(bool is_first_row);

 private:
  __device__ bool is_first() const { return block_rank<kBlocks>() == 0; }
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ float weight(float logit) const {
    return exp_not_positive(__fmul_rn(logit - largest_, plan_.scale));
  }
  // Each warp has consecutive ids, so that sums of warps follow the order of ids.
  __device__ int ids_per_warp() const { return slice_capacity(slice_.count, kRowWarps * 32) * 32; }
  // Visits tokens among which are all from `lowest` on.
  template <typename Visit>
  __device__ __forceinline__ void visit_from(Key lowest, const Visit& visit) const {
    const float lowest_logit = logit_of(lowest);
    visit_fours(slice_, thread_best_ >= lowest, lowest_logit, [&](const float4& x, int i) {
      const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (values[j] >= lowest_logit) visit(values[j], slice_.first_id + i + j);
      }
    });
  }

  __device__ void load();
  __device__ void copy_row();
  __device__ void look_first(bool is_greedy, bool is_filtered, bool weighs, bool is_first_row);
  // The parts are left in survey_parts, which alone have num_listed.
  __device__ Survey survey(Key floor, Key lowest, bool weighs_all);
  __device__ Key find_cut(Key low, Key end, double above, bool by_mass, double needed);
  __device__ void draw_from_list(double total);
  __device__ void weigh_slices(Key floor);
  __device__ void draw_from_slices(const Cut& cut, double factor);
  __device__ void walk(int first, int end, double passed, double target, const Cut& cut);

  const SampleParams& params_;
  DrawShared<kBlocks>& shared_;
  const RowPlan& plan_;
  const int64_t row_;
  float* const memory_;  // of this block's slice, where it may be changed
  RowSlice slice_;
  Key thread_best_ = 0;  // of the fours this thread visits; 0 with others
  float largest_ = 0;
  int best_id_ = 0;
};

// --- Loading
// ------------------------------------------------------------------------

template <int kBlocks>
__device__ void RowDraw<kBlocks>::load() {
  slice_ = slice_in_place<kBlocks>(params_.logits + row_ * params_.row_stride, params_.vocab_size);
  // A plan that did not come with the launch lies across the bus, or the lists are awaited.
  if (params_.plans != nullptr) prefetch_slice(slice_);
  constexpr int kPlanWords = sizeof(RowPlan) / 4;
  static_assert(sizeof(RowPlan) % 4 == 0 && kPlanWords <= 32);
  if (thread() < kPlanWords) {
    const RowPlan* const from = params_.plans == nullptr ? params_.own_plans : params_.plans;
    reinterpret_cast<uint32_t*>(&shared_.plan)[thread()] =
        reinterpret_cast<const uint32_t*>(from + row_)[thread()];
  }
  if (thread() == 0) {
    shared_.num_listed = 0;
    shared_.chosen = INT_MAX;
    shared_.last_id = -1;
  }
  __syncthreads();
}

// Copies the slice to memory of this block's own, to change it.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::copy_row() {
  if (slice_.has_whole_fours) {
    for (int i = thread() * 4; i < slice_.count; i += kRowThreads * 4) {
      if constexpr (kBlocks > 1) {
        copy_async_16(smem_address(memory_ + i), slice_.logits + i);
      } else {
        *reinterpret_cast<float4*>(memory_ + i) = slice_.raw_four(i);
      }
    }
    copy_async_commit();
    copy_async_wait<0>();
  } else {
    for (int i = thread(); i < (slice_.count + 3) / 4 * 4; i += kRowThreads) {
      memory_[i] = i < slice_.count ? slice_.logits[i] : kMinusInfinity;
    }
  }
  slice_.logits = memory_;
  slice_.has_whole_fours = true;
  __syncthreads();
}

// --- The largest logit and the tokens left
// --------------------------------------------------------

// One pass over the slice. Leaves a FirstLook of each block in first_parts and, for a draw that is
// not filtered, the warps' sums of weights relative to the block's best.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::look_first(bool is_greedy,
                                             bool is_filtered,
                                             bool weighs,
                                             bool is_first_row) {
  constexpr float kLog2E = 1.44269502f;
  const float rate = plan_.scale * kLog2E;
  Glance seen;
  if (is_greedy || (is_filtered && !weighs)) {
    seen = glance_all<false>(slice_, 0);
  } else if (is_filtered) {
    seen = glance_all<true>(slice_, rate);
  } else {
    const int first = thread() / 32 * ids_per_warp();
    seen = glance<true>(slice_, first + thread() % 32 * 4,
                        min(first + ids_per_warp(), slice_.count), 128, rate);
  }
  if (is_filtered) {
    thread_best_ = seen.best;
    const int num_wanted =
        plan_.top_k > 0 ? min(plan_.top_k, kListCapacity) : kTriedForTopP<kBlocks>;
    find_bounds(seen.best, num_wanted, kBlocks, shared_.groups, shared_.bounds);
  } else {
    const Key best = block_max(seen.best, shared_.warp_keys);
    if (thread() == 0) shared_.bounds = {best, 0, 0};
  }
  __syncthreads();
  double sum = 0;
  if (!is_greedy) {
    sum = seen.sum * exp2_of_difference(logit_of(seen.best), logit_of(shared_.bounds.best), rate);
    sum = warp_sum(sum);
    if (thread() % 32 == 0) shared_.warp_sums[0][thread() / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < kRowWarps; ++i) sum += shared_.warp_sums[0][i];
  }
  if (is_first_row) row_wait<kBlocks>();  // all blocks have begun
  exchange<kBlocks>(shared_.first_parts, FirstLook{shared_.bounds, sum});
}

// Lists the tokens from `lowest` on and weighs them; if it weighs all, also those from `floor` on.
// Threads that hold nothing of either are spared.
template <int kBlocks>
__device__ Survey RowDraw<kBlocks>::survey(Key floor, Key lowest, bool weighs_all) {
  const Cut left(floor);
  double total = 0;
  double mass = 0;
  visit_from(weighs_all ? floor : lowest, [&](float logit, int id) {
    if (!left.keeps(logit, id)) return;
    const float token_weight = weight(logit);
    total += token_weight;
    const Key key = key_of(logit, id);
    if (key < lowest) return;
    list_token(shared_.list, shared_.num_listed, key);
    mass += token_weight;
  });
  total = block_sum(total, shared_.warp_sums[1]);
  mass = block_sum(mass, shared_.warp_sums[2]);
  exchange<kBlocks>(shared_.survey_parts, Survey{total, mass, shared_.num_listed});
  Survey all = {};
  for (int i = 0; i < kBlocks; ++i) {
    all.total += shared_.survey_parts[i].total;
    all.mass += shared_.survey_parts[i].mass;
  }
  return all;
}

// --- Exact cuts of any size
// -----------------------------------------------------------------------

// Keys that quarter [low, end): between logits while there are any between, then between keys.
// With `by_logit` false always the latter, which halves any range of floats in so many rounds.
__device__ __forceinline__ void make_pivots(Key low,
                                            Key end,
                                            bool by_logit,
                                            Key (&pivots)[kNumPivots]) {
  const float low_logit = logit_of(low);
  const float step = (logit_of(end) - low_logit) / (kNumPivots + 1);
  for (int p = 0; p < kNumPivots; ++p) {
    pivots[p] = static_cast<Key>(ordered_bits(low_logit + step * static_cast<float>(p + 1))) << 32;
  }
  if (by_logit && pivots[0] > low && pivots[1] > pivots[0] && pivots[2] > pivots[1] &&
      end > pivots[2]) {
    return;
  }
  for (int p = 0; p < kNumPivots; ++p) pivots[p] = low + (end - low) / (kNumPivots + 1) * (p + 1);
}

// The highest key such that the tokens from it on number, or weigh, at least `needed`: those from
// `end` on, `above` in all, do not. `low` if all from there on do not. Quarters the range of keys
// until the rest of it fits the list.
template <int kBlocks>
__device__ Key
RowDraw<kBlocks>::find_cut(Key low, Key end, double above, bool by_mass, double needed) {
  const Key floor = low;
  const int measure = by_mass ? kNumPivots : 0;  // index of the sums that count
  double num_between = 0;                        // in [low, end)
  for (int round = 0;; ++round) {
    Key pivots[kNumPivots];
    make_pivots(low, end, by_mass || round % 2 == 1, pivots);
    if (round == 0) pivots[0] = low;  // to know how many there are
    int counts[kNumPivots] = {};
    float masses[kNumPivots] = {};  // of no more tokens than a thread visits
    visit_from(low, [&](float logit, int id) {
      const Key key = key_of(logit, id);
      if (key < low || key >= end) return;
      const float mass = by_mass ? weight(logit) : 0;
#pragma unroll
      for (int p = 0; p < kNumPivots; ++p) {
        if (key < pivots[p]) continue;
        ++counts[p];
        masses[p] += mass;
      }
    });
#pragma unroll
    for (int i = 0; i < 2 * kNumPivots; ++i) {
      const double sum = warp_sum<double>(i < kNumPivots ? counts[i] : masses[i - kNumPivots]);
      if (thread() % 32 == 0) shared_.warp_sums[i][thread() / 32] = sum;
    }
    __syncthreads();
    PivotSums part = {};
    if (thread() < 32) {
#pragma unroll
      for (int i = 0; i < 2 * kNumPivots; ++i) {
        part.values[i] = warp_sum(thread() < kRowWarps ? shared_.warp_sums[i][thread()] : 0.0);
      }
    }
    PivotSums* const parts = shared_.pivot_parts[round % 2];
    exchange<kBlocks>(parts, part);
    double sums[2 * kNumPivots];
#pragma unroll
    for (int i = 0; i < 2 * kNumPivots; ++i) {
      sums[i] = 0;
      for (int b = 0; b < kBlocks; ++b) sums[i] += parts[b].values[i];
    }
    if (round == 0) {
      num_between = sums[0];
      if (above + sums[measure] < needed) return floor;
    }
    // The highest pivot from which on there is enough.
    const double above_end = above;
    const double num_from_low = num_between;
    double num_from_next = 0;
    bool is_found = false;
#pragma unroll
    for (int p = kNumPivots - 1; p >= 0; --p) {
      if (is_found) continue;
      const double from_pivot = above_end + (by_mass ? sums[kNumPivots + p] : sums[p]);
      if (from_pivot >= needed) {
        low = pivots[p];
        num_between = sums[p] - num_from_next;
        is_found = true;
      } else {
        end = pivots[p];
        above = from_pivot;
        num_from_next = sums[p];
      }
    }
    if (!is_found) num_between = num_from_low - num_from_next;
    if (num_between <= kListCapacity) break;
  }

  // Order what is left and find the place in it.
  if (thread() == 0) shared_.num_pushed = 0;
  row_barrier<kBlocks>();
  visit_from(low, [&](float logit, int id) {
    const Key key = key_of(logit, id);
    if (key < low || key >= end) return;
    const int place = atomicAdd(in_block<kBlocks>(&shared_.num_pushed, 0), 1);
    *in_block<kBlocks>(&shared_.list.keys[place], 0) = key;
  });
  row_barrier<kBlocks>();
  if (is_first()) {
    const int count = static_cast<int>(num_between);
    sort_keys(shared_.list, count);
    __syncthreads();
    if (thread() < 32) {
      Key cut = low;
      bool is_found = false;
      for (int start = 0; start < count && !is_found; start += 32) {
        const int i = start + thread();
        const Key key = i < count ? shared_.list.sorted[i] : 0;
        const double value = i >= count ? 0 : by_mass ? weight(logit_of(key)) : 1;
        const double from_key = above + warp_prefix(value);
        const unsigned enough = __ballot_sync(kAllLanes, i < count && from_key >= needed);
        is_found = enough != 0;
        const int last = min(31, count - 1 - start);
        cut = __shfl_sync(kAllLanes, key, is_found ? __ffs(static_cast<int>(enough)) - 1 : last);
        above = __shfl_sync(kAllLanes, from_key, 31);
      }
      if (thread() < kBlocks) *in_block<kBlocks>(&shared_.cut, thread()) = cut;
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
__device__ void RowDraw<kBlocks>::draw_from_list(double total) {
  const int count = sort_list(shared_.list, shared_.survey_parts);
  if (thread() == 0) shared_.num_kept = count;
  __syncthreads();
  const Key* const keys = shared_.list.sorted;
  int num_kept = plan_.top_k > 0 ? min(count, plan_.top_k) : count;
  const int i = thread();
  const double own_weight = i < num_kept ? weight(logit_of(keys[i])) : 0;
  if (i < num_kept) shared_.weights[i] = own_weight;

  // The end of the nucleus: sums in rank order, by warp and then over warps.
  double sum = warp_prefix(own_weight);
  if (i % 32 == 31) shared_.warp_sums[0][i / 32] = sum;
  __syncthreads();
  double all = 0;
  for (int warp = 0; warp < kRowWarps; ++warp) {
    if (warp == i / 32) sum += all;
    all += shared_.warp_sums[0][warp];
  }
  if (plan_.top_p < 1) {
    const double needed = plan_.top_p * (total < 0 ? all : total);
    if (i < num_kept && sum >= needed) atomicMin(&shared_.num_kept, i + 1);
    __syncthreads();
    num_kept = min(num_kept, shared_.num_kept);
  }
  if (i == num_kept - 1) shared_.warp_sums[1][0] = sum;
  __syncthreads();
  const double target = draw_target(plan_.uniform, shared_.warp_sums[1][0]);

  // The draw by rising id: each token's weight and that of all kept ones below it.
  if (i < num_kept && own_weight > 0) {
    const int id = id_of(keys[i]);
    double passed = 0;
#pragma unroll 4
    for (int j = 0; j < num_kept; ++j) passed += id_of(keys[j]) <= id ? shared_.weights[j] : 0;
    if (passed > target) atomicMin(&shared_.chosen, id);
    atomicMax(&shared_.last_id, id);  // drawn where rounding keeps all from passing
  }
  __syncthreads();
  if (i == 0) {
    params_.token_ids[row_] = shared_.chosen < INT_MAX ? shared_.chosen : shared_.last_id;
  }
}

// For the chosen block: walks ids [first, end) of the slice until the sum exceeds the target.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::walk(
    int first, int end, double passed, double target, const Cut& cut) {
  for (int start = first; start < end; start += kRowThreads * 4) {
    const int i = start + thread() * 4;
    float weights[4] = {};
    int last = -1;
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
    const double sum =
        warp_prefix(static_cast<double>((weights[0] + weights[1]) + (weights[2] + weights[3])));
    double before = __shfl_up_sync(kAllLanes, sum, 1);
    if (thread() % 32 == 0) before = 0;
    __syncthreads();  // warp_sums have been read
    if (thread() % 32 == 31) shared_.warp_sums[1][thread() / 32] = sum;
    __syncthreads();
    double before_warp = passed;
    for (int warp = 0; warp < kRowWarps; ++warp) {
      if (warp == thread() / 32) before_warp = passed;
      passed += shared_.warp_sums[1][warp];
    }
    if (last >= 0) {
      if (before_warp + sum > target) atomicMin(&shared_.chosen, thread());
      atomicMax(&shared_.last_id, last);
    }
    __syncthreads();
    if (shared_.chosen == INT_MAX) continue;
    if (shared_.chosen != thread()) return;
    // The token within the thread.
    double passed_here = before_warp + before;
    int id = -1;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (weights[j] == 0 || (id >= 0 && passed_here > target)) continue;
      id = slice_.first_id + i + j;
      passed_here += weights[j];
    }
    params_.token_ids[row_] = id;
    return;
  }
  // Rounding kept the sum from passing the target: the last token that has weight. The best one in
  // a part that has some against its own best alone.
  if (thread() == 0) {
    params_.token_ids[row_] = shared_.last_id >= 0 ? shared_.last_id : best_id_;
  }
}

// Leaves the warps' sums of the weights of all tokens from `floor` on, and each block's in
// draw_parts.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::weigh_slices(Key floor) {
  const Cut cut(floor);
  const int first = thread() / 32 * ids_per_warp();
  const int end = min(first + ids_per_warp(), slice_.count);
  double sum = 0;
  constexpr int kAtOnce = 4;  // loads in flight
  for (int start = first + thread() % 32 * 4; start < end; start += kAtOnce * 128) {
    float4 fours[kAtOnce];
    slice_.raw_fours(start, 128, end, fours);
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      const int i = start + a * 128;
      if (i >= end) continue;
      const float4 x = slice_.counted(fours[a]);
      const float values[4] = {x.x, x.y, x.z, x.w};
      float weights[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        weights[j] = cut.keeps(values[j], slice_.first_id + i + j) ? weight(values[j]) : 0;
      }
      sum += (weights[0] + weights[1]) + (weights[2] + weights[3]);
    }
  }
  sum = warp_sum(sum);
  if (thread() % 32 == 0) shared_.warp_sums[0][thread() / 32] = sum;
  __syncthreads();
  double block_total = 0;
  for (int i = 0; i < kRowWarps; ++i) block_total += shared_.warp_sums[0][i];
  exchange<kBlocks>(shared_.draw_parts, block_total);
}

// A draw among the tokens that `cut` keeps. draw_parts has the weight of each block and warp_sums
// that of its warps, which `factor` brings to the same scale.
template <int kBlocks>
__device__ void RowDraw<kBlocks>::draw_from_slices(const Cut& cut, double factor) {
  double total = 0;
  for (int i = 0; i < kBlocks; ++i) total += shared_.draw_parts[i];
  const double target = draw_target(plan_.uniform, total);
  // The block, and in it the warp, where the sum passes the target.
  double passed = 0;
  int block = 0;
  while (passed + shared_.draw_parts[block] <= target) passed += shared_.draw_parts[block++];
  if (block != block_rank<kBlocks>()) return;
  int warp = 0;
  double passed_before = passed;
  for (int i = 0; i < kRowWarps; ++i) {
    if (shared_.warp_sums[0][i] == 0) continue;
    warp = i;  // where rounding keeps all from passing, the last that has weight
    passed_before = passed;
    passed += shared_.warp_sums[0][i] * factor;
    if (passed > target) break;
  }
  const int first = warp * ids_per_warp();
  walk(first, min(first + ids_per_warp(), slice_.count), passed_before, target, cut);
}

// --- The row
// --------------------------------------------------------------------------------------

template <int kBlocks>
template <bool kFilters>
__device__ void RowDraw<kBlocks>::run(bool is_first_row) {
  load();
  if (params_.lists != nullptr) {
    if (plan_.num_biases + plan_.num_prompt_ids + plan_.num_output_ids > 0) {
      copy_row();
      adjust_slice(plan_, params_.lists + plan_.first_word, slice_.first_id, slice_.count, memory_,
                   shared_.counts);
    }
  }
  const bool is_greedy = plan_.top_k == 1;
  const bool is_filtered = kFilters && !is_greedy && (plan_.top_k > 0 || plan_.top_p < 1);
  const bool has_min_p = plan_.min_p_offset > kMinusInfinity;
  // In the first pass already, where all tokens have weight.
  const bool weighs = !is_greedy && plan_.top_k == 0 && !has_min_p;
  look_first(is_greedy, is_filtered, weighs, is_first_row);
  const FirstLook* const parts = shared_.first_parts;
  Key best = 0;
  for (int i = 0; i < kBlocks; ++i) best = max(best, parts[i].bounds.best);
  if (best < kAboveMinusInfinity) {
    if (is_first() && thread() == 0) {
      params_.token_ids[row_] =
          lowest_allowed(plan_, params_.lists + plan_.first_word, params_.vocab_size);
    }
    return;
  }
  if (is_greedy) {
    if (is_first() && thread() == 0) params_.token_ids[row_] = id_of(best);
    return;
  }
  largest_ = logit_of(best);
  best_id_ = id_of(best);
  Key bound = is_filtered ? row_bound<kBlocks>(parts) : 0;
  if (largest_ == -kMinusInfinity) {
    // Tokens of logit +infinity share the draw, and differences must stay numbers.
    slice_.is_infinite = true;
    thread_best_ = kAboveAll;
    largest_ = 0;
    bound = logit_of(bound) == -kMinusInfinity ? key_of(0, id_of(bound)) : kAboveMinusInfinity;
  }
  // Weights of the first pass are relative to their block's best. Lanes compute a block's each.
  const bool is_weighed = weighs && !slice_.is_infinite;
  const int lane_block = thread() % kBlocks;
  double factor = 0;
  double lane_sum = 0;
  if (is_weighed && parts[lane_block].sum > 0) {
    const double below = static_cast<double>(logit_of(parts[lane_block].bounds.best)) - largest_;
    factor = exp(below * plan_.scale);
    lane_sum = parts[lane_block].sum * factor;
  }

  // min_p: p >= min_p * p_max, said of logits.
  const auto lowest = static_cast<float>(
      fmax(static_cast<double>(largest_) + plan_.min_p_offset, -3.40282346638528859812e38));
  Key floor = static_cast<Key>(ordered_bits(lowest)) << 32;
  if (!is_filtered) {
    if (is_weighed) {
      if (thread() < kBlocks) shared_.draw_parts[thread()] = lane_sum;
      __syncthreads();
      factor = __shfl_sync(kAllLanes, factor, block_rank<kBlocks>());
    } else {
      weigh_slices(floor);
      factor = 1;
    }
    draw_from_slices(Cut(floor), factor);
    return;
  }

  // The best few hold what is kept, unless top_k is large or the weights are spread wide.
  Key end = (static_cast<Key>(ordered_bits(largest_)) + 1) << 32;
  double above = 0;
  double total = 0;
  Key low = floor;
  if (plan_.top_k <= kListCapacity) {
    const Survey seen = survey(floor, max(floor, bound), plan_.top_k == 0 && !is_weighed);
    total = seen.total;
    if (is_weighed) {
      total = 0;
      for (int i = 0; i < kBlocks; ++i) total += __shfl_sync(kAllLanes, lane_sum, i);
    }
    const bool is_enough = plan_.top_k > 0 || seen.mass >= plan_.top_p * total;
    if (is_enough && is_whole<kBlocks>(shared_.survey_parts)) {
      if (is_first()) draw_from_list(plan_.top_k > 0 ? -1 : total);
      return;
    }
    if (is_enough) {
      low = max(low, bound);
    } else {
      end = max(floor, bound);
      above = seen.mass;
    }
  }
  if (plan_.top_k > 0) {
    floor = find_cut(low, end, above, /*by_mass=*/false, plan_.top_k);
    if (plan_.top_p < 1) {
      total = survey(floor, kAboveAll, /*weighs_all=*/true).total;
    }
    low = floor;
    end = (static_cast<Key>(ordered_bits(largest_)) + 1) << 32;
    above = 0;
  }
  if (plan_.top_p < 1) {
    // Tokens lighter than this hold less than 1 - top_p together, with ample room for rounding.
    const double lightest = (1.0 - plan_.top_p) * total / (4.0 * params_.vocab_size);
    const auto light_logit = static_cast<float>(largest_ + log(lightest) / plan_.scale);
    low = max(low, static_cast<Key>(ordered_bits(light_logit)) << 32);
    floor = low < end ? find_cut(low, end, above, /*by_mass=*/true, plan_.top_p * total) : floor;
  }
  weigh_slices(floor);
  draw_from_slices(Cut(floor), 1);
}

}  // namespace augur::cuda
