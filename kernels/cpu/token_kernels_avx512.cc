// The kernels of token_kernels.h for AVX-512 with BF16.
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/norm_rope_rows.h"
#include "kernels/cpu/router_tile.h"
#include "kernels/cpu/vec_avx512.h"

namespace augur::cpu {

const TokenKernels kTokenKernelsAvx512 = {
    norm_rows<VecAvx512>,   rope_token<VecAvx512>,    attend<VecAvx512>,
    fold_splits<VecAvx512>, router_logits<VecAvx512>, router_choose<VecAvx512>,
    exp2_values<VecAvx512>,
};

}  // namespace augur::cpu
