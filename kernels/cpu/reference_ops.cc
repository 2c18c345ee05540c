#include "kernels/cpu/reference_ops.h"

#include <cstring>
#include <string>

#include "kernels/cpu/available_memory.h"
#include "kernels/cpu/logprobs.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/quantize.h"
#include "kernels/cpu/reference_attention.h"
#include "kernels/cpu/reference_dense.h"
#include "kernels/cpu/reference_scratch.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/tile_layout.h"
#include "kernels/cpu/worker_pool.h"

namespace augur {
namespace {

class ReferenceOps final : public Ops {
 public:
  explicit ReferenceOps(int num_threads) : pool_(num_threads) {}

  std::string description() const override {
    const int n = pool_.num_threads();
    return "reference, " + std::to_string(n) + (n == 1 ? " thread" : " threads");
  }
  DType activation_dtype() const override { return DType::kF32; }

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

  int64_t workspace_bytes(const StepLimits& limits) const override {
    return cpu::ReferenceScratch::num_bytes(limits, pool_.num_threads());
  }
  void reserve(const StepLimits& limits) override {
    scratch_ = cpu::ReferenceScratch(limits, pool_.num_threads());
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
    return cpu::reference_kv_block_bytes(block_size, num_kv_heads, head_dim, format);
  }

  void embed(const EmbedArgs& args) override { cpu::reference_embed(args, pool_); }
  void add_rms_norm(const AddRmsNormArgs& args) override {
    cpu::reference_add_rms_norm(args, pool_);
  }
  void linear(const LinearArgs& args) override { cpu::reference_linear(args, scratch_, pool_); }
  void rope_and_cache(const RopeAndCacheArgs& args) override {
    cpu::reference_rope_and_cache(args, scratch_, pool_);
  }
  void attention(const AttentionArgs& args) override {
    cpu::reference_attention(args, scratch_, pool_);
  }
  void mlp(const MlpArgs& args) override { cpu::reference_mlp(args, scratch_, pool_); }
  void router(const RouterArgs& args) override { cpu::reference_router(args, pool_); }
  void moe(const MoeArgs& args) override { cpu::reference_moe(args, scratch_, pool_); }
  void gather_rows(const GatherRowsArgs& args) override { cpu::reference_gather_rows(args, pool_); }
  void logprobs(const LogprobsArgs& args) override {
    cpu::logprobs(args, pool_, scratch_.row_scratch());
  }
  void sample(const SampleArgs& args) override { cpu::sample(args, pool_, scratch_.row_scratch()); }

 private:
  cpu::WorkerPool pool_;
  cpu::ReferenceScratch scratch_;
};

}  // namespace

std::unique_ptr<Ops> make_reference_ops(int num_threads) {
  return std::make_unique<ReferenceOps>(num_threads);
}

}  // namespace augur
