#include "kernels/cpu/moe.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <string>

#include "kernels/cpu/gemm_plan.h"
#include "kernels/cpu/int8_gemm.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/tile_layout.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

// Gated values that stay in L2 while chunks of output rows pass over them.
constexpr int64_t kFusedGatedBytes = 512 << 10;
constexpr int64_t kTokensPerCombine = 8;
constexpr int64_t kCopyTokens = 32;
constexpr int64_t kSerialCopyBytes = 128 << 10;

// The tokens of one expert, or all tokens for the shared expert.
struct Segment {
  MlpWeights weights;   // set once the expert is in its slot
  const int32_t* rows;  // of x; null: all in order
  int64_t num_tokens;
  std::byte* tokens;  // packed
  std::byte* gated;   // packed
  float* results;     // [num_tokens, hidden], row stride Pass::result_stride
};

// Some tokens of one segment.
struct TokenBlock {
  int32_t segment;
  int32_t first_token;
  int32_t num_tokens;
};

int64_t align_up(int64_t value, int64_t to) {
  return (value + to - 1) / to * to;
}

int64_t max_blocks(int64_t num_rows, int64_t num_segments, int64_t per_block) {
  return num_rows / per_block + num_segments;
}

int64_t most_widened_bytes(const GemmUnit& unit, int64_t hidden_size, int64_t intermediate_size) {
  return widened_bytes(unit, num_col_tiles(std::max(hidden_size, intermediate_size)));
}

// One pass: at most kMaxMoeTokens tokens, all of its scratch carved out.
class Pass {
 public:
  Pass(const MoeArgs& args, const GemmUnit& unit, WorkerPool& pool, std::span<std::byte> scratch)
      : args_(args),
        unit_(unit),
        pool_(pool),
        carver_(scratch),
        num_tokens_(args.x.num_rows),
        hidden_size_(args.x.num_cols),
        result_stride_(align_up(hidden_size_, kTileRows)) {}

  void run() {
    sort_by_expert();
    make_segments();
    pack();
    if (args_.feed != nullptr) {
      run_fed();
      combine_all();
      return;
    }
    for (int64_t i = 0; i < num_experts_used_; ++i) find_weights(i);
    activate_all();
    const int64_t num_blocks = cut_blocks(most_tokens());
    gate_up(num_blocks);
    const int64_t num_rows = num_tokens_ * args_.top_k;
    if (num_rows * args_.table.layout.intermediate_size * 2 <= kFusedGatedBytes) {
      down_and_combine();
    } else {
      down(num_blocks);
      combine_all();
    }
  }

 private:
  // Counting sort, stable, so that an expert's rows are in token order.
  void sort_by_expert() {
    const int64_t num_rows = num_tokens_ * args_.top_k;
    const int num_experts = args_.num_choosable();
    starts_ = carver_.take_array<int32_t>(num_experts + 1);
    rows_ = carver_.take_array<int32_t>(num_rows);
    place_of_choice_ = carver_.take_array<int32_t>(num_rows);
    std::fill_n(starts_, num_experts + 1, 0);
    for (int64_t i = 0; i < num_rows; ++i) {
      const int32_t expert = args_.experts[i];
      AUGUR_REQUIRE(expert >= 0 && expert < num_experts,
                    "expert " + std::to_string(expert) + " of " + std::to_string(num_experts));
      ++starts_[expert + 1];
    }
    for (int expert = 0; expert < num_experts; ++expert) starts_[expert + 1] += starts_[expert];
    for (int64_t i = 0; i < num_rows; ++i) {
      const int32_t place = starts_[args_.experts[i]]++;
      rows_[place] = static_cast<int32_t>(i / args_.top_k);
      place_of_choice_[i] = place;
    }
    // Each start has moved to its expert's end, which is the next one's start.
    for (int expert = num_experts; expert > 0; --expert) starts_[expert] = starts_[expert - 1];
    starts_[0] = 0;
  }

