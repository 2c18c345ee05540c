#include "kernels/cpu/memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/ops.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kPageBytes = 4096;
constexpr int64_t kHugePageBytes = int64_t{2} << 20;

int64_t round_up(int64_t num_bytes, int64_t multiple) {
  return (num_bytes + multiple - 1) / multiple * multiple;
}

[[noreturn]] void throw_out_of_memory(int64_t num_bytes) {
  throw OutOfMemory("out of host memory: asked for " + std::to_string(num_bytes) + " bytes");
}

void free_small(void* data, int64_t) noexcept {
  std::free(data);
}

void free_mapped(void* data, int64_t num_bytes) noexcept {
  munmap(data, round_up(num_bytes, kPageBytes));
}

Buffer allocate_small(int64_t num_bytes) {
  void* data = std::aligned_alloc(kAlignment, round_up(num_bytes, kAlignment));
  if (data == nullptr) throw_out_of_memory(num_bytes);
  std::memset(data, 0, num_bytes);
  return {data, num_bytes, free_small};
}

// Maps one huge page more than needed and gives back what lies outside the aligned part.
Buffer allocate_mapped(int64_t num_bytes) {
  const int64_t kept_bytes = round_up(num_bytes, kPageBytes);
  const int64_t mapped_bytes = kept_bytes + kHugePageBytes;
  void* mapped =
      mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw_out_of_memory(num_bytes);
  auto* const start = static_cast<std::byte*>(mapped);
  const int64_t past_alignment = reinterpret_cast<uintptr_t>(start) % kHugePageBytes;
  const int64_t head_bytes = past_alignment == 0 ? 0 : kHugePageBytes - past_alignment;
  const int64_t tail_bytes = kHugePageBytes - head_bytes;
  std::byte* const data = start + head_bytes;
  if (head_bytes > 0) munmap(start, head_bytes);
  if (tail_bytes > 0) munmap(data + kept_bytes, tail_bytes);
  // Advice: refused where transparent huge pages are off, and small pages then do.
  (void)madvise(data, kept_bytes, MADV_HUGEPAGE);
  return {data, num_bytes, free_mapped};
}

}  // namespace

Buffer allocate_host(int64_t num_bytes) {
  AUGUR_REQUIRE(num_bytes >= 0, std::to_string(num_bytes));
  if (num_bytes == 0) return {};
  if (num_bytes < kHugePageBytes) return allocate_small(num_bytes);
  if (num_bytes > std::numeric_limits<int64_t>::max() - 2 * kHugePageBytes) {
    throw_out_of_memory(num_bytes);
  }
  return allocate_mapped(num_bytes);
}

}  // namespace augur::cpu
