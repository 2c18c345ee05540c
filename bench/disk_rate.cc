#include "bench/disk_rate.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <stdexcept>

#include "kernels/cpu/memory.h"
#include "prefetch/block_reader.h"
#include "prefetch/direct_file.h"

namespace augur {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSeconds = 0.2;

}  // namespace

double direct_read_rate(const File& file, int64_t read_bytes, int depth) {
  const DirectFile direct(file);
  const int64_t num_places = (file.num_bytes() - read_bytes) / kDirectAlignment;
  if (!direct.is_open() || num_places <= 0) return 0;
  const std::unique_ptr<BlockReader> reader = make_block_reader(ReadMethod::kAuto, depth);
  const Buffer memory = cpu::allocate_host(std::max(depth * read_bytes, int64_t{2} << 20));
  std::mt19937_64 random(2);
  const auto begin = [&](int tag) {
    const auto place = static_cast<int64_t>(random() % static_cast<uint64_t>(num_places));
    reader->begin({direct.descriptor(), &file.path(), place * kDirectAlignment, read_bytes,
                   memory.data() + tag * read_bytes, tag});
  };
  int64_t num_bytes = 0;
  int num_under_way = 0;
  for (; num_under_way < depth; ++num_under_way) begin(num_under_way);
  const Clock::time_point start = Clock::now();
  double seconds = 0;
  bool has_failed = false;
  while (num_under_way > 0) {
    for (const BlockReadEnd& end : reader->wait(/*blocks=*/true)) {
      --num_under_way;
      has_failed |= end.num_bytes < 0;
      if (has_failed || seconds >= kSeconds) continue;
      num_bytes += end.num_bytes;
      begin(end.tag);
      ++num_under_way;
    }
    if (seconds < kSeconds) seconds = std::chrono::duration<double>(Clock::now() - start).count();
  }
  if (has_failed) throw std::runtime_error("cannot read " + file.path().string());
  return static_cast<double>(num_bytes) / seconds;
}

}  // namespace augur
