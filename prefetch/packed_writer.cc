#include "prefetch/packed_writer.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "configs/config_error.h"
#include "kernels/require.h"
#include "prefetch/packed_format.h"

namespace augur {
namespace {

using packed::Header;
using packed::IndexEntry;

std::vector<ExpertKey> keys_of(const ExpertStore& store) {
  std::vector<ExpertKey> keys;
  for (int layer = 0; layer < store.num_layers(); ++layer) {
    for (int expert = 0; expert < store.num_experts(layer); ++expert) {
      keys.push_back({layer, expert});
    }
  }
  return keys;
}

Header make_header(const PackedIdentity& identity, const std::vector<IndexEntry>& index) {
  const size_t index_bytes = index.size() * sizeof(IndexEntry);
  Header header = {};
  std::memcpy(header.magic, packed::kMagic, sizeof(header.magic));
  header.version = packed::kVersion;
  header.dtype = packed::kDtypeBf16;
  AUGUR_REQUIRE(identity.weight_layout.size() < sizeof(header.weight_layout),
                identity.weight_layout);
  identity.weight_layout.copy(header.weight_layout, sizeof(header.weight_layout) - 1);
  header.hidden_size = identity.layout.hidden_size;
  header.intermediate_size = identity.layout.intermediate_size;
  header.up_offset = identity.layout.up_offset;
  header.down_offset = identity.layout.down_offset;
  header.block_bytes = identity.layout.block_bytes;
  header.num_layers = static_cast<int64_t>(identity.num_experts.size());
  header.num_experts = static_cast<int64_t>(index.size());
  header.index_offset = packed::kAlignment;
  header.data_offset = packed::align_up(header.index_offset + static_cast<int64_t>(index_bytes));
  header.file_bytes =
      header.data_offset + header.num_experts * packed::align_up(identity.layout.block_bytes);
  header.checkpoint_fingerprint = identity.checkpoint_fingerprint;
  header.index_checksum = XXH3_64bits(index.data(), index_bytes);
  header.header_checksum = XXH3_64bits(&header, offsetof(Header, header_checksum));
  return header;
}

std::vector<IndexEntry> plan_index(const std::vector<ExpertKey>& keys, int64_t block_bytes) {
  const int64_t index_bytes = static_cast<int64_t>(keys.size() * sizeof(IndexEntry));
  int64_t offset = packed::align_up(packed::kAlignment + index_bytes);
  std::vector<IndexEntry> index;
  for (const ExpertKey key : keys) {
    index.push_back({key.layer, key.expert, offset, block_bytes, 0});
    offset += packed::align_up(block_bytes);
  }
  return index;
}

void require_room(const std::filesystem::path& path, int64_t wanted_bytes) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error) throw ConfigError(folder.string(), "cannot be examined: " + error.message());
  if (space.available < static_cast<uintmax_t>(wanted_bytes)) {
    throw ConfigError(path.string(), fmt::format("needs {:.2f} GB; the disk has {:.2f} GB left",
                                                 static_cast<double>(wanted_bytes) * 1e-9,
                                                 static_cast<double>(space.available) * 1e-9));
  }
}

