// The kernels of token_kernels.h for plain C++.
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/norm_rope_rows.h"
#include "kernels/cpu/router_tile.h"
#include "kernels/cpu/vec_portable.h"

namespace augur::cpu {

const TokenKernels kTokenKernelsPortable = {
    norm_rows<VecPortable>,   rope_token<VecPortable>,    attend<VecPortable>,
    fold_splits<VecPortable>, router_logits<VecPortable>, router_choose<VecPortable>,
    exp2_values<VecPortable>,
};

}  // namespace augur::cpu
