// The coarse operations a decoder is made of: one signature, one implementation per backend.
//
// Every operation is asynchronous in principle: it is ordered after those called before it on the
// same Ops, and its results are read on the host through download().
// The CPU backends finish before they return. Sizes may be zero rows: then nothing happens.
// Threading: one thread calls; a backend spreads the work itself.
// Errors: AUGUR_REQUIRE (std::logic_error) for a broken requirement; OutOfMemory from allocate.
//
// Batch invariance: a row of the result depends on that row's inputs alone, bit for bit, never on
// what the other rows or sequences of the call hold. In the CPU backends it does not depend on how
// many there are either: the engine's promise that chunking and batching do not change an answer
// rests on this. CUDA chooses kernels by the number of rows, so there it holds among calls of as
// many rows (StepBatch says how a decode step is padded to a few sizes).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

#include "kernels/bf16.h"
#include "kernels/buffer.h"
#include "kernels/kv_format.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"
#include "kernels/weights.h"

namespace augur {

class OutOfMemory : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The largest step an Ops will be asked to run; scratch memory is sized from it, once.
struct StepLimits {
  int64_t max_tokens = 0;      // rows of one step
  int64_t max_seqs = 0;        // sequences of one step
  int64_t max_logit_rows = 0;  // rows of one lm_head call
  int64_t max_context = 0;     // positions of one sequence
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t mlp_intermediate_size = 0;     // the largest dense or shared MLP
  int64_t expert_intermediate_size = 0;  // 0 without experts
  int64_t num_experts = 0;
  int64_t top_k = 0;
  int64_t num_low_bit_experts = 0;  // of MoeArgs::low_bit; 0: never given
};

/// Row i of `out` becomes the embedding of token_ids[i].
///   table        [vocab, hidden]     packed
///   token_ids    [num_tokens]        i32, each in [0, vocab), or ~r: then it is sampled_ids[r]
///   sampled_ids  i32, or null: what an earlier step drew, so that a step can be queued before the
///                host has seen the tokens of the one before
///   out          [num_tokens, hidden] f32
struct EmbedArgs {
  PackedMatrix table;
  const int32_t* token_ids = nullptr;
  const int32_t* sampled_ids = nullptr;
  Tensor out;