  // The experts run in the groups they come in; the shared one, and low-bit copies, which are
  // always there, while the first are on their way.
  void run_fed() {
    const int64_t num_fed =
        std::lower_bound(used_, used_ + num_experts_used_, args_.table.num_experts) - used_;
    args_.feed->begin({used_, static_cast<size_t>(num_fed)});
    for (int64_t i = num_fed; i < num_segments_; ++i) {
      if (i < num_experts_used_) find_weights(i);
      active_[i - num_fed] = static_cast<int32_t>(i);
    }
    if (num_segments_ > num_fed) run_active(num_segments_ - num_fed);
    for (int64_t num_run = 0; num_run < num_fed;) {
      const std::span<const int32_t> experts = args_.feed->next();
      AUGUR_REQUIRE(!experts.empty() && num_run + static_cast<int64_t>(experts.size()) <= num_fed,
                    std::to_string(experts.size()) + " experts came");
      for (size_t i = 0; i < experts.size(); ++i) {
        const int32_t* const end = used_ + num_fed;
        const int32_t* const found = std::lower_bound<const int32_t*>(used_, end, experts[i]);
        AUGUR_REQUIRE(found != end && *found == experts[i],
                      "expert " + std::to_string(experts[i]) + " is not wanted");
        active_[i] = static_cast<int32_t>(found - used_);
        find_weights(active_[i]);
      }
      run_active(static_cast<int64_t>(experts.size()));
      num_run += static_cast<int64_t>(experts.size());
    }
  }

  void run_active(int64_t count) {
    num_active_ = count;
    const int64_t num_blocks = cut_blocks(most_tokens());
    gate_up(num_blocks);
    down(num_blocks);
  }

  void activate_all() {
    num_active_ = num_segments_;
    std::iota(active_, active_ + num_active_, 0);
  }

  int64_t most_tokens() const { return tokens_per_block(unit_, num_col_tiles(hidden_size_)); }

  void find_weights(int64_t segment_idx) {
    const int32_t expert = used_[segment_idx];
    const ExpertTable& table = args_.table_of(expert);
    AUGUR_REQUIRE(table.slot_of_expert[args_.expert_of(expert)] >= 0,
                  "expert " + std::to_string(expert) + " has no slot");
    segments_[segment_idx].weights = table.view(args_.expert_of(expert));
  }

  void make_segments() {
    const int num_experts = args_.num_choosable();
    const bool has_shared = args_.shared.gate.data != nullptr;
    const int64_t most_used = std::min<int64_t>(num_experts, num_tokens_ * args_.top_k);
    segments_ = carver_.take_array<Segment>(most_used + 1);
    used_ = carver_.take_array<int32_t>(most_used);
    active_ = carver_.take_array<int32_t>(most_used + 1);
    results_ = carver_.take_array<float>(num_tokens_ * args_.top_k * result_stride_);
    for (int expert = 0; expert < num_experts; ++expert) {
      const int64_t count = starts_[expert + 1] - starts_[expert];
      if (count == 0) continue;
      used_[num_segments_] = expert;
      Segment& segment = segments_[num_segments_++];
      segment.rows = rows_ + starts_[expert];
      segment.num_tokens = count;
      segment.results = results_ + starts_[expert] * result_stride_;
      take_packed(segment, args_.table.layout.intermediate_size);
    }
    num_experts_used_ = num_segments_;
    take_widened();
    if (!has_shared) return;
    Segment& segment = segments_[num_segments_++];
    segment.weights = args_.shared;
    segment.rows = nullptr;
    segment.num_tokens = num_tokens_;
    segment.results = carver_.take_array<float>(num_tokens_ * result_stride_);
    take_packed(segment, args_.shared.gate.num_rows);
  }

  void take_packed(Segment& segment, int64_t intermediate_size) {
    segment.tokens =
        carver_.take(unit_.packed_bytes(segment.num_tokens, num_col_tiles(hidden_size_)));
    segment.gated =
        carver_.take(unit_.packed_bytes(segment.num_tokens, num_col_tiles(intermediate_size)));
  }

  // Scratch of each worker, where any expert needs it.
  void take_widened() {
    const bool has_int8 = std::any_of(used_, used_ + num_experts_used_, [&](int32_t expert) {
      return args_.table_of(expert).layout.format == ExpertFormat::kInt8;
    });
    if (!has_int8) return;
    widened_stride_ = most_widened_bytes(unit_, hidden_size_, args_.table.layout.intermediate_size);
    widened_ = carver_.take(widened_stride_ * pool_.num_threads());
  }

