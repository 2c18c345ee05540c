// Matrix products with AVX2 and FMA.
#include <immintrin.h>

#include "kernels/cpu/gemm_vector.h"

namespace augur::cpu {
namespace {

struct Avx2 {
  static AUGUR_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    return _mm256_fmadd_ps(a, b, c);
  }
};

}  // namespace

const GemmUnit kAvx2Gemm = {
    /*token_group=*/1,
    /*panel_group=*/4,
    /*block_bytes=*/256 << 10,
    /*max_int8_tokens=*/INT64_MAX,
    packed_bytes,
    pack_tokens,
    multiply<Avx2>,
    /*widen=*/nullptr,
    combine<Avx2>};

}  // namespace augur::cpu
