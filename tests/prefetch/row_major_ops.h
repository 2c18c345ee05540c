// A backend that packs weights by copying them and computes nothing.
#pragma once

#include <cstring>
#include <stdexcept>

#include "kernels/ops.h"

namespace augur {

class RowMajorOps : public Ops {
 public:
  std::string description() const override { return "row-major copies"; }
  DType activation_dtype() const override { return DType::kBF16; }
  int64_t packed_bytes(MatrixUse use, int64_t num_rows, int64_t num_cols) const override {
    return (num_rows * num_cols * 2 + 63) / 64 * 64;
  }
  void pack_rows(MatrixUse use,
                 std::byte* to,
                 int64_t num_rows,
                 int64_t num_cols,
                 int64_t first_row,
                 int64_t count,
                 const Bf16* from_host) const override {
    if (first_row < 0 || first_row + count > num_rows) throw std::logic_error("rows");
    std::memcpy(to + first_row * num_cols * 2, from_host,
                static_cast<size_t>(count * num_cols * 2));
  }

  Buffer allocate(int64_t) override { refuse(); }
  Buffer allocate_host(int64_t) override { refuse(); }
  void fill_random(std::byte*, int64_t, float, uint64_t) override { refuse(); }
  int64_t available_bytes() const override { refuse(); }
  void upload(void*, const void*, int64_t) override { refuse(); }
  void download(void*, const void*, int64_t) override { refuse(); }
  void synchronize() override { refuse(); }
  int64_t workspace_bytes(const StepLimits&) const override { refuse(); }
  void reserve(const StepLimits&) override { refuse(); }
  int64_t kv_block_bytes(int, int, int, KvFormat) const override { refuse(); }
  void embed(const EmbedArgs&) override { refuse(); }
  void add_rms_norm(const AddRmsNormArgs&) override { refuse(); }
  void linear(const LinearArgs&) override { refuse(); }
  void rope_and_cache(const RopeAndCacheArgs&) override { refuse(); }
  void attention(const AttentionArgs&) override { refuse(); }
  void mlp(const MlpArgs&) override { refuse(); }
  void router(const RouterArgs&) override { refuse(); }
  void moe(const MoeArgs&) override { refuse(); }
  void gather_rows(const GatherRowsArgs&) override { refuse(); }
  void logprobs(const LogprobsArgs&) override { refuse(); }
  void sample(const SampleArgs&) override { refuse(); }

 private:
  [[noreturn]] static void refuse() { throw std::logic_error("this backend only packs"); }
};

}  // namespace augur