  void multiply(const GemmBlock& block, int worker_idx) const {
    if (block.scales == nullptr) {
      unit_.multiply(block);
    } else {
      multiply_int8(unit_, block, widened_ + worker_idx * widened_stride_);
    }
  }

  // Fills blocks_ with the active segments' tokens in blocks of nearly equal size; returns how
  // many.
  int64_t cut_blocks(int64_t most) {
    if (blocks_ == nullptr) {
      const int64_t num_rows = num_tokens_ * (args_.top_k + 1);
      blocks_ = carver_.take_array<TokenBlock>(max_blocks(num_rows, num_segments_, kCopyTokens));
    }
    int64_t num_blocks = 0;
    for (int64_t a = 0; a < num_active_; ++a) {
      const int32_t i = active_[a];
      const int64_t count = segments_[i].num_tokens;
      const int64_t num_parts = (count + most - 1) / most;
      const int64_t part = align_up((count + num_parts - 1) / num_parts, unit_.token_group);
      for (int64_t first = 0; first < count; first += part) {
        blocks_[num_blocks++] = {i, static_cast<int32_t>(first),
                                 static_cast<int32_t>(std::min(part, count - first))};
      }
    }
    return num_blocks;
  }

  void pack() {
    const int64_t num_rows = num_tokens_ * (args_.top_k + 1);
    const auto pack_block = [&](const TokenBlock& block) {
      const Segment& segment = segments_[block.segment];
      PackTokensArgs pack_args;
      pack_args.x = static_cast<const Bf16*>(args_.x.data);
      pack_args.x_stride = args_.x.row_stride;
      pack_args.num_cols = hidden_size_;
      pack_args.rows = segment.rows;
      pack_args.first_token = block.first_token;
      pack_args.num_tokens = block.num_tokens;
      pack_args.to = segment.tokens;
      unit_.pack_tokens(pack_args);
    };
    activate_all();
    const int64_t num_blocks = cut_blocks(kCopyTokens);
    if (num_rows * hidden_size_ * 2 <= kSerialCopyBytes) {
      for (int64_t i = 0; i < num_blocks; ++i) pack_block(blocks_[i]);
    } else {
      pool_.parallel_for(num_blocks, [&](int64_t i, int) { pack_block(blocks_[i]); });
    }
  }

  void gate_up(int64_t num_blocks) {
    const int64_t group = unit_.panel_group / 2;  // as many up panels beside them
    const int64_t num_groups =
        (num_row_tiles(args_.table.layout.intermediate_size) + group - 1) / group;
    const int64_t num_cuts = num_panel_blocks(num_groups, num_blocks, pool_.num_threads());
    pool_.parallel_for(num_blocks * num_cuts, [&](int64_t chunk_idx, int worker_idx) {
      const TokenBlock& tokens = blocks_[chunk_idx / num_cuts];
      const Segment& segment = segments_[tokens.segment];
      GemmBlock block;
      block.output = GemmOutput::kGated;
      block.tokens = segment.tokens;
      block.weights = segment.weights.gate.data;
      block.up = segment.weights.up.data;
      block.scales = segment.weights.gate.scales;
      block.up_scales = segment.weights.up.scales;
      block.out = segment.gated;
      block.num_rows = segment.weights.gate.num_rows;
      block.num_col_tiles = num_col_tiles(hidden_size_);
      block.first_token = tokens.first_token;
      block.num_tokens = tokens.num_tokens;
      set_panels(chunk_idx % num_cuts, num_cuts, group, block);
      multiply(block, worker_idx);
    });
  }

  void down(int64_t num_blocks) {
    const int64_t group = unit_.panel_group;
    const int64_t num_groups = (num_row_tiles(hidden_size_) + group - 1) / group;
    const int64_t num_cuts = num_panel_blocks(num_groups, num_blocks, pool_.num_threads());
    pool_.parallel_for(num_blocks * num_cuts, [&](int64_t chunk_idx, int worker_idx) {
      const TokenBlock& tokens = blocks_[chunk_idx / num_cuts];
      GemmBlock block = down_block(segments_[tokens.segment]);
      block.first_token = tokens.first_token;
      block.num_tokens = tokens.num_tokens;
      set_panels(chunk_idx % num_cuts, num_cuts, group, block);
      multiply(block, worker_idx);
    });
  }

