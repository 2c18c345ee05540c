#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/available_memory.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/logprobs.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/moe.h"
#include "kernels/cpu/norm_rope.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/quantize.h"
#include "kernels/cpu/router.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/tile_layout.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/require.h"

namespace augur {
namespace {

class CpuOps final : public Ops {
 public:
  CpuOps(int num_threads, cpu::Isa isa, bool pin_threads)
      : isa_(isa), pool_(num_threads, pin_threads) {
    (void)cpu::gemm_unit(isa);  // refuses what the machine lacks
  }

  std::string description() const override {
    const int n = pool_.num_threads();
    return "cpu " + std::string(cpu::isa_name(isa_)) + ", " + std::to_string(n) +
           (n == 1 ? " thread" : " threads");
  }
  DType activation_dtype() const override { return DType::kBF16; }

  Buffer allocate(int64_t num_bytes) override { return cpu::allocate_host(num_bytes); }
  Buffer allocate_host(int64_t num_bytes) override { return cpu::allocate_host(num_bytes); }
  int64_t available_bytes() const override { return cpu::available_memory_bytes(); }
  void upload(void* to, const void* from_host, int64_t num_bytes) override {
    if (num_bytes > 0) std::memcpy(to, from_host, num_bytes);
  }
  void download(void* to_host, const void* from, int64_t num_bytes) override {
    if (num_bytes > 0) std::memcpy(to_host, from, num_bytes);
  }
  void synchronize() override {}

  // Operations run one after another, so they share one piece of scratch: the largest.
  int64_t workspace_bytes(const StepLimits& limits) const override {
    const int num_threads = pool_.num_threads();
    const int64_t num_rows = std::max(limits.max_tokens, limits.max_logit_rows);
    const int64_t widest = std::max(
        {limits.hidden_size, limits.num_heads * limits.head_dim, limits.mlp_intermediate_size});
    int64_t bytes = std::max({
        cpu::linear_scratch_bytes(num_rows, widest, isa_),
        cpu::mlp_scratch_bytes(limits.max_tokens, limits.hidden_size, limits.mlp_intermediate_size,
                               isa_),
        cpu::attention_scratch_bytes(limits, isa_, num_threads),
        cpu::logprobs_scratch_bytes(limits.vocab_size, num_threads),
        cpu::sample_scratch_bytes(limits.vocab_size, num_threads),
    });
    if (limits.num_experts > 0) {
      const cpu::MoeLimits moe = {limits.max_tokens,
                                  limits.hidden_size,
                                  limits.expert_intermediate_size,
                                  limits.mlp_intermediate_size,
                                  limits.num_experts + limits.num_low_bit_experts,
                                  limits.top_k,
                                  num_threads};
      bytes = std::max({bytes, cpu::moe_scratch_bytes(moe, isa_),
                        cpu::router_scratch_bytes(limits, num_threads)});
    }
    return bytes;
  }
  void reserve(const StepLimits& limits) override {
    scratch_ = cpu::allocate_host(workspace_bytes(limits));
    limits_ = limits;
  }

  std::string weight_layout() const override { return cpu::kLayoutName; }
  int64_t packed_bytes(MatrixUse use, int64_t num_rows, int64_t num_cols) const override {
    return cpu::tiled_bytes(num_rows, num_cols);
  }
  void pack_rows(MatrixUse use,
                 std::byte* to,
                 int64_t num_rows,
                 int64_t num_cols,
                 int64_t first_row,
                 int64_t count,
                 const Bf16* from_host) const override {
    cpu::pack_rows_tiled(to, num_rows, num_cols, first_row, count, from_host);
  }
  void fill_random(std::byte* to, int64_t num_bytes, float amplitude, uint64_t seed) override {
    cpu::fill_random(to, num_bytes, amplitude, seed);
  }
  bool has_int8_experts() const override { return true; }
  void quantize_expert(const ExpertLayout& from,
                       const std::byte* block,
                       const ExpertLayout& to,
                       std::byte* out) const override {
    cpu::quantize_expert(from, block, to, out);
  }
  bool supports(KvFormat format) const override { return true; }
  int64_t kv_block_bytes(int block_size,
                         int num_kv_heads,
                         int head_dim,
                         KvFormat format) const override {
    return cpu::kv_block_bytes_cpu(block_size, num_kv_heads, head_dim, format);
  }

  void embed(const EmbedArgs& args) override { cpu::embed(args, pool_); }
  void add_rms_norm(const AddRmsNormArgs& args) override { cpu::add_rms_norm(args, isa_, pool_); }
  void linear(const LinearArgs& args) override { cpu::linear(args, isa_, pool_, scratch()); }
  void rope_and_cache(const RopeAndCacheArgs& args) override {
    cpu::rope_and_cache(args, isa_, pool_);
  }
  void attention(const AttentionArgs& args) override {
    AUGUR_REQUIRE(args.q.num_rows <= limits_.max_tokens && args.num_heads <= limits_.num_heads &&
                      args.cache.head_dim <= limits_.head_dim,
                  std::to_string(args.q.num_rows) + " rows of " + std::to_string(args.num_heads) +
                      " heads are beyond what was reserved");
    cpu::attention(args, isa_, pool_, scratch_.data());
  }
  void mlp(const MlpArgs& args) override { cpu::mlp(args, isa_, pool_, scratch()); }
  void router(const RouterArgs& args) override {
    AUGUR_REQUIRE(args.num_experts <= limits_.num_experts,
                  std::to_string(args.num_experts) + " experts are beyond what was reserved");
    cpu::router(args, isa_, pool_, scratch_.data());
  }
  void moe(const MoeArgs& args) override { cpu::moe(args, isa_, pool_, scratch()); }
  void gather_rows(const GatherRowsArgs& args) override { cpu::gather_rows(args, pool_); }
  void logprobs(const LogprobsArgs& args) override { cpu::logprobs(args, pool_, scratch()); }
  void sample(const SampleArgs& args) override { cpu::sample(args, pool_, scratch()); }

 private:
  std::span<std::byte> scratch() const {
    return {scratch_.data(), static_cast<size_t>(scratch_.num_bytes())};
  }

  const cpu::Isa isa_;
  cpu::WorkerPool pool_;
  StepLimits limits_;
  Buffer scratch_;
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops(int num_threads, std::optional<cpu::Isa> isa, bool pin_threads) {
  return std::make_unique<CpuOps>(num_threads, isa.value_or(cpu::best_isa()), pin_threads);
}

}  // namespace augur
