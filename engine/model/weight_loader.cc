#include "engine/model/weight_loader.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/model/rope.h"
#include "kernels/cpu/memory.h"
#include "kernels/require.h"
#include "prefetch/expert_store.h"

namespace augur {
namespace {

// One piece of work: rows of one matrix, or one expert.
struct Piece {
  const TensorSource* source = nullptr;  // null: an expert
  MatrixUse use = MatrixUse::kProjection;
  std::byte* to = nullptr;
  int64_t num_rows = 0;    // of the packed matrix, which may hold several sources
  int64_t row_offset = 0;  // where the source's row 0 lies in it
  int64_t first_row = 0;   // of the source
  int64_t count = 0;
  ExpertKey expert;
  const ExpertLayout* int8 = nullptr;  // of the expert's block; null: bf16
  int64_t stored_bytes = 0;
};

MatrixUse use_of(WeightRole role) {
  switch (kind_of(role)) {
    case WeightKind::kDenseMlp:
    case WeightKind::kSharedExperts:
    case WeightKind::kExperts:
      return MatrixUse::kMlp;
    default:
      return MatrixUse::kProjection;
  }
}

// Small enough to stay in a core's L2 cache between reading and packing.
constexpr int64_t kPieceBytes = 512 << 10;

struct LoaderScratch {
  std::vector<Bf16> rows;
  std::vector<std::byte> stored;
  ExpertStore::Scratch expert;
  Buffer block;  // of an expert in bf16, to be kept in int8
};

// Of an expert's block in each format; that of int8 is empty where the backend has none.
struct ExpertLayouts {
  ExpertLayout bf16;
  ExpertLayout int8;
};

// Uniform in [-a, a] with a^2 / 3 = 1 / num_inputs: products keep the scale of their inputs.
float random_amplitude(int64_t num_inputs) {
  return std::sqrt(3.0f / static_cast<float>(num_inputs));
}

// Lays weights out in the backend's memory and collects what is to be read where. Without a
// checkpoint it fills them with random values instead, and norms with ones.
class Builder {
 public:
  Builder(const ModelConfig& config,
          const Checkpoint* checkpoint,
          const WeightPlan& plan,
          const ExpertLayouts& layouts,
          std::span<const ExpertFormat> formats,
          Ops& ops,
          ModelWeights& weights)
      : config_(config),
        checkpoint_(checkpoint),
        plan_(plan),
        layouts_(layouts),
        formats_(formats),
        ops_(ops),
        weights_(weights) {}

  void build();
  std::vector<Piece>& pieces() { return pieces_; }

 private:
  PackedMatrix matrix(MatrixUse use, std::initializer_list<const TensorSource*> sources);
  PackedMatrix matrix(const RoleSources& sources, WeightRole role) {
    return matrix(use_of(role), {&sources[role]});
  }
  const float* floats(std::initializer_list<const TensorSource*> sources);
  const float* floats(const RoleSources& sources, WeightRole role) {
    return floats({&sources[role]});
  }
  bool is_int8(int layer_idx) const {
    return !formats_.empty() && formats_[layer_idx] == ExpertFormat::kInt8;
  }
  void build_expert_slots();
  void build_layer(int layer_idx);
  void build_experts(int layer_idx);
  void add_expert_pieces(int layer_idx,
                         const std::function<std::byte*(int expert_idx)>& block,
                         const ExpertLayout* int8);