  void down_and_combine() {
    const int64_t group = unit_.panel_group;
    const int64_t num_groups = (num_row_tiles(hidden_size_) + group - 1) / group;
    const int64_t num_cuts = num_panel_blocks(num_groups, 1, pool_.num_threads());
    pool_.parallel_for(num_cuts, [&](int64_t chunk_idx, int worker_idx) {
      GemmBlock block;
      for (int64_t i = 0; i < num_segments_; ++i) {
        block = down_block(segments_[i]);
        block.num_tokens = segments_[i].num_tokens;
        set_panels(chunk_idx, num_cuts, group, block);
        multiply(block, worker_idx);
      }
      const int64_t first_col = block.first_panel * kTileRows;
      const int64_t end_col = std::min(hidden_size_, first_col + block.num_panels * kTileRows);
      combine(0, num_tokens_, first_col, end_col);
    });
  }

  GemmBlock down_block(const Segment& segment) const {
    GemmBlock block;
    block.tokens = segment.gated;
    block.weights = segment.weights.down.data;
    block.scales = segment.weights.down.scales;
    block.out = segment.results;
    block.out_stride = result_stride_;
    block.is_large_out =
        is_large_out(num_tokens_ * args_.top_k, result_stride_, pool_.num_threads());
    block.num_rows = hidden_size_;
    block.num_col_tiles = num_col_tiles(segment.weights.gate.num_rows);
    return block;
  }

  // The panels of cut `cut` of `num_cuts`; groups of `group` panels stay together.
  static void set_panels(int64_t cut, int64_t num_cuts, int64_t group, GemmBlock& block) {
    const int64_t num_panels = num_row_tiles(block.num_rows);
    const int64_t num_groups = (num_panels + group - 1) / group;
    block.first_panel = std::min(num_panels, cut * num_groups / num_cuts * group);
    block.num_panels =
        std::min(num_panels, (cut + 1) * num_groups / num_cuts * group) - block.first_panel;
  }

  void combine_all() {
    pool_.parallel_for((num_tokens_ + kTokensPerCombine - 1) / kTokensPerCombine,
                       [&](int64_t chunk_idx, int) {
                         const int64_t first = chunk_idx * kTokensPerCombine;
                         const int64_t end = std::min(num_tokens_, first + kTokensPerCombine);
                         combine(first, end, 0, hidden_size_);
                       });
  }

  void combine(int64_t first_token, int64_t end_token, int64_t first_col, int64_t end_col) const {
    const bool has_shared = num_segments_ > num_experts_used_;
    CombineArgs combine_args;
    combine_args.results = results_ + first_col;
    combine_args.result_stride = result_stride_;
    combine_args.num_choices = args_.top_k;
    combine_args.num_cols = end_col - first_col;
    for (int64_t token = first_token; token < end_token; ++token) {
      combine_args.places = place_of_choice_ + token * args_.top_k;
      combine_args.weights = args_.weights + token * args_.top_k;
      combine_args.out = args_.out.row<float>(token) + first_col;
      if (has_shared) {
        combine_args.shared =
            segments_[num_experts_used_].results + token * result_stride_ + first_col;
      }
      unit_.combine(combine_args);
    }
  }

  const MoeArgs& args_;
  const GemmUnit& unit_;
  WorkerPool& pool_;
  ScratchCarver carver_;
  const int64_t num_tokens_;
  const int64_t hidden_size_;
  const int64_t result_stride_;  // elements

