// Makes packed files of a checkpoint's experts, and checks their blocks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "prefetch/expert_store.h"
#include "prefetch/packed_file.h"

namespace augur {

struct PackOptions {
  bool overwrites = false;  // an existing file; otherwise it is refused
  int num_threads = 1;      // that read, pack and write
  std::function<void(int64_t done_bytes, int64_t total_bytes)> on_progress;  // or empty; one thread
};

/// What a file packed from `store` for `ops` is.
PackedIdentity packed_identity(const ExpertStore& store, const Ops& ops);

/// Writes the experts of `store` as `ops` lays them out. The file appears under its name when it
/// is complete and on the disk; until then it is beside it as NAME.partial, removed on errors.
/// Throws ConfigError when there is a file already, a disk that has not the room, or a file that
/// cannot be read or written. Requires a backend whose memory the host reads and whose layout has
/// a name, and a store with experts. Returns the file's length.
int64_t write_packed_file(const std::filesystem::path& path,
                          const ExpertStore& store,
                          const Ops& ops,
                          const PackOptions& options);

/// Reads every block and returns those whose checksum is not the index's. Throws ConfigError when
/// one cannot be read.
std::vector<ExpertKey> find_damaged(
    const PackedFile& packed,
    const std::function<void(int64_t done_bytes, int64_t total_bytes)>& on_progress);

}  // namespace augur
