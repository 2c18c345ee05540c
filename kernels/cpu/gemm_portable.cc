// Matrix products in plain C++, for machines with nothing wider.
#include "kernels/cpu/gemm_vector.h"

namespace augur::cpu {
namespace {

struct Portable {
  static AUGUR_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
};

}  // namespace

const GemmUnit kPortableGemm = {
    /*token_group=*/1,
    /*panel_group=*/4,
    /*block_bytes=*/256 << 10,
    /*max_int8_tokens=*/INT64_MAX,
    packed_bytes,
    pack_tokens,
    multiply<Portable>,
    /*widen=*/nullptr,
    combine<Portable>};

}  // namespace augur::cpu
