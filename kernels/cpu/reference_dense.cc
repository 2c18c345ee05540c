#include "kernels/cpu/reference_dense.h"

#include <cmath>
#include <cstring>
#include <span>
#include <string>

#include "kernels/cpu/reference_checks.h"
#include "kernels/cpu/reference_product.h"
#include "kernels/cpu/tile_layout.h"

namespace augur::cpu {
namespace {

float silu(float x) {
  return x / (1.0f + std::exp(-x));
}

void require_columns_fit(int64_t num_cols, const ReferenceScratch& scratch) {
  AUGUR_REQUIRE(
      num_cols <= scratch.max_cols(),
      std::to_string(num_cols) + " columns, reserved for " + std::to_string(scratch.max_cols()));
}

// Columns [panel_idx * 16, + 16) of silu(x gate^T) * (x up^T), row i to out + i * stride.
void gated_panel(const MlpWeights& weights,
                 int64_t panel_idx,
                 const ActivationRows& x,
                 float* panel,
                 float* out,
                 int64_t stride) {
  const auto store_gate = [&](int64_t i, int64_t first, int64_t count, const float* values) {
    for (int64_t o = 0; o < count; ++o) out[i * stride + first + o] = silu(values[o]);
  };
  const auto multiply_up = [&](int64_t i, int64_t first, int64_t count, const float* values) {
    for (int64_t o = 0; o < count; ++o) out[i * stride + first + o] *= values[o];
  };
  multiply_panel(weights.gate, panel_idx, x, panel, store_gate);
  multiply_panel(weights.up, panel_idx, x, panel, multiply_up);
}

void require_mlp_shape(const MlpWeights& weights, int64_t hidden, const ReferenceScratch& scratch) {
  AUGUR_REQUIRE(weights.gate.scales == nullptr, "only experts may be int8");
  const int64_t intermediate = weights.gate.num_rows;
  AUGUR_REQUIRE(weights.gate.num_cols == hidden && weights.up.num_cols == hidden &&
                    weights.up.num_rows == intermediate && weights.down.num_rows == hidden &&
                    weights.down.num_cols == intermediate,
                "hidden size " + std::to_string(hidden) + ", gate of " +
                    std::to_string(intermediate) + " rows");
  require_columns_fit(hidden, scratch);
  require_columns_fit(intermediate, scratch);
}

// The MLP of one slab of rows; `add` adds to `out` what would else be stored.
void mlp_slab(const MlpWeights& weights,
              const Tensor& x,
              const Tensor& out,
              bool add,
              const ReferenceScratch& scratch,
              WorkerPool& pool) {
  const int64_t intermediate = weights.gate.num_rows;
  float* const inner = scratch.intermediate();
  pool.parallel_for(num_panels(weights.gate), [&](int64_t panel_idx, int worker_idx) {
    gated_panel(weights, panel_idx, activation_rows(x), scratch.panel(worker_idx), inner,
                intermediate);
  });
  const ActivationRows inner_rows = {inner, intermediate, x.num_rows};
  pool.parallel_for(num_panels(weights.down), [&](int64_t panel_idx, int worker_idx) {
    const auto store = [&](int64_t i, int64_t first, int64_t count, const float* values) {
      float* const to = out.row<float>(i) + first;
      for (int64_t o = 0; o < count; ++o) to[o] = add ? to[o] + values[o] : values[o];
    };
    multiply_panel(weights.down, panel_idx, inner_rows, scratch.panel(worker_idx), store);
  });
}

// The choices of a slab, sorted by expert: those of expert e are [starts[e], starts[e + 1]).
// Returns how many experts have any; those are the first of active_experts().
int64_t sort_by_expert(const MoeArgs& args,
                       int64_t first_token,
                       int64_t num_tokens,
                       const ReferenceScratch& scratch) {
  const int32_t* const experts = args.experts + first_token * args.top_k;
  const int64_t num_choices = num_tokens * args.top_k;
  const int num_experts = args.num_choosable();
  int32_t* const starts = scratch.expert_starts();
  std::fill(starts, starts + num_experts + 1, 0);
  for (int64_t c = 0; c < num_choices; ++c) ++starts[experts[c] + 1];
  int64_t num_active = 0;
  for (int32_t e = 0; e < num_experts; ++e) {
    if (starts[e + 1] > 0) scratch.active_experts()[num_active++] = e;
    starts[e + 1] += starts[e];
  }
  for (int64_t c = 0; c < num_choices; ++c) {
    const int32_t place = starts[experts[c]]++;
    scratch.sorted_choices()[place] = static_cast<int32_t>(c);
    scratch.sorted_tokens()[place] = static_cast<int32_t>(c / args.top_k);
  }
  // Each start has moved to the next one's place.
  for (int32_t e = num_experts; e > 0; --e) starts[e] = starts[e - 1];
  starts[0] = 0;
  return num_active;
}

MlpWeights expert_weights(const MoeArgs& args, int32_t choice) {
  return args.table_of(choice).view(args.expert_of(choice));
}

// Leaves the results of these experts, each on the rows that chose it, in expert_outputs() by
// choice.
void run_experts(const MoeArgs& args,
                 const Tensor& x,
                 std::span<const int32_t> experts,
                 const ReferenceScratch& scratch,
                 WorkerPool& pool) {
  const int64_t hidden = args.table.layout.hidden_size;
  const int64_t intermediate = args.table.layout.intermediate_size;
  const auto num_active = static_cast<int64_t>(experts.size());
  const auto expert_rows = [&](int32_t expert, int64_t* start) {
    *start = scratch.expert_starts()[expert];
    return scratch.expert_starts()[expert + 1] - *start;
  };

  const int64_t inner_panels = (intermediate + kLanes - 1) / kLanes;
  pool.parallel_for(num_active * inner_panels, [&](int64_t chunk_idx, int worker_idx) {
    const int32_t expert = experts[chunk_idx / inner_panels];
    int64_t start = 0;
    const int64_t count = expert_rows(expert, &start);
    gated_panel(
        expert_weights(args, expert), chunk_idx % inner_panels,
        {static_cast<const float*>(x.data), x.row_stride, count, scratch.sorted_tokens() + start},
        scratch.panel(worker_idx), scratch.intermediate() + start * intermediate, intermediate);
  });

  const int64_t outer_panels = (hidden + kLanes - 1) / kLanes;
  pool.parallel_for(num_active * outer_panels, [&](int64_t chunk_idx, int worker_idx) {
    const int32_t expert = experts[chunk_idx / outer_panels];
    int64_t start = 0;
    const int64_t count = expert_rows(expert, &start);
    const auto store = [&](int64_t i, int64_t first, int64_t num_values, const float* values) {
      const int64_t choice = scratch.sorted_choices()[start + i];
      std::copy(values, values + num_values, scratch.expert_outputs() + choice * hidden + first);
    };
    multiply_panel(expert_weights(args, expert).down, chunk_idx % outer_panels,
                   {scratch.intermediate() + start * intermediate, intermediate, count},
                   scratch.panel(worker_idx), store);
  });
}

void moe_slab(const MoeArgs& args,
              int64_t first_token,
              int64_t num_tokens,
              const ReferenceScratch& scratch,
              WorkerPool& pool) {
  const int64_t num_active = sort_by_expert(args, first_token, num_tokens, scratch);
  const int64_t hidden = args.table.layout.hidden_size;
  const Tensor x = args.x.rows(first_token, num_tokens);
  const std::span<const int32_t> active(scratch.active_experts(), num_active);
  if (args.feed == nullptr) {
    run_experts(args, x, active, scratch, pool);
  } else {
    // Low-bit copies are always there.
    const size_t num_fed =
        std::lower_bound(active.begin(), active.end(), args.table.num_experts) - active.begin();
    args.feed->begin(active.first(num_fed));
    run_experts(args, x, active.subspan(num_fed), scratch, pool);
    for (size_t num_run = 0; num_run < num_fed;) {
      const std::span<const int32_t> experts = args.feed->next();
      AUGUR_REQUIRE(!experts.empty() && num_run + experts.size() <= num_fed,
                    std::to_string(experts.size()) + " experts came");
      run_experts(args, x, experts, scratch, pool);
      num_run += experts.size();
    }
  }

  pool.parallel_for(num_tokens, [&](int64_t token, int) {
    float* const out = args.out.row<float>(first_token + token);
    const float* const weights = args.weights + (first_token + token) * args.top_k;
    std::fill(out, out + hidden, 0.0f);
    for (int k = 0; k < args.top_k; ++k) {
      const float* const from = scratch.expert_outputs() + (token * args.top_k + k) * hidden;
      for (int64_t i = 0; i < hidden; ++i) out[i] += weights[k] * from[i];
    }
  });
  if (args.shared.gate.data != nullptr) {
    mlp_slab(args.shared, x, args.out.rows(first_token, num_tokens), true, scratch, pool);
  }
}

}  // namespace

void reference_embed(const EmbedArgs& args, WorkerPool& pool) {
  const Tensor& out = args.out;
  require_f32(out, out.num_rows, args.table.num_cols, "out");
  for (int64_t i = 0; i < out.num_rows; ++i) {
    AUGUR_REQUIRE(args.token_of(i) >= 0 && args.token_of(i) < args.table.num_rows,
                  "token id " + std::to_string(args.token_of(i)) + " of " +
                      std::to_string(args.table.num_rows));
  }
  pool.parallel_for(out.num_rows, [&](int64_t row_idx, int) {
    float* const to = out.row<float>(row_idx);
    for (int64_t col = 0; col < out.num_cols; ++col) {
      const std::byte* const pair =
          args.table.data + tiled_pair_offset(out.num_cols, args.token_of(row_idx), col);
      to[col] = to_float(reinterpret_cast<const Bf16*>(pair)[col % 2]);
    }
  });
}

void reference_add_rms_norm(const AddRmsNormArgs& args, WorkerPool& pool) {
  const Tensor& hidden = args.hidden;
  const int64_t num_cols = hidden.num_cols;
  require_f32(hidden, hidden.num_rows, num_cols, "hidden");
  if (args.delta.data != nullptr) require_f32(args.delta, hidden.num_rows, num_cols, "delta");
  require_f32(args.out, hidden.num_rows, num_cols, "out");
  if (args.out_f32.data != nullptr) require_f32(args.out_f32, hidden.num_rows, num_cols, "out_f32");
  pool.parallel_for(hidden.num_rows, [&](int64_t row_idx, int) {
    float* const x = hidden.row<float>(row_idx);
    if (args.delta.data != nullptr) {
      const float* const delta = args.delta.row<float>(row_idx);
      for (int64_t i = 0; i < num_cols; ++i) x[i] += delta[i];
    }
    double sum_of_squares = 0;
    for (int64_t i = 0; i < num_cols; ++i) sum_of_squares += double{x[i]} * x[i];
    const auto scale = static_cast<float>(
        1.0 / std::sqrt(sum_of_squares / static_cast<double>(num_cols) + args.eps));
    float* const out = args.out.row<float>(row_idx);
    for (int64_t i = 0; i < num_cols; ++i) out[i] = x[i] * scale * args.weight[i];
    if (args.out_f32.data != nullptr) {
      std::copy(out, out + num_cols, args.out_f32.row<float>(row_idx));
    }
  });
}

void reference_gather_rows(const GatherRowsArgs& args, WorkerPool& pool) {
  require_f32(args.x, args.x.num_rows, args.out.num_cols, "x");
  require_f32(args.out, args.out.num_rows, args.x.num_cols, "out");
  require_in_range(args.rows, args.out.num_rows, args.x.num_rows, "row");
  pool.parallel_for(args.out.num_rows, [&](int64_t row_idx, int) {
    const float* const from = args.x.row<float>(args.rows[row_idx]);
    std::copy(from, from + args.x.num_cols, args.out.row<float>(row_idx));
  });
}

void reference_linear(const LinearArgs& args, const ReferenceScratch& scratch, WorkerPool& pool) {
  require_f32(args.x, args.x.num_rows, args.weight.num_cols, "x");
  require_f32(args.out, args.x.num_rows, args.weight.num_rows, "out");
  require_columns_fit(args.weight.num_cols, scratch);
  if (args.x.num_rows == 0) return;
  pool.parallel_for(num_panels(args.weight), [&](int64_t panel_idx, int worker_idx) {
    const auto store = [&](int64_t i, int64_t first, int64_t count, const float* values) {
      float* const to = args.out.row<float>(i) + first;
      for (int64_t o = 0; o < count; ++o) {
        to[o] = args.bias == nullptr ? values[o] : values[o] + args.bias[first + o];
      }
    };
    multiply_panel(args.weight, panel_idx, activation_rows(args.x), scratch.panel(worker_idx),
                   store);
  });
}

void reference_mlp(const MlpArgs& args, const ReferenceScratch& scratch, WorkerPool& pool) {
  const int64_t num_tokens = args.x.num_rows;
  require_f32(args.x, num_tokens, args.weights.gate.num_cols, "x");
  require_f32(args.out, num_tokens, args.weights.down.num_rows, "out");
  require_mlp_shape(args.weights, args.x.num_cols, scratch);
  AUGUR_REQUIRE(num_tokens <= scratch.limits().max_tokens &&
                    args.weights.gate.num_rows <= scratch.limits().mlp_intermediate_size,
                "more than was reserved");
  for (int64_t first = 0; first < num_tokens; first += kSlabRows) {
    const int64_t count = std::min(kSlabRows, num_tokens - first);
    mlp_slab(args.weights, args.x.rows(first, count), args.out.rows(first, count), false, scratch,
             pool);
  }
}

void reference_moe(const MoeArgs& args, const ReferenceScratch& scratch, WorkerPool& pool) {
  const StepLimits& limits = scratch.limits();
  const ExpertLayout& layout = args.table.layout;
  const int64_t num_tokens = args.x.num_rows;
  require_f32(args.x, num_tokens, layout.hidden_size, "x");
  require_f32(args.out, num_tokens, layout.hidden_size, "out");
  AUGUR_REQUIRE(num_tokens <= limits.max_tokens && args.top_k <= limits.top_k &&
                    args.table.num_experts <= limits.num_experts &&
                    layout.hidden_size <= limits.hidden_size &&
                    layout.intermediate_size <= limits.expert_intermediate_size,
                "more than was reserved");
  AUGUR_REQUIRE(args.num_choosable() <= limits.num_experts + limits.num_low_bit_experts &&
                    (args.low_bit.slots == nullptr ||
                     (args.low_bit.layout.hidden_size == layout.hidden_size &&
                      args.low_bit.layout.intermediate_size == layout.intermediate_size)),
                "low-bit experts of another size, or more than were reserved");
  if (args.shared.gate.data != nullptr) {
    require_mlp_shape(args.shared, layout.hidden_size, scratch);
    AUGUR_REQUIRE(args.shared.gate.num_rows <= limits.mlp_intermediate_size,
                  "more than was reserved");
  }
  require_in_range(args.experts, num_tokens * args.top_k, args.num_choosable(), "expert");
  for (int64_t first = 0; first < num_tokens; first += kSlabRows) {
    moe_slab(args, first, std::min(kSlabRows, num_tokens - first), scratch, pool);
  }
}

}  // namespace augur::cpu
