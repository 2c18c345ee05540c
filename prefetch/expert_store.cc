#include "prefetch/expert_store.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "configs/config_error.h"
#include "kernels/require.h"

namespace augur {
namespace {

// Rows are read and packed in pieces of about this size, so that packing finds them in the
// second-level cache.
constexpr int64_t kPieceBytes = int64_t{512} << 10;
// Pieces begin at multiples of this many rows, whole tiles for every backend, where so many fit;
// otherwise at multiples of the smallest tile's.
constexpr int64_t kRowAlignment = 64;
constexpr int64_t kSmallRowAlignment = 16;
// What direct I/O wants offsets and lengths to be a multiple of.
constexpr int64_t kBlockAlignment = 4096;
constexpr int64_t kFingerprintBytes = 4096;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

int64_t rows_per_chunk(const TensorSource& matrix, int64_t max_bytes) {
  const int64_t row_bytes = matrix.num_cols * weight_format_bytes(matrix.format);
  const int64_t num_rows = max_bytes / row_bytes;
  for (const int64_t alignment : {kRowAlignment, kSmallRowAlignment}) {
    if (num_rows >= alignment) return num_rows / alignment * alignment;
  }
  return std::max<int64_t>(num_rows, 1);
}

int64_t num_matrix_chunks(const TensorSource& matrix, int64_t max_bytes) {
  return ceil_div(matrix.num_rows, rows_per_chunk(matrix, max_bytes));
}

ExpertChunk matrix_chunk(const TensorSource& matrix,
                         int64_t block_offset,
                         int64_t chunk_idx,
                         int64_t max_bytes) {
  const int64_t rows = rows_per_chunk(matrix, max_bytes);
  const int64_t row_bytes = matrix.num_cols * weight_format_bytes(matrix.format);
  ExpertChunk chunk;
  chunk.file_idx = matrix.file_idx;
  chunk.matrix = &matrix;
  chunk.first_row = chunk_idx * rows;
  chunk.num_rows = std::min(rows, matrix.num_rows - chunk.first_row);
  chunk.offset = matrix.offset + chunk.first_row * row_bytes;
  chunk.num_bytes = chunk.num_rows * row_bytes;
  chunk.block_offset = block_offset;
  return chunk;
}

int64_t packed_chunk_bytes(int64_t max_bytes) {
  return max_bytes / kBlockAlignment * kBlockAlignment;
}

template <typename T>
void grow(std::vector<T>& values, int64_t size) {
  if (static_cast<int64_t>(values.size()) < size) values.resize(static_cast<size_t>(size));
}

}  // namespace

std::string describe(ExpertKey key) {
  return fmt::format("expert {} of layer {}", key.expert, key.layer);
}

ExpertStore::ExpertStore(std::span<const File> files,
                         const ExpertLayout& layout,
                         std::vector<std::vector<ExpertSource>> sources)
    : files_(files), layout_(layout), sources_(std::move(sources)) {
  const auto check = [&](const TensorSource& matrix, int64_t num_rows, int64_t num_cols) {
    AUGUR_REQUIRE(matrix.file_idx >= 0 && matrix.file_idx < static_cast<int64_t>(files_.size()),
                  "file " + std::to_string(matrix.file_idx));
    AUGUR_REQUIRE(matrix.num_rows == num_rows && matrix.num_cols == num_cols,
                  std::to_string(matrix.num_rows) + " x " + std::to_string(matrix.num_cols));
  };
  for (const std::vector<ExpertSource>& layer : sources_) {
    num_experts_.push_back(static_cast<int>(layer.size()));
    for (const ExpertSource& expert : layer) {
      check(expert.gate, layout_.intermediate_size, layout_.hidden_size);
      check(expert.up, layout_.intermediate_size, layout_.hidden_size);
      check(expert.down, layout_.hidden_size, layout_.intermediate_size);
    }
  }
}

ExpertStore::ExpertStore(const PackedFile& packed)
    : files_(&packed.file(), 1),
      layout_(packed.identity().layout),
      num_experts_(packed.identity().num_experts.begin(), packed.identity().num_experts.end()),
      packed_(&packed) {}

bool ExpertStore::has(ExpertKey key) const {
  return key.layer >= 0 && key.layer < num_layers() && key.expert >= 0 &&
         key.expert < num_experts_[key.layer];
}

void ExpertStore::require(ExpertKey key) const {
  AUGUR_REQUIRE(has(key), describe(key));
}

int64_t ExpertStore::stored_bytes(ExpertKey key) const {
  require(key);
  return packed_ != nullptr ? layout_.block_bytes : sources_[key.layer][key.expert].num_bytes();
}

int ExpertStore::num_chunks(ExpertKey key, int64_t max_bytes) const {
  require(key);
  AUGUR_REQUIRE(max_bytes >= kBlockAlignment, std::to_string(max_bytes));
  if (packed_ != nullptr) {
    return static_cast<int>(ceil_div(layout_.block_bytes, packed_chunk_bytes(max_bytes)));
  }
  const ExpertSource& expert = sources_[key.layer][key.expert];
  return static_cast<int>(num_matrix_chunks(expert.gate, max_bytes) +
                          num_matrix_chunks(expert.up, max_bytes) +
                          num_matrix_chunks(expert.down, max_bytes));
}

ExpertChunk ExpertStore::chunk(ExpertKey key, int chunk_idx, int64_t max_bytes) const {
  AUGUR_REQUIRE(chunk_idx >= 0 && chunk_idx < num_chunks(key, max_bytes),
                fmt::format("chunk {} of {}", chunk_idx, describe(key)));
  if (packed_ != nullptr) {
    const int64_t chunk_bytes = packed_chunk_bytes(max_bytes);
    ExpertChunk chunk;
    chunk.block_offset = chunk_idx * chunk_bytes;
    chunk.offset = packed_->entry(key).offset + chunk.block_offset;
    chunk.num_bytes = std::min(chunk_bytes, layout_.block_bytes - chunk.block_offset);
    return chunk;
  }
  const ExpertSource& expert = sources_[key.layer][key.expert];
  int64_t idx = chunk_idx;
  const int64_t num_gate = num_matrix_chunks(expert.gate, max_bytes);
  if (idx < num_gate) return matrix_chunk(expert.gate, 0, idx, max_bytes);
  idx -= num_gate;
  const int64_t num_up = num_matrix_chunks(expert.up, max_bytes);
  if (idx < num_up) return matrix_chunk(expert.up, layout_.up_offset, idx, max_bytes);
  return matrix_chunk(expert.down, layout_.down_offset, idx - num_up, max_bytes);
}

int64_t ExpertStore::largest_chunk_bytes(int64_t max_bytes) const {
  int64_t largest = 0;
  for (int layer = 0; layer < num_layers(); ++layer) {
    for (int expert = 0; expert < num_experts_[layer]; ++expert) {
      const ExpertKey key = {layer, expert};
      if (packed_ != nullptr) return chunk(key, 0, max_bytes).num_bytes;
      const ExpertSource& source = sources_[layer][expert];
      for (const TensorSource* matrix : {&source.gate, &source.up, &source.down}) {
        largest = std::max(largest, matrix_chunk(*matrix, 0, 0, max_bytes).num_bytes);
      }
    }
  }
  return largest;
}

void ExpertStore::place(const ExpertChunk& chunk,
                        const std::byte* stored,
                        const Ops& ops,
                        std::byte* block,
                        std::span<Bf16> rows) const {
  if (chunk.is_verbatim()) {
    std::copy_n(stored, chunk.num_bytes, block + chunk.block_offset);
    return;
  }
  const TensorSource& matrix = *chunk.matrix;
  const auto* values = reinterpret_cast<const Bf16*>(stored);
  const bool is_aligned = reinterpret_cast<uintptr_t>(stored) % alignof(Bf16) == 0;
  if (matrix.format != WeightFormat::kBF16 || !is_aligned) {
    const int64_t num_values = chunk.num_rows * matrix.num_cols;
    AUGUR_REQUIRE(static_cast<int64_t>(rows.size()) >= num_values, std::to_string(rows.size()));
    convert_to_bf16(stored, matrix.format, num_values, rows.data());
    values = rows.data();
  }
  ops.pack_rows(MatrixUse::kMlp, block + chunk.block_offset, matrix.num_rows, matrix.num_cols,
                chunk.first_row, chunk.num_rows, values);
}

void ExpertStore::read(ExpertKey key, const Ops& ops, std::byte* block, Scratch& scratch) const {
  const int count = num_chunks(key, kPieceBytes);
  for (int i = 0; i < count; ++i) {
    const ExpertChunk piece = chunk(key, i, kPieceBytes);
    const File& file = files_[piece.file_idx];
    if (piece.is_verbatim()) {
      file.read_at(piece.offset, block + piece.block_offset, piece.num_bytes);
      continue;
    }
    grow(scratch.stored, piece.num_bytes);
    if (piece.matrix->format != WeightFormat::kBF16) {
      grow(scratch.rows, piece.num_rows * piece.matrix->num_cols);
    }
    file.read_at(piece.offset, scratch.stored.data(), piece.num_bytes);
    place(piece, scratch.stored.data(), ops, block, scratch.rows);
  }
  const std::optional<uint64_t> wanted = checksum(key);
  if (!wanted) return;
  const uint64_t found = XXH3_64bits(block, static_cast<size_t>(layout_.block_bytes));
  if (found != *wanted) {
    throw ConfigError(
        packed_->file().path().string(),
        fmt::format("{} at offset {} is damaged: checksum {:016x}, {:016x} was written",
                    describe(key), packed_->entry(key).offset, found, *wanted));
  }
}

std::optional<uint64_t> ExpertStore::checksum(ExpertKey key) const {
  require(key);
  if (packed_ == nullptr) return {};
  return packed_->entry(key).checksum;
}

uint64_t ExpertStore::fingerprint() const {
  if (packed_ != nullptr) return packed_->identity().checkpoint_fingerprint;
  std::vector<std::byte> sample(kFingerprintBytes);
  uint64_t hash = 0;
  const auto add = [&](const TensorSource& matrix) {
    const int64_t num_bytes = std::min(kFingerprintBytes, matrix.num_bytes());
    files_[matrix.file_idx].read_at(matrix.offset, sample.data(), num_bytes);
    hash = XXH3_64bits_withSeed(sample.data(), static_cast<size_t>(num_bytes),
                                hash + static_cast<uint64_t>(matrix.format));
  };
  for (const std::vector<ExpertSource>& layer : sources_) {
    if (layer.empty()) continue;
    for (const ExpertSource* expert : {&layer.front(), &layer.back()}) {
      add(expert->gate);
      add(expert->up);
      add(expert->down);
    }
  }
  return hash;
}

}  // namespace augur
