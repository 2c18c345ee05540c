// Thin wrappers of the PTX instructions that CUDA C++ has no words for.
//
// Source: PTX ISA 8.x. Those marked sm_90 need compute capability 9.0; the rest 8.0.
// Addresses named `smem` are shared-memory addresses as smem_address gives them.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace augur::cuda {

__device__ __forceinline__ uint32_t smem_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// --- Programmatic dependent launch (sm_90; nothing before it)
// -------------------------------------

/// Until here a kernel may run while the kernels before it in the stream still do: it reads only
/// what no kernel writes (weights) and writes nothing. Every thread block calls it once, before its
/// first other access to memory, also if it then has nothing to do.
__device__ __forceinline__ void wait_for_previous_kernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Lets the next kernel of the stream start as soon as every block has called this or ended.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// --- Asynchronous copies, 16 bytes a thread
// -------------------------------------------------------

/// Copies 16 bytes past the first-level cache, or writes zeros where !is_valid.
__device__ __forceinline__ void copy_async_16(uint32_t smem,
                                              const void* from,
                                              bool is_valid = true) {
  const int source_bytes = is_valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(smem), "l"(from),
               "r"(source_bytes)
               : "memory");
}
__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

// --- Matrix fragments of one warp
// -----------------------------------------------------------------

/// Four 8x8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrix_x4(uint32_t (&r)[4], uint32_t smem) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem)
               : "memory");
}
__device__ __forceinline__ void load_matrix_x4_transposed(uint32_t (&r)[4], uint32_t smem) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem)
               : "memory");
}

/// d[16, 8] += a[16, 16] * b[16, 8]. With g = lane / 4 and t = lane % 4, each register holds two
/// neighbours: a[0] = (g, 2t), a[1] = (g + 8, 2t), a[2] = (g, 2t + 8), a[3] = (g + 8, 2t + 8);
/// b[0] = rows 2t of column g, b[1] = rows 2t + 8; d[0..1] = (g, 2t), d[2..3] = (g + 8, 2t).
__device__ __forceinline__ void mma_16x8x16(float (&d)[4],
                                            const uint32_t (&a)[4],
                                            uint32_t b0,
                                            uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two floats rounded to bf16, `low` in the low half: the lower column of a fragment.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

/// 16 bytes that will not be read again, past the first-level cache.
__device__ __forceinline__ uint4 load_streaming(const void* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

// --- Barriers in shared memory that count bytes (sm_90)
// -------------------------------------------

__device__ __forceinline__ void barrier_init(uint32_t smem_barrier, uint32_t num_arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(smem_barrier), "r"(num_arrivals)
               : "memory");
}
/// Makes barrier_init visible to the copy engine; then synchronise the block.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t smem_barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(smem_barrier) : "memory");
}
/// One arrival, and `num_bytes` more that copies will bring before the phase is complete.
__device__ __forceinline__ void barrier_arrive_expect(uint32_t smem_barrier, uint32_t num_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(smem_barrier),
               "r"(num_bytes)
               : "memory");
}
/// Arrives once the calling thread's copy_async_16 so far have landed. The arrival is one of those
/// counted by barrier_init.
__device__ __forceinline__ void barrier_arrive_after_copies(uint32_t smem_barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(smem_barrier)
               : "memory");
}
/// Waits until the phase of the given parity has completed; a new barrier is in phase 0.
__device__ __forceinline__ void barrier_wait(uint32_t smem_barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni finished;\n"
      "bra.uni again;\n"
      "finished:\n}\n" ::"r"(smem_barrier),
      "r"(parity)
      : "memory");
}

// --- Bulk copies by the copy engine (sm_90)
// -------------------------------------------------------

/// A hint for weights read once per step: evicted first from L2.
inline constexpr uint64_t kEvictFirst = 0x12F0000000000000;
/// A hint for what other blocks will read soon: evicted last from L2.
inline constexpr uint64_t kEvictLast = 0x14F0000000000000;

/// Copies num_bytes (a multiple of 16; both ends 16-byte aligned) and counts them at the barrier.
__device__ __forceinline__ void bulk_copy(uint32_t smem,
                                          const void* from,
                                          uint32_t num_bytes,
                                          uint32_t smem_barrier,
                                          uint64_t cache_hint) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;\n" ::"r"(smem),
      "l"(from), "r"(num_bytes), "r"(smem_barrier), "l"(cache_hint)
      : "memory");
}
/// The same to the same place of every block of the cluster whose bit is set in block_mask; counted
/// at each one's barrier.
__device__ __forceinline__ void bulk_copy_multicast(uint32_t smem,
                                                    const void* from,
                                                    uint32_t num_bytes,
                                                    uint32_t smem_barrier,
                                                    uint16_t block_mask,
                                                    uint64_t cache_hint) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      ".L2::cache_hint [%0], [%1], %2, [%3], %4, %5;\n" ::"r"(smem),
      "l"(from), "r"(num_bytes), "r"(smem_barrier), "h"(block_mask), "l"(cache_hint)
      : "memory");
}

/// Ordinary writes to shared memory become visible to wgmma and to bulk copies.
__device__ __forceinline__ void fence_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

// --- Warpgroups (sm_90a)
// --------------------------------------------------------------------------

/// Registers of each thread of the warpgroup, a multiple of 8. All four warps call it.
template <int kRegisters>
__device__ __forceinline__ void give_up_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

/// Barrier `id` (1 to 15) for num_threads threads of the block.
__device__ __forceinline__ void named_barrier(int id, int num_threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(num_threads) : "memory");
}

/// The operand of wgmma at `smem`: rows of 64 bf16 (128 bytes) in the 128-byte swizzle, 16-byte
/// chunk j of row i at j ^ (i % 8), rows consecutive, K along the row; eight rows take 1,024 bytes
/// and the operand starts at a multiple of that. The next 16 columns are at smem + 32.
__device__ __forceinline__ uint64_t smem_descriptor(uint32_t smem) {
  constexpr uint64_t kRowGroupStride = 1024 >> 4;
  constexpr uint64_t kSwizzle128 = 1;
  return static_cast<uint64_t>((smem & 0x3FFFF) >> 4) | uint64_t{1} << 16 | kRowGroupStride << 32 |
         kSwizzle128 << 62;
}

}  // namespace augur::cuda
