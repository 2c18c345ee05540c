#include "kernels/cpu/token_kernels.h"

#include <string>

#include "kernels/require.h"

namespace augur::cpu {

const TokenKernels& token_kernels(Isa isa) {
  AUGUR_REQUIRE(has_isa(isa), "this machine has no " + std::string(isa_name(isa)));
  switch (isa) {
    case Isa::kPortable:
      return kTokenKernelsPortable;
    case Isa::kAvx2:
      return kTokenKernelsAvx2;
    case Isa::kAvx512:
    case Isa::kAmx:
      break;
  }
  return kTokenKernelsAvx512;
}

}  // namespace augur::cpu