  const ModelConfig& config_;
  const Checkpoint* checkpoint_;
  const WeightPlan& plan_;
  const ExpertLayouts& layouts_;
  const std::span<const ExpertFormat> formats_;
  Ops& ops_;
  ModelWeights& weights_;
  std::vector<Piece> pieces_;
  // Layers with experts that were built, in all and by the format they are kept in.
  int num_moe_built_ = 0;
  int num_bf16_built_ = 0;
  int num_int8_built_ = 0;
};

PackedMatrix Builder::matrix(MatrixUse use, std::initializer_list<const TensorSource*> sources) {
  int64_t num_rows = 0;
  const int64_t num_cols = (*sources.begin())->num_cols;
  for (const TensorSource* source : sources) num_rows += source->num_rows;
  weights_.buffers.push_back(ops_.allocate(ops_.packed_bytes(use, num_rows, num_cols)));
  std::byte* to = weights_.buffers.back().data();
  if (checkpoint_ == nullptr) {
    ops_.fill_random(to, weights_.buffers.back().num_bytes(), random_amplitude(num_cols),
                     /*seed=*/weights_.buffers.size());
    return {to, num_rows, num_cols};
  }
  int64_t row_offset = 0;
  for (const TensorSource* source : sources) {
    const int64_t row_bytes = num_cols * weight_format_bytes(source->format);
    const int64_t rows_per_piece = std::max<int64_t>(1, kPieceBytes / row_bytes);
    for (int64_t first = 0; first < source->num_rows; first += rows_per_piece) {
      const int64_t count = std::min(rows_per_piece, source->num_rows - first);
      pieces_.push_back({.source = source,
                         .use = use,
                         .to = to,
                         .num_rows = num_rows,
                         .row_offset = row_offset,
                         .first_row = first,
                         .count = count,
                         .stored_bytes = count * row_bytes});
    }
    row_offset += source->num_rows;
  }
  return {to, num_rows, num_cols};
}

// Routers random, norms and biases of ones.
std::vector<float> generated_floats(const TensorSource& source) {
  std::vector<float> values(source.num_values(), 1.0f);
  if (source.num_cols == 1) return values;
  std::minstd_rand generator(static_cast<uint32_t>(source.offset + 1));
  const float amplitude = random_amplitude(source.num_cols);
  std::uniform_real_distribution<float> uniform(-amplitude, amplitude);
  for (float& value : values) value = uniform(generator);
  return values;
}

// Vectors and routers: small, exact in float32, read at once.
const float* Builder::floats(std::initializer_list<const TensorSource*> sources) {
  if (!(*sources.begin())->is_present()) return nullptr;
  std::vector<float> values;
  for (const TensorSource* source : sources) {
    const std::vector<float> part =
        checkpoint_ != nullptr ? read_as_float(checkpoint_->files()[source->file_idx], *source)
                               : generated_floats(*source);
    values.insert(values.end(), part.begin(), part.end());
  }
  const auto num_bytes = static_cast<int64_t>(values.size() * sizeof(float));
  weights_.buffers.push_back(ops_.allocate(num_bytes));
  ops_.upload(weights_.buffers.back().data(), values.data(), num_bytes);
  return weights_.buffers.back().as<float>();
}

void Builder::build() {
  weights_.embedding = matrix(plan_.sources, WeightRole::kEmbedding);
  weights_.lm_head =
      config_.tie_word_embeddings ? weights_.embedding : matrix(plan_.sources, WeightRole::kLmHead);
  weights_.final_norm = floats(plan_.sources, WeightRole::kFinalNorm);
  if (config_.moe.num_experts > 0 && weights_.expert_memory == nullptr) build_expert_slots();
  weights_.layers.resize(config_.num_layers());
  for (int layer_idx = 0; layer_idx < config_.num_layers(); ++layer_idx) build_layer(layer_idx);
}

void Builder::build_expert_slots() {
  int num_bf16 = 0;
  int num_int8 = 0;
  for (int layer_idx = 0; layer_idx < config_.num_layers(); ++layer_idx) {
    if (config_.layers[layer_idx] == LayerKind::kMoe) ++(is_int8(layer_idx) ? num_int8 : num_bf16);
  }
  const int num_experts = config_.moe.num_experts;
  if (num_bf16 > 0) {
    weights_.expert_slots =
        std::make_unique<ExpertSlots>(ops_, layouts_.bf16, num_bf16, num_experts);
  }
  if (num_int8 > 0) {
    weights_.int8_expert_slots =
        std::make_unique<ExpertSlots>(ops_, layouts_.int8, num_int8, num_experts);
  }
  if (checkpoint_ == nullptr && num_bf16 > 0) {
    ops_.fill_random(weights_.expert_slots->block(0, 0),
                     ExpertSlots::num_bytes(layouts_.bf16, num_bf16, num_experts),
                     random_amplitude(config_.hidden_size), /*seed=*/0);
  }
}

void Builder::build_layer(int layer_idx) {
  const LayerPlan& plan = plan_.layers[layer_idx];
  const RoleSources& sources = plan.sources;
  LayerWeights& layer = weights_.layers[layer_idx];
  layer.input_norm = floats(sources, WeightRole::kInputNorm);
  layer.post_attention_norm = floats(sources, WeightRole::kPostAttentionNorm);
  layer.qkv = matrix(
      MatrixUse::kProjection,
      {&sources[WeightRole::kQuery], &sources[WeightRole::kKey], &sources[WeightRole::kValue]});
  layer.qkv_bias = floats({&sources[WeightRole::kQueryBias], &sources[WeightRole::kKeyBias],
                           &sources[WeightRole::kValueBias]});
  layer.output = matrix(sources, WeightRole::kOutput);
  layer.output_bias = floats(sources, WeightRole::kOutputBias);
  layer.q_norm = floats(sources, WeightRole::kQueryNorm);
  layer.k_norm = floats(sources, WeightRole::kKeyNorm);
  if (config_.layers[layer_idx] == LayerKind::kDense) {
    layer.mlp = {matrix(sources, WeightRole::kGate), matrix(sources, WeightRole::kUp),
                 matrix(sources, WeightRole::kDown)};
    return;
  }
  layer.moe.router = floats(sources, WeightRole::kRouter);
  layer.moe.correction = floats(sources, WeightRole::kCorrectionBias);
  if (config_.moe.shared_intermediate_size > 0) {
    layer.moe.shared = {matrix(sources, WeightRole::kSharedGate),
                        matrix(sources, WeightRole::kSharedUp),
                        matrix(sources, WeightRole::kSharedDown)};
  }
  build_experts(layer_idx);
}

void Builder::build_experts(int layer_idx) {
  const int moe_layer_idx = num_moe_built_++;
  ExpertTable& table = weights_.layers[layer_idx].moe.experts;
  if (weights_.expert_memory != nullptr) {
    table = weights_.expert_memory->table(layer_idx);
    LowBitExperts* const copies = weights_.low_bit_experts.get();
    if (copies == nullptr) return;
    add_expert_pieces(
        layer_idx, [&](int expert_idx) { return copies->block(moe_layer_idx, expert_idx); },
        &layouts_.int8);
    return;
  }
  const bool is_kept_in_int8 = is_int8(layer_idx);
  ExpertSlots& slots = is_kept_in_int8 ? *weights_.int8_expert_slots : *weights_.expert_slots;
  const int slots_idx = is_kept_in_int8 ? num_int8_built_++ : num_bf16_built_++;
  table = slots.table(slots_idx);
  if (checkpoint_ == nullptr) return;
  add_expert_pieces(
      layer_idx, [&](int expert_idx) { return slots.block(slots_idx, expert_idx); },
      is_kept_in_int8 ? &layouts_.int8 : nullptr);
}

void Builder::add_expert_pieces(int layer_idx,
                                const std::function<std::byte*(int expert_idx)>& block,
                                const ExpertLayout* int8) {
  for (int expert_idx = 0; expert_idx < config_.moe.num_experts; ++expert_idx) {
    pieces_.push_back({.to = block(expert_idx),
                       .expert = {layer_idx, expert_idx},
                       .int8 = int8,
                       .stored_bytes = plan_.layers[layer_idx].experts[expert_idx].num_bytes()});
  }
}

void read_expert(const Piece& piece,
                 const ExpertStore& experts,
                 const Ops& ops,
                 LoaderScratch& scratch) {
  if (piece.int8 == nullptr) {
    experts.read(piece.expert, ops, piece.to, scratch.expert);
    return;
  }
  if (scratch.block.data() == nullptr) {
    scratch.block = cpu::allocate_host(experts.layout().block_bytes);
  }
  experts.read(piece.expert, ops, scratch.block.data(), scratch.expert);
  ops.quantize_expert(experts.layout(), scratch.block.data(), *piece.int8, piece.to);
}

void read_piece(const Piece& piece,
                const Checkpoint& checkpoint,
                const ExpertStore& experts,
                const Ops& ops,
                LoaderScratch& scratch) {
  if (piece.source == nullptr) {
    read_expert(piece, experts, ops, scratch);
    return;
  }
  const int64_t num_cols = piece.source->num_cols;
  scratch.rows.resize(piece.count * num_cols);
  read_rows_as_bf16(checkpoint.files()[piece.source->file_idx], *piece.source, piece.first_row,
                    piece.count, scratch.rows.data(), scratch.stored);
  ops.pack_rows(piece.use, piece.to, piece.num_rows, num_cols, piece.row_offset + piece.first_row,
                piece.count, scratch.rows.data());
}

// Threads take pieces in order; the first error stops all of them and is thrown again.
void read_pieces(std::vector<Piece>& pieces,
                 const Checkpoint& checkpoint,
                 const ExpertStore& experts,
                 const Ops& ops,
                 int num_threads,
                 const LoadProgress& progress) {
  int64_t total_bytes = 0;
  for (const Piece& piece : pieces) total_bytes += piece.stored_bytes;
  std::atomic<size_t> next_piece{0};
  std::atomic<int64_t> done_bytes{0};
  std::mutex error_mutex;
  std::exception_ptr error;

  const auto work = [&](bool reports_progress) {
    LoaderScratch scratch;
    try {
      for (size_t i = next_piece++; i < pieces.size(); i = next_piece++) {
        read_piece(pieces[i], checkpoint, experts, ops, scratch);
        const int64_t done = done_bytes.fetch_add(pieces[i].stored_bytes) + pieces[i].stored_bytes;
        if (reports_progress && progress) progress(done, total_bytes);
      }
    } catch (...) {
      next_piece = pieces.size();
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < num_threads; ++i) threads.emplace_back(work, /*reports_progress=*/false);
  work(/*reports_progress=*/true);
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  if (progress) progress(total_bytes, total_bytes);
}

void load_rope(const ModelConfig& config, Ops& ops, int64_t max_context, ModelWeights& weights) {
  const RopeTableData table = make_rope_table(config.rope, max_context);
  const int64_t half_bytes = table.num_bytes() / 2;
  weights.buffers.push_back(ops.allocate(table.num_bytes()));
  std::byte* data = weights.buffers.back().data();
  ops.upload(data, table.cos.data(), half_bytes);
  ops.upload(data + half_bytes, table.sin.data(), half_bytes);
  weights.rope = {.cos = reinterpret_cast<const float*>(data),
                  .sin = reinterpret_cast<const float*>(data + half_bytes),
                  .rotary_dim = table.rotary_dim,
                  .is_interleaved = config.rope.is_interleaved};
}

ExpertLayouts layouts_of_experts(const ModelConfig& config, const Ops& ops) {
  if (config.moe.num_experts == 0) return {};
  const auto layout = [&](ExpertFormat format) {
    return expert_layout(ops, config.hidden_size, config.moe.intermediate_size, format);
  };
  return {.bf16 = layout(ExpertFormat::kBF16),
          .int8 = ops.has_int8_experts() ? layout(ExpertFormat::kInt8) : ExpertLayout{}};
}

}  // namespace

int64_t packed_weight_bytes(const ModelConfig& config, const Ops& ops, int64_t max_context) {
  int64_t total = max_context * config.rope.rotary_dim * 4;
  visit_wanted_tensors(config, [&](const WantedTensor& tensor) {
    const bool is_float = tensor.num_cols == 0 || tensor.role == WeightRole::kRouter;
    total += is_float ? tensor.num_rows * std::max<int64_t>(1, tensor.num_cols) * 4
                      : ops.packed_bytes(use_of(tensor.role), tensor.num_rows, tensor.num_cols);
    return true;
  });
  return total;
}

int64_t packed_expert_bytes(const ModelConfig& config, const Ops& ops) {
  if (config.moe.num_experts == 0) return 0;
  return layouts_of_experts(config, ops).bf16.block_bytes * config.num_moe_layers() *
         config.moe.num_experts;
}

ModelWeights load_weights(const ModelConfig& config,
                          const Checkpoint& checkpoint,
                          const WeightPlan& plan,
                          Ops& ops,
                          int64_t max_context,
                          int num_threads,
                          ExpertPlaces places,
                          const LoadProgress& progress) {
  AUGUR_REQUIRE(places.formats.empty() || places.formats.size() == config.layers.size(),
                std::to_string(places.formats.size()) + " formats");
  const ExpertLayouts layouts = layouts_of_experts(config, ops);
  const ExpertStore experts(checkpoint.files(), layouts.bf16, expert_sources(plan));
  ModelWeights weights;
  weights.expert_memory = std::move(places.memory);
  weights.low_bit_experts = std::move(places.low_bit);
  Builder builder(config, &checkpoint, plan, layouts, places.formats, ops, weights);
  builder.build();
  load_rope(config, ops, max_context, weights);
  read_pieces(builder.pieces(), checkpoint, experts, ops, num_threads, progress);
  ops.synchronize();
  return weights;
}

ModelWeights generate_weights(const ModelConfig& config, Ops& ops, int64_t max_context) {
  const WeightPlan plan = shapes_only_plan(config);
  ModelWeights weights;
  const ExpertLayouts layouts = layouts_of_experts(config, ops);
  Builder builder(config, /*checkpoint=*/nullptr, plan, layouts, /*formats=*/{}, ops, weights);
  builder.build();
  load_rope(config, ops, max_context, weights);
  ops.synchronize();
  return weights;
}

}  // namespace augur