  /// For backends whose memory the host reads.
  int32_t token_of(int64_t row_idx) const {
    const int32_t id = token_ids[row_idx];
    return id < 0 && sampled_ids != nullptr ? sampled_ids[~id] : id;
  }
};

/// hidden += delta (where given), then out = hidden / rms(hidden) * weight.
///   hidden   [num_tokens, hidden]  f32, in and out
///   delta    [num_tokens, hidden]  f32 or intermediate dtype, or absent
///   weight   [hidden]              f32
///   out      [num_tokens, hidden]  activation dtype
///   out_f32  [num_tokens, hidden]  f32, or absent: the same before rounding, for the router
/// Source: Zhang and Sennrich 2019, arXiv:1910.07467.
struct AddRmsNormArgs {
  Tensor hidden;
  Tensor delta;
  const float* weight = nullptr;
  float eps = 0;
  Tensor out;
  Tensor out_f32;
};

/// out = x * weight^T + bias.
///   x       [num_tokens, in]   activation dtype
///   weight  [out, in]          packed
///   bias    [out]              f32, or null
///   out     [num_tokens, out]  f32, or intermediate or activation dtype
struct LinearArgs {
  Tensor x;
  PackedMatrix weight;
  const float* bias = nullptr;
  Tensor out;
};

/// The key and value blocks of one layer. A block holds `block_size` positions of every KV head,
/// kv_block_bytes() long; the layout inside is the backend's. Block b lies at data + b * that.
/// block_size is a multiple of 16, which every backend takes.
struct KvCacheLayer {
  std::byte* data = nullptr;
  int64_t num_blocks = 0;
  int block_size = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  KvFormat format = KvFormat::kNative;
};

/// cos and sin per position, [max_positions, rotary_dim / 2] each, f32, any scaling folded in.
/// Source: Su et al. 2021, arXiv:2104.09864.
struct RopeTable {
  const float* cos = nullptr;
  const float* sin = nullptr;
  int rotary_dim = 0;           // even, <= head_dim; the first rotary_dim values of a head turn
  bool is_interleaved = false;  // pairs (2i, 2i + 1); otherwise (i, i + rotary_dim / 2)
};

/// Splits qkv, normalises q and k per head where weights are given, turns them by position, and
/// writes k and v to the cache.
///   qkv        [num_tokens, (num_heads + 2 num_kv_heads) * head_dim]  f32 or intermediate dtype:
///              q heads, k heads, v heads
///   q_norm, k_norm  [head_dim]  f32, or null
///   positions  [num_tokens]  i32
///   kv_slots   [num_tokens]  i64: block * block_size + offset, all different; -1: a row that pads
///              the step, whose k and v go nowhere
///   q_out      [num_tokens, num_heads * head_dim]  activation dtype
struct RopeAndCacheArgs {
  Tensor qkv;
  int num_heads = 0;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float norm_eps = 0;
  RopeTable rope;
  const int32_t* positions = nullptr;
  const int64_t* kv_slots = nullptr;
  KvCacheLayer cache;
  Tensor q_out;
};

/// The sequences of a step, in the backend's memory. Rows of a sequence are consecutive, its
/// last row is position context_len - 1, and each row sees the positions up to its own.
///   query_start  [num_seqs + 1]  i32: rows [query_start[s], query_start[s + 1]) are sequence s
///   context_len  [num_seqs]      i32: positions in the cache, this step's included; 0: a sequence
///                that pads the step, whose rows of the result are zero
///   block_table  [num_seqs, block_table_stride]  i32: the sequence's blocks in order
/// The first num_decode_seqs sequences have one row each.
struct AttentionBatch {
  int num_seqs = 0;
  int64_t num_tokens = 0;
  const int32_t* query_start = nullptr;
  const int32_t* context_len = nullptr;
  const int32_t* block_table = nullptr;
  int64_t block_table_stride = 0;
  int num_decode_seqs = 0;
};

/// Causal grouped-query attention over the paged cache: out = softmax(scale q k^T) v.
///   q    [num_tokens, num_heads * head_dim]  activation dtype
///   out  [num_tokens, num_heads * head_dim]  activation dtype
/// num_heads is a multiple of the cache's num_kv_heads. Source: Ainslie et al. 2023,
/// arXiv:2305.13245; paging: Kwon et al. 2023, arXiv:2309.06180.
struct AttentionArgs {
  Tensor q;
  int num_heads = 0;
  float scale = 0;
  KvCacheLayer cache;
  AttentionBatch batch;
  Tensor out;
};

/// out = down(silu(gate x) * (up x)).
///   x    [num_tokens, hidden]  activation dtype
///   out  [num_tokens, hidden]  f32 or intermediate dtype
struct MlpArgs {
  Tensor x;
  MlpWeights weights;
  Tensor out;
};

enum class RouterScoring : uint8_t {
  kSoftmax,  // scores = softmax(logits)
  kSigmoid,  // scores = sigmoid(logits)
};

/// Scores every expert and chooses top_k of them per token, all in float32.
///   x           [num_tokens, hidden]       f32
///   weight      [num_experts, hidden]      f32, row-major
///   correction  [num_experts]              f32, or null: added to the scores for choosing only
///   forced      [num_tokens, top_k]        i32, or null: experts to take instead of choosing, for
///               replaying recorded routing; their weights are computed as if chosen
///   num_valid   i32, or null: rows from *num_valid on pad the step; their experts are -1. Only
///               backends that record() are given padded steps
///   experts     [num_tokens, top_k]        i32 out, by falling choice score, ties to the lower
///               index
///   weights     [num_tokens, top_k]        f32 out: the scores of the chosen, divided by their sum
///               (+ 1e-20 for sigmoid) when normalise_top_k, times scaling_factor
///   logits      [num_tokens, num_experts]  f32 out, or absent
/// With num_groups > 1 only the experts of the top_groups groups with the largest sum of their
/// two best choice scores compete. Sources: Shazeer et al. 2017, arXiv:1701.06538; DeepSeek-V3
/// 2024, arXiv:2412.19437, section 2.1.2 (correction bias, groups).
struct RouterArgs {
  Tensor x;
  const float* weight = nullptr;
  const float* correction = nullptr;
  RouterScoring scoring = RouterScoring::kSoftmax;
  int num_experts = 0;
  int top_k = 0;
  int num_groups = 1;
  int top_groups = 1;
  bool normalise_top_k = true;
  float scaling_factor = 1;
  const int32_t* forced = nullptr;
  const int32_t* num_valid = nullptr;
  int32_t* experts = nullptr;
  float* weights = nullptr;
  Tensor logits;
};

/// Brings a layer's experts into their slots while the moe operation runs, where the slots are
/// fewer than the experts. What order they come in does not change the result, bit for bit.
class ExpertFeed {
 public:
  virtual ~ExpertFeed() = default;
  /// Some rows need these experts, each named once, in rising order. Called once for each part
  /// that an operation cuts its rows into; the part before is done with its experts.
  virtual void begin(std::span<const int32_t> experts) = 0;
  /// Which of them to run next: at least one, each only once until all were named. The table says
  /// where they are until the next call of next() or begin(), or the end of the operation. Waits
  /// where it must. What it throws passes through the operation, whose result is then undefined.
  virtual std::span<const int32_t> next() = 0;
};

/// out = sum over the chosen experts of weight * expert(x), in the order of choice, plus
/// shared(x) where given.
///   x        [num_tokens, hidden]  activation dtype
///   experts  [num_tokens, top_k]   i32, as the router wrote them; -1 adds nothing;
///            table.num_experts + e is expert e of low_bit, so that each choice says which form
///            of an expert serves it
///   weights  [num_tokens, top_k]   f32
///   table    the experts, in either format
///   low_bit  a second form of them in slots of its own, of any format and number but the same
///            sizes; slots == nullptr: none. Only backends that has_int8_experts() take one, or an
///            int8 table
///   feed     null: every expert chosen is in its slot. Only backends whose memory the host reads
///            take one
///   out      [num_tokens, hidden]  f32 or intermediate dtype
struct MoeArgs {
  Tensor x;
  const int32_t* experts = nullptr;
  const float* weights = nullptr;
  int top_k = 0;
  ExpertTable table;
  ExpertTable low_bit;
  MlpWeights shared;  // shared.gate.data == nullptr: no shared expert
  ExpertFeed* feed = nullptr;
  Tensor out;