// Threads take experts in order; the first error stops all of them and is thrown again. Checksums
// are written to `index`.
void write_blocks(const OutputFile& file,
                  const ExpertStore& store,
                  const Ops& ops,
                  const PackOptions& options,
                  std::vector<IndexEntry>& index) {
  const int64_t block_bytes = store.layout().block_bytes;
  const int64_t total_bytes = static_cast<int64_t>(index.size()) * block_bytes;
  std::atomic<size_t> next{0};
  std::atomic<int64_t> done_bytes{0};
  std::mutex error_mutex;
  std::exception_ptr error;
  const auto work = [&](bool reports_progress) {
    try {
      // Zeros to the next block's start are part of what is written.
      std::vector<std::byte> block(static_cast<size_t>(packed::align_up(block_bytes)));
      ExpertStore::Scratch scratch;
      for (size_t i = next++; i < index.size(); i = next++) {
        store.read({index[i].layer, index[i].expert}, ops, block.data(), scratch);
        index[i].checksum = XXH3_64bits(block.data(), static_cast<size_t>(block_bytes));
        file.write_at(index[i].offset, block.data(), static_cast<int64_t>(block.size()));
        const int64_t done = done_bytes.fetch_add(block_bytes) + block_bytes;
        if (reports_progress && options.on_progress) options.on_progress(done, total_bytes);
      }
    } catch (...) {
      next = index.size();
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 1; i < options.num_threads; ++i) {
      threads.emplace_back(work, /*reports_progress=*/false);
    }
    work(/*reports_progress=*/true);
  }
  if (error) std::rethrow_exception(error);
  if (options.on_progress) options.on_progress(total_bytes, total_bytes);
}

// Header and index come last: a file without them is refused.
void write_all(const std::filesystem::path& path,
               const ExpertStore& store,
               const Ops& ops,
               const PackedIdentity& identity,
               const PackOptions& options,
               std::vector<IndexEntry>& index) {
  OutputFile file(path);
  write_blocks(file, store, ops, options, index);
  const Header header = make_header(identity, index);
  std::vector<std::byte> front(static_cast<size_t>(header.data_offset));
  std::memcpy(front.data(), &header, sizeof(header));
  std::memcpy(front.data() + header.index_offset, index.data(), index.size() * sizeof(IndexEntry));
  file.write_at(0, front.data(), header.data_offset);
  file.sync();
  file.close();
}

}  // namespace

PackedIdentity packed_identity(const ExpertStore& store, const Ops& ops) {
  PackedIdentity identity;
  identity.layout = store.layout();
  identity.weight_layout = ops.weight_layout();
  for (int layer = 0; layer < store.num_layers(); ++layer) {
    identity.num_experts.push_back(store.num_experts(layer));
  }
  identity.checkpoint_fingerprint = store.fingerprint();
  return identity;
}

int64_t write_packed_file(const std::filesystem::path& path,
                          const ExpertStore& store,
                          const Ops& ops,
                          const PackOptions& options) {
  AUGUR_REQUIRE(ops.uses_host_memory() && !ops.weight_layout().empty(), ops.description());
  if (!options.overwrites && std::filesystem::exists(path)) {
    throw ConfigError(path.string(), "exists already; --overwrite replaces it");
  }
  const PackedIdentity identity = packed_identity(store, ops);
  std::vector<IndexEntry> index = plan_index(keys_of(store), identity.layout.block_bytes);
  AUGUR_REQUIRE(!index.empty(), path.string());
  const int64_t file_bytes = index.back().offset + packed::align_up(identity.layout.block_bytes);
  require_room(path, file_bytes);
  const std::filesystem::path partial = path.string() + ".partial";
  try {
    write_all(partial, store, ops, identity, options, index);
    std::filesystem::rename(partial, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw;
  }
  return file_bytes;
}

std::vector<ExpertKey> find_damaged(
    const PackedFile& packed,
    const std::function<void(int64_t done_bytes, int64_t total_bytes)>& on_progress) {
  const int64_t block_bytes = packed.identity().layout.block_bytes;
  const int64_t total_bytes = static_cast<int64_t>(packed.entries().size()) * block_bytes;
  std::vector<std::byte> block(static_cast<size_t>(block_bytes));
  std::vector<ExpertKey> damaged;
  int64_t done_bytes = 0;
  for (const PackedFile::Entry& entry : packed.entries()) {
    packed.file().read_at(entry.offset, block.data(), block_bytes);
    if (XXH3_64bits(block.data(), block.size()) != entry.checksum) damaged.push_back(entry.key);
    done_bytes += block_bytes;
    if (on_progress) on_progress(done_bytes, total_bytes);
  }
  return damaged;
}

}  // namespace augur
