#include "bench/cpu_peak.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "kernels/cpu/memory.h"

namespace augur::cpu {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr int kRounds = 200'000;

// Ten independent sums cover the latency of two multipliers.
__attribute__((target("avx2,fma"))) double avx2_round_flops() {
  __m256 sums[10];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  __m256 a = _mm256_set1_ps(1e-3f), b = _mm256_set1_ps(1e-3f);
  for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 10
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(a, b, sum);
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (__m256 sum : sums) asm volatile("" : : "x"(sum));
  return 10.0 * 8 * 2 * kRounds;
}

__attribute__((target("avx512f,avx512bf16"))) double avx512_round_flops() {
  __m512 sums[20];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  __m512i a = _mm512_set1_epi32(0x3c003c00), b = a;
  for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 20
    for (__m512& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
    }
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (__m512 sum : sums) asm volatile("" : : "v"(sum));
  return 20.0 * 32 * 2 * kRounds;
}

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t num_rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kTileConfig;  // static: the intrinsic declares a read of eight bytes only

__attribute__((target("amx-tile,amx-bf16"))) double amx_round_flops() {
  _tile_loadconfig(&kTileConfig);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  // Not zeros: with those the units draw less power, and a throttled core looks like a fast one.
  alignas(64) uint16_t values[16 * 32];
  for (int i = 0; i < 16 * 32; ++i)
    values[i] = static_cast<uint16_t>(0x3c00 | (i * 40503 & 0x807f));
  _tile_loadd(4, values, 64);
  _tile_loadd(5, values, 64);
  constexpr int kAmxRounds = kRounds / 8;  // 64 cycles each
  for (int round = 0; round < kAmxRounds; ++round) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_release();
  return 4.0 * 16 * 16 * 32 * 2 * kAmxRounds;
}

double round_flops(Isa isa) {
  switch (isa) {
    case Isa::kAmx:
      return amx_round_flops();
    case Isa::kAvx512:
      return avx512_round_flops();
    case Isa::kAvx2:
      return avx2_round_flops();
    case Isa::kPortable:
      break;
  }
  return 0;
}

// Sums 64-byte lines, four streams abreast.
__attribute__((target("avx2"))) uint64_t read_all(const std::byte* from, int64_t num_bytes) {
  __m256i sums[4] = {};
  const int64_t quarter = num_bytes / 4;
  for (int64_t at = 0; at < quarter; at += 64) {
    for (int i = 0; i < 4; ++i) {
      const auto* line = reinterpret_cast<const __m256i*>(from + i * quarter + at);
      sums[i] = _mm256_xor_si256(sums[i], _mm256_load_si256(line));
      sums[i] = _mm256_xor_si256(sums[i], _mm256_load_si256(line + 1));
    }
  }
  const __m256i sum =
      _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(sum, 0));
}

}  // namespace

double peak_flops(Isa isa, WorkerPool& pool) {
  if (isa == Isa::kPortable) return 0;
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const double start = seconds_now();
    // As many chunks as threads, each long: every thread gets one.
    pool.parallel_for(pool.num_threads(), [&](int64_t, int) { round_flops(isa); });
    const double seconds = seconds_now() - start;
    best = std::max(best, round_flops(isa) * pool.num_threads() / seconds);
  }
  return best;
}

double read_bandwidth(WorkerPool& pool) {
  constexpr int64_t kBytes = int64_t{512} << 20;
  constexpr int64_t kChunkBytes = 1 << 20;
  static const Buffer memory = [] {
    Buffer buffer = allocate_host(kBytes);
    std::memset(buffer.data(), 1, kBytes);
    return buffer;
  }();
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const double start = seconds_now();
    pool.parallel_for(kBytes / kChunkBytes, [&](int64_t chunk_idx, int) {
      volatile uint64_t sink = read_all(memory.data() + chunk_idx * kChunkBytes, kChunkBytes);
      (void)sink;
    });
    best = std::max(best, kBytes / (seconds_now() - start));
  }
  return best;
}

}  // namespace augur::cpu