  /// Numbers that `experts` may hold: [0, num_choosable()).
  int num_choosable() const {
    return table.num_experts + (low_bit.slots == nullptr ? 0 : low_bit.num_experts);
  }
  /// The table that such a number means, and which of its experts.
  const ExpertTable& table_of(int32_t choice) const {
    return choice < table.num_experts ? table : low_bit;
  }
  int32_t expert_of(int32_t choice) const {
    return choice < table.num_experts ? choice : choice - table.num_experts;
  }
};

/// out row i = x row rows[i].
struct GatherRowsArgs {
  Tensor x;
  const int32_t* rows = nullptr;  // [out.num_rows]
  Tensor out;                     // dtype of x
};

/// Log-softmax of each row, read at some places.
///   logits          [num_rows, vocab]  f32
///   targets         [num_rows]         i32, -1: that of sampled_ids, or none without them
///   sampled_ids     [num_rows]         i32, or null
///   target_logprob  [num_rows]         f32 out
///   top_ids, top_logprobs  [num_rows, top_n]  out, by falling logit, ties to the lower id; top_n
///   may be 0
struct LogprobsArgs {
  Tensor logits;
  const int32_t* targets = nullptr;
  float* target_logprob = nullptr;
  int top_n = 0;
  int32_t* top_ids = nullptr;
  float* top_logprobs = nullptr;
  const int32_t* sampled_ids = nullptr;

  /// For backends whose memory the host reads.
  int32_t target_of(int64_t row_idx) const {
    const int32_t id = targets[row_idx];
    return id < 0 && sampled_ids != nullptr ? sampled_ids[row_idx] : id;
  }
};

/// Operations recorded once, to be run again on the same memory.
class RecordedOps {
 public:
  virtual ~RecordedOps() = default;
  /// Queues all of them, in their order.
  virtual void run() = 0;
};

class Ops {
 public:
  virtual ~Ops() = default;

  /// For people: "cpu avx512, 2 threads", "reference, 2 threads".
  virtual std::string description() const = 0;
  /// What norms, attention and activations are rounded to: kBF16, or kF32 for the reference.
  virtual DType activation_dtype() const = 0;
  /// What the inner results of a layer are kept in: kF32, or kBF16 where memory traffic counts
  /// more than the rounding (qkv, and what a half-layer adds to the residual stream).
  virtual DType intermediate_dtype() const { return DType::kF32; }

  // Memory. Buffers are 64-byte aligned and zeroed; large ones use huge pages where there are any.
  virtual Buffer allocate(int64_t num_bytes) = 0;
  /// Host memory that upload and download reach without a detour: page-locked where that matters.
  virtual Buffer allocate_host(int64_t num_bytes) = 0;
  /// Bytes that allocate() may still hand out.
  virtual int64_t available_bytes() const = 0;
  /// `from_host` may be used again at once.
  virtual void upload(void* to, const void* from_host, int64_t num_bytes) = 0;
  /// `to_host` is filled once synchronize() or wait(a later mark()) has returned.
  virtual void download(void* to_host, const void* from, int64_t num_bytes) = 0;
  /// Waits for all that was queued, weights being packed too.
  virtual void synchronize() = 0;
  /// A place in the order of operations, and waiting until all before it is done. Only the last
  /// eight marks can be waited for.
  virtual uint64_t mark() { return 0; }
  virtual void wait(uint64_t mark) {}

