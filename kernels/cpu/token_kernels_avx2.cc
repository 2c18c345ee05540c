// The kernels of token_kernels.h for AVX2 and FMA.
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/norm_rope_rows.h"
#include "kernels/cpu/router_tile.h"
#include "kernels/cpu/vec_avx2.h"

namespace augur::cpu {

const TokenKernels kTokenKernelsAvx2 = {
    norm_rows<VecAvx2>,     rope_token<VecAvx2>,    attend<VecAvx2>,      fold_splits<VecAvx2>,
    router_logits<VecAvx2>, router_choose<VecAvx2>, exp2_values<VecAvx2>,
};

}  // namespace augur::cpu
