#include "prefetch/expert_store.h"

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/require.h"

namespace augur {
namespace {

// Rows are read and packed in pieces of about this size, so that packing finds them in the
// second-level cache.
constexpr int64_t kPieceBytes = int64_t{512} << 10;
// Pieces begin at multiples of this many rows, whole tiles for every backend.
constexpr int64_t kRowAlignment = 64;

std::string describe(ExpertKey key) {
  return "expert " + std::to_string(key.expert) + " of layer " + std::to_string(key.layer);
}

}  // namespace

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
    for (const ExpertSource& expert : layer) {
      check(expert.gate, layout_.intermediate_size, layout_.hidden_size);
      check(expert.up, layout_.intermediate_size, layout_.hidden_size);
      check(expert.down, layout_.hidden_size, layout_.intermediate_size);
    }
  }
}

bool ExpertStore::has(ExpertKey key) const {
  return key.layer >= 0 && key.layer < num_layers() && key.expert >= 0 &&
         key.expert < num_experts(key.layer);
}

const ExpertSource& ExpertStore::source(ExpertKey key) const {
  AUGUR_REQUIRE(has(key), describe(key));
  return sources_[key.layer][key.expert];
}

int64_t ExpertStore::stored_bytes(ExpertKey key) const {
  return source(key).num_bytes();
}

void ExpertStore::read(ExpertKey key, const Ops& ops, std::byte* block, Scratch& scratch) const {
  const ExpertSource& expert = source(key);
  read_matrix(expert.gate, ops, block, scratch);
  read_matrix(expert.up, ops, block + layout_.up_offset, scratch);
  read_matrix(expert.down, ops, block + layout_.down_offset, scratch);
}

void ExpertStore::read_matrix(const TensorSource& source,
                              const Ops& ops,
                              std::byte* to,
                              Scratch& scratch) const {
  const int64_t row_bytes = source.num_cols * static_cast<int64_t>(sizeof(Bf16));
  const int64_t rows_per_piece =
      std::max(kPieceBytes / row_bytes / kRowAlignment * kRowAlignment, kRowAlignment);
  const int64_t piece_values = std::min(rows_per_piece, source.num_rows) * source.num_cols;
  if (static_cast<int64_t>(scratch.rows.size()) < piece_values) {
    scratch.rows.resize(static_cast<size_t>(piece_values));
  }
  for (int64_t row = 0; row < source.num_rows; row += rows_per_piece) {
    const int64_t count = std::min(rows_per_piece, source.num_rows - row);
    read_rows_as_bf16(files_[source.file_idx], source, row, count, scratch.rows.data(),
                      scratch.stored);
    ops.pack_rows(MatrixUse::kMlp, to, source.num_rows, source.num_cols, row, count, scratch.rows.data());
  }
}

}  // namespace augur