  /// Whether allocate() takes from the memory that this process and others live in.
  virtual bool uses_host_memory() const { return true; }
  /// What the backend takes besides what allocate() and reserve() are asked for.
  virtual int64_t own_bytes() const { return int64_t{128} << 20; }

  virtual int64_t default_tokens_per_step() const { return 2048; }
  /// Positions of a KV block. Requests that begin alike share whole blocks, so small ones share more;
  /// attention may be slower for it.
  virtual int default_kv_block_size() const { return 16; }
  /// What a step's activations and scratch may take, and a chunk of logits: past some size more
  /// rows bring no speed, and on a CPU they leave the caches.
  virtual int64_t max_step_bytes() const { return int64_t{128} << 20; }
  virtual int64_t max_logit_bytes() const { return int64_t{8} << 20; }

  /// Why steps within these limits cannot run here, for people; empty when they can.
  virtual std::string why_unsupported(const StepLimits& limits) const { return {}; }

  /// Bytes of scratch that reserve() will allocate for these limits.
  virtual int64_t workspace_bytes(const StepLimits& limits) const = 0;
  /// Allocates the scratch; operations allocate nothing afterwards. Called once, before any
  /// operation.
  virtual void reserve(const StepLimits& limits) = 0;

  // Weights. A matrix is packed for one use and serves no other.
  /// Names how pack_rows lays out matrices for mlp and moe: equal names, equal bytes, so that
  /// weights packed by one program can be read by another. Up to 47 characters. Empty: packed
  /// weights of this backend are not to be kept.
  virtual std::string weight_layout() const { return {}; }
  virtual int64_t packed_bytes(MatrixUse use, int64_t num_rows, int64_t num_cols) const = 0;
  /// Packs rows [first_row, first_row + count) of a matrix from row-major host memory. May be
  /// called from several threads for different rows; `to` is the whole matrix's memory, zeroed
  /// before.
  virtual void pack_rows(MatrixUse use,
                         std::byte* to,
                         int64_t num_rows,
                         int64_t num_cols,
                         int64_t first_row,
                         int64_t count,
                         const Bf16* from_host) const = 0;
  /// Fills packed weights with bf16 values drawn evenly from [-amplitude, amplitude], to measure
  /// speed without a checkpoint.
  virtual void fill_random(std::byte* to, int64_t num_bytes, float amplitude, uint64_t seed) = 0;
  /// Whether quantize_expert, and int8 experts in moe, work here.
  virtual bool has_int8_experts() const { return false; }
  /// Makes the int8 form of a packed expert: per output row scale = max |w| / 127, each weight the
  /// nearest multiple of it (ties to even), so that it is off by at most scale / 2. A row of zeros
  /// has scale 0; in one with a weight that is not finite, none is.
  ///   from, block  a bf16 block in host memory
  ///   to, out      an int8 layout of the same sizes; all of its block_bytes are written
  /// Several threads may call, for different `out`. Requires has_int8_experts(), both blocks
  /// 64-byte aligned.
  virtual void quantize_expert(const ExpertLayout& from,
                               const std::byte* block,
                               const ExpertLayout& to,
                               std::byte* out) const;

  /// Whether rope_and_cache and attention take a cache of this format.
  virtual bool supports(KvFormat format) const { return format == KvFormat::kNative; }
  /// Requires supports(format).
  virtual int64_t kv_block_bytes(int block_size,
                                 int num_kv_heads,
                                 int head_dim,
                                 KvFormat format) const = 0;

  virtual void embed(const EmbedArgs& args) = 0;
  virtual void add_rms_norm(const AddRmsNormArgs& args) = 0;
  virtual void linear(const LinearArgs& args) = 0;
  virtual void rope_and_cache(const RopeAndCacheArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void mlp(const MlpArgs& args) = 0;
  virtual void router(const RouterArgs& args) = 0;
  virtual void moe(const MoeArgs& args) = 0;
  virtual void gather_rows(const GatherRowsArgs& args) = 0;
  virtual void logprobs(const LogprobsArgs& args) = 0;
  virtual void sample(const SampleArgs& args) = 0;

  /// Records what `operations` calls on this Ops, without running it. Their arguments are kept:
  /// run() reads what then lies in the same memory. Null where the backend has no use for it.
  virtual std::unique_ptr<RecordedOps> record(const std::function<void()>& operations) {
    return nullptr;
  }
};

/// Offsets of one expert's block for this backend. Requires has_int8_experts() for kInt8.
ExpertLayout expert_layout(const Ops& ops,
                           int64_t hidden_size,
                           int64_t intermediate_size,
                           ExpertFormat format = ExpertFormat::kBF16);

}  // namespace augur