  int32_t* starts_ = nullptr;           // [num_experts + 1] into rows_
  int32_t* rows_ = nullptr;             // token of each place
  int32_t* place_of_choice_ = nullptr;  // [num_tokens, top_k]
  Segment* segments_ = nullptr;         // the experts used, then the shared one
  int64_t num_segments_ = 0;
  int64_t num_experts_used_ = 0;
  int32_t* used_ = nullptr;    // the experts of the segments, rising
  int32_t* active_ = nullptr;  // segments that run together
  int64_t num_active_ = 0;
  float* results_ = nullptr;  // [num_tokens * top_k, hidden], by place
  TokenBlock* blocks_ = nullptr;
  std::byte* widened_ = nullptr;  // [num_threads, widened_stride_]; null: no int8 expert
  int64_t widened_stride_ = 0;    // bytes
};

}  // namespace

int64_t moe_scratch_bytes(const MoeLimits& limits, Isa isa) {
  const GemmUnit& unit = gemm_unit(isa);
  const int64_t num_tokens = std::min(limits.num_tokens, kMaxMoeTokens);
  const int64_t num_rows = num_tokens * limits.top_k;
  const int64_t num_used = std::min(limits.num_experts, num_rows);
  const auto padded = ScratchCarver::padded;
  // Every expert's tokens start a new packed block and a new 64-byte line.
  const int64_t num_packed = num_rows + num_used * (unit.token_group - 1);
  const auto packed = [&](int64_t count, int64_t num_cols, int64_t num_pieces) {
    return unit.packed_bytes(count, num_col_tiles(num_cols)) + num_pieces * 64;
  };
  int64_t bytes = padded((limits.num_experts + 1) * 4) + 2 * padded(num_rows * 4);
  bytes += padded((num_used + 1) * static_cast<int64_t>(sizeof(Segment)));
  bytes += padded(num_used * 4) + padded((num_used + 1) * 4);
  bytes += padded(max_blocks(num_rows + num_tokens, num_used + 1, kCopyTokens) *
                  static_cast<int64_t>(sizeof(TokenBlock)));
  bytes += padded(num_rows * align_up(limits.hidden_size, kTileRows) * 4);
  bytes += packed(num_packed, limits.hidden_size, num_used + 1);
  bytes += packed(num_packed, limits.intermediate_size, num_used + 1);
  if (limits.shared_intermediate_size > 0) {
    bytes += padded(num_tokens * align_up(limits.hidden_size, kTileRows) * 4);
    bytes += packed(num_tokens, limits.hidden_size, 1);
    bytes += packed(num_tokens, limits.shared_intermediate_size, 1);
  }
  return bytes + limits.num_int8_threads *
                     most_widened_bytes(unit, limits.hidden_size, limits.intermediate_size);
}

void moe(const MoeArgs& args, Isa isa, WorkerPool& pool, std::span<std::byte> scratch) {
  AUGUR_REQUIRE(args.x.dtype == DType::kBF16, "x must be bf16");
  AUGUR_REQUIRE(args.out.dtype == DType::kF32 && args.out.num_rows == args.x.num_rows &&
                    args.out.num_cols == args.x.num_cols,
                "out must be f32 and shaped as x");
  AUGUR_REQUIRE(args.top_k >= 1, "top_k is " + std::to_string(args.top_k));
  AUGUR_REQUIRE(args.table.layout.hidden_size == args.x.num_cols,
                "experts are " + std::to_string(args.table.layout.hidden_size) + " wide, x is " +
                    std::to_string(args.x.num_cols));
  AUGUR_REQUIRE(args.low_bit.slots == nullptr ||
                    (args.low_bit.layout.hidden_size == args.table.layout.hidden_size &&
                     args.low_bit.layout.intermediate_size == args.table.layout.intermediate_size),
                "the two forms of experts differ in size");
  if (args.shared.gate.data != nullptr) check_mlp(args.shared, args.x.num_cols);
  const GemmUnit& unit = gemm_unit(isa);
  for (int64_t first = 0; first < args.x.num_rows; first += kMaxMoeTokens) {
    const int64_t count = std::min(kMaxMoeTokens, args.x.num_rows - first);
    MoeArgs part = args;
    part.x = args.x.rows(first, count);
    part.out = args.out.rows(first, count);
    part.experts = args.experts + first * args.top_k;
    part.weights = args.weights + first * args.top_k;
    Pass(part, unit, pool, scratch).run();
  }
}

}  // namespace augur::cpu
