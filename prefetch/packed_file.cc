#include "prefetch/packed_file.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "configs/config_error.h"
#include "kernels/require.h"
#include "prefetch/packed_format.h"

namespace augur {
namespace {

using packed::Header;
using packed::IndexEntry;

[[noreturn]] void refuse(const File& file, const std::string& what) {
  throw ConfigError(file.path().string(), what);
}

void check(bool is_good, const File& file, const std::string& what) {
  if (!is_good) refuse(file, "is damaged: " + what);
}

Header read_header(const File& file) {
  Header header;
  if (file.num_bytes() < packed::kAlignment) {
    refuse(file, fmt::format("is {} bytes long, less than the header of a packed expert file, {}",
                             file.num_bytes(), packed::kAlignment));
  }
  file.read_at(0, &header, sizeof(header));
  if (std::memcmp(header.magic, packed::kMagic, sizeof(header.magic)) != 0) {
    refuse(file, "is not a packed expert file: it does not begin with AUGURXPT");
  }
  if (header.version != packed::kVersion) {
    refuse(file, fmt::format("is a packed expert file of version {}; accepted: {}", header.version,
                             packed::kVersion));
  }
  const uint64_t checksum = XXH3_64bits(&header, offsetof(Header, header_checksum));
  check(checksum == header.header_checksum, file,
        fmt::format("the header's checksum is {:016x}, {:016x} was written", checksum,
                    header.header_checksum));
  return header;
}

// A checksum can be made to fit: every size is checked all the same, before anything is computed
// from it.
void check_header(const Header& header, const File& file) {
  check(header.dtype == packed::kDtypeBf16, file,
        fmt::format("dtype {}; accepted: {} (bf16)", header.dtype, packed::kDtypeBf16));
  const auto* end = static_cast<const char*>(
      std::memchr(header.weight_layout, '\0', sizeof(header.weight_layout)));
  check(end != nullptr && end != header.weight_layout, file, "the layout has no name");
  check(header.file_bytes >= packed::kAlignment, file,
        fmt::format("the header says {} bytes", header.file_bytes));
  if (file.num_bytes() != header.file_bytes) {
    refuse(file, fmt::format("is {} bytes long, the header says {}: the file was cut short or "
                             "added to",
                             file.num_bytes(), header.file_bytes));
  }
  constexpr int64_t kMaxSize = int64_t{1} << 31;
  check(header.hidden_size > 0 && header.hidden_size < kMaxSize && header.intermediate_size > 0 &&
            header.intermediate_size < kMaxSize,
        file, fmt::format("experts of {} x {}", header.hidden_size, header.intermediate_size));
  check(header.block_bytes > 0 && header.block_bytes <= header.file_bytes, file,
        fmt::format("blocks of {} bytes", header.block_bytes));
  check(0 < header.up_offset && header.up_offset < header.down_offset &&
            header.down_offset < header.block_bytes && header.up_offset % 64 == 0 &&
            header.down_offset % 64 == 0,
        file,
        fmt::format("up at {}, down at {} of {} bytes", header.up_offset, header.down_offset,
                    header.block_bytes));
  check(header.num_layers > 0 && header.num_layers <= packed::kMaxLayers, file,
        fmt::format("{} layers; accepted: 1 to {}", header.num_layers, packed::kMaxLayers));
  check(header.num_experts > 0 &&
            header.num_experts <= header.num_layers * packed::kMaxExpertsPerLayer &&
            header.num_experts <= header.file_bytes / static_cast<int64_t>(sizeof(IndexEntry)) &&
            header.num_experts <= header.file_bytes / header.block_bytes,
        file, fmt::format("{} experts in {} bytes", header.num_experts, header.file_bytes));
  const int64_t index_bytes = header.num_experts * static_cast<int64_t>(sizeof(IndexEntry));
  check(header.index_offset == packed::kAlignment &&
            header.data_offset == packed::align_up(header.index_offset + index_bytes) &&
            header.data_offset < header.file_bytes,
        file, fmt::format("index at {}, blocks at {}", header.index_offset, header.data_offset));
}

std::vector<IndexEntry> read_index(const Header& header, const File& file) {
  std::vector<IndexEntry> index(static_cast<size_t>(header.num_experts));
  const size_t index_bytes = index.size() * sizeof(IndexEntry);
  file.read_at(header.index_offset, index.data(), static_cast<int64_t>(index_bytes));
  const uint64_t checksum = XXH3_64bits(index.data(), index_bytes);
  check(checksum == header.index_checksum, file,
        fmt::format("the index's checksum is {:016x}, {:016x} was written", checksum,
                    header.index_checksum));
  return index;
}

// By layer and expert without gaps, blocks one after another within the file.
void check_index(const std::vector<IndexEntry>& index, const Header& header, const File& file) {
  int64_t earliest = header.data_offset;
  int32_t layer = -1;
  int32_t expert = 0;
  for (const IndexEntry& entry : index) {
    expert = entry.layer == layer ? expert + 1 : 0;
    const bool is_in_order = entry.layer >= layer && entry.layer >= 0 &&
                             entry.layer < header.num_layers && entry.expert == expert &&
                             expert < packed::kMaxExpertsPerLayer;
    const bool is_inside = entry.num_bytes == header.block_bytes && entry.offset >= earliest &&
                           entry.offset % packed::kAlignment == 0 &&
                           entry.offset <= header.file_bytes - header.block_bytes;
    check(is_in_order && is_inside, file,
          fmt::format("the index has expert {} of layer {} in {} bytes at offset {}", entry.expert,
                      entry.layer, entry.num_bytes, entry.offset));
    layer = entry.layer;
    earliest = entry.offset + entry.num_bytes;
  }
}

template <typename T>
void require_same(const T& found, const T& wanted, const char* what, const File& file) {
  if (found == wanted) return;
  refuse(file, fmt::format("was packed for {} {}; accepted: {} (augur-pack writes it anew)", what,
                           found, wanted));
}

}  // namespace

PackedFile::PackedFile(const std::filesystem::path& path) : file_(path) {
  const Header header = read_header(file_);
  check_header(header, file_);
  const std::vector<IndexEntry> index = read_index(header, file_);
  check_index(index, header, file_);

  identity_.layout = {header.hidden_size, header.intermediate_size, header.up_offset,
                      header.down_offset, header.block_bytes};
  identity_.weight_layout = header.weight_layout;
  identity_.checkpoint_fingerprint = header.checkpoint_fingerprint;
  identity_.num_experts.resize(static_cast<size_t>(header.num_layers));
  entries_.reserve(index.size());
  for (const IndexEntry& entry : index) {
    entries_.push_back({{entry.layer, entry.expert}, entry.offset, entry.checksum});
    ++identity_.num_experts[entry.layer];
  }
  int64_t first = 0;
  for (const int32_t count : identity_.num_experts) {
    first_entry_of_.push_back(first);
    first += count;
  }
}

void PackedFile::require_match(const PackedIdentity& wanted) const {
  const ExpertLayout& found = identity_.layout;
  require_same(identity_.weight_layout, wanted.weight_layout, "the weight layout", file_);
  require_same(found.hidden_size, wanted.layout.hidden_size, "hidden size", file_);
  require_same(found.intermediate_size, wanted.layout.intermediate_size, "intermediate size",
               file_);
  require_same(found.up_offset, wanted.layout.up_offset, "up at byte", file_);
  require_same(found.down_offset, wanted.layout.down_offset, "down at byte", file_);
  require_same(found.block_bytes, wanted.layout.block_bytes, "blocks of bytes", file_);
  require_same(identity_.num_experts.size(), wanted.num_experts.size(), "layers:", file_);
  for (size_t layer = 0; layer < wanted.num_experts.size(); ++layer) {
    require_same(identity_.num_experts[layer], wanted.num_experts[layer],
                 fmt::format("experts in layer {}:", layer).c_str(), file_);
  }
  if (identity_.checkpoint_fingerprint != wanted.checkpoint_fingerprint) {
    refuse(file_, fmt::format("was packed from a checkpoint of the same shape with other weights "
                              "(fingerprint {:016x}; accepted: {:016x}; augur-pack writes it anew)",
                              identity_.checkpoint_fingerprint, wanted.checkpoint_fingerprint));
  }
}

const PackedFile::Entry& PackedFile::entry(ExpertKey key) const {
  AUGUR_REQUIRE(key.layer >= 0 && key.layer < std::ssize(identity_.num_experts) &&
                    key.expert >= 0 && key.expert < identity_.num_experts[key.layer],
                fmt::format("expert {} of layer {}", key.expert, key.layer));
  return entries_[first_entry_of_[key.layer] + key.expert];
}

}  // namespace augur
