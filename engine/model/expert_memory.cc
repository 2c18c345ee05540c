#include "engine/model/expert_memory.h"

#include <algorithm>

#include "kernels/require.h"

namespace augur {

ExpertMemory::ExpertMemory(const ModelConfig& config,
                           const ExpertLayout& layout,
                           Ops& ops,
                           const Parts& parts)
    : layout_(layout),
      num_experts_(static_cast<int>(config.moe.num_experts)),
      slots_(ops.allocate(parts.num_slots * layout.block_bytes)),
      counters_(config.num_layers(), num_experts_),
      fetcher_(parts.make_fetcher({slots_.data(), layout.block_bytes, parts.num_slots})),
      num_rows_(num_experts_),
      num_decode_rows_(num_experts_) {
  AUGUR_REQUIRE(ops.uses_host_memory(), "the host cannot fill the memory of this backend");
  const ExpertPoolShape shape = {.num_layers = config.num_layers(),
                                 .num_moe_layers = config.num_moe_layers(),
                                 .num_experts = num_experts_,
                                 .num_slots = parts.num_slots,
                                 .top_k = config.moe.top_k};
  const double uses_per_token = static_cast<double>(shape.num_moe_layers) * shape.top_k;
  pool_ = std::make_unique<ExpertPool>(shape, parts.make_policy(parts.num_slots, uses_per_token),
                                       *fetcher_, counters_);
}

ExpertMemory::~ExpertMemory() = default;

ExpertTable ExpertMemory::table(int layer) const {
  ExpertTable table;
  table.slots = slots_.data();
  table.layout = layout_;
  table.slot_of_expert = pool_->slots_of(layer);
  table.num_experts = num_experts_;
  return table;
}

void ExpertMemory::start_prefetching(Prefetching prefetching) {
  prefetching_ = std::move(prefetching);
}

void ExpertMemory::on_step(const StepRows& rows) {
  end_layer();  // of a step that failed
  num_tokens_ = rows.num_tokens;
  num_decode_tokens_ = rows.num_decode_tokens;
  step_start_ = std::chrono::steady_clock::now();
  pool_->poll();
  if (prefetching_.planner != nullptr) prefetching_.planner->on_step(rows);
}

void ExpertMemory::on_routing(const RoutingView& routing) {
  layer_ = routing.layer_idx;
  std::fill(num_rows_.begin(), num_rows_.end(), 0);
  std::fill(num_decode_rows_.begin(), num_decode_rows_.end(), 0);
  for (int64_t row = 0; row < routing.num_tokens; ++row) {
    for (int i = 0; i < routing.top_k; ++i) {
      const int32_t expert = routing.experts[row * routing.top_k + i];
      ++num_rows_[expert];
      num_decode_rows_[expert] += row < num_decode_tokens_;
    }
  }
  // A small step runs in one part: what it misses is asked for before what may be wanted later.
  if (routing.num_tokens <= kMaxGuessedRows && !has_substitutes_) {
    wanted_.clear();
    for (int32_t expert = 0; expert < num_experts_; ++expert) {
      if (num_rows_[expert] > 0) wanted_.push_back(expert);
    }
    pool_->begin(layer_, wanted_, num_rows_, num_decode_rows_);
    is_begun_ = true;
  }
  if (prefetching_.planner != nullptr) prefetching_.planner->on_routing(routing);
}

void ExpertMemory::begin(std::span<const int32_t> experts) {
  AUGUR_REQUIRE(layer_ >= 0, "no layer's routing was told");
  if (is_begun_) {
    AUGUR_REQUIRE(std::equal(experts.begin(), experts.end(), wanted_.begin(), wanted_.end()),
                  "the layer wants other experts than its routing");
    return;
  }
  pool_->end();
  pool_->begin(layer_, experts, num_rows_, num_decode_rows_);
}

std::span<const int32_t> ExpertMemory::next() {
  return pool_->next();
}

void ExpertMemory::end_layer() {
  pool_->end();
  layer_ = -1;
  is_begun_ = false;
}

void ExpertMemory::on_step_end() {
  pool_->end_step(num_decode_tokens_ > 0);
  if (prefetching_.planner != nullptr) prefetching_.planner->on_step_end();
  if (prefetching_.budget != nullptr) {
    const std::chrono::duration<double, std::micro> elapsed =
        std::chrono::steady_clock::now() - step_start_;
    prefetching_.budget->on_step_end(elapsed.count(), num_tokens_);
  }
}

ExpertPlace ExpertMemory::PoolSink::place(ExpertKey key) const {
  const ExpertPool& pool = *memory_.pool_;
  return pool.is_resident(key)   ? ExpertPlace::kResident
         : pool.is_fetching(key) ? ExpertPlace::kOnTheWay
                                 : ExpertPlace::kAbsent;
}

bool ExpertMemory::PoolSink::prefetch(ExpertKey key, FetchPriority priority, double) {
  return memory_.pool_->prefetch(key, priority) != PrefetchResult::kNoRoom;
}

void ExpertMemory::PoolSink::on_stale(ExpertKey key) {
  memory_.pool_->give_up_prefetch(key);
}

}  // namespace augur
