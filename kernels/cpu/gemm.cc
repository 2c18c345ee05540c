#include "kernels/cpu/gemm.h"

#include <string>

#include "kernels/require.h"

namespace augur::cpu {

const GemmUnit& gemm_unit(Isa isa) {
  AUGUR_REQUIRE(has_isa(isa), std::string(isa_name(isa)) + " on a machine with " +
                                  std::string(isa_name(best_isa())));
  switch (isa) {
    case Isa::kAmx:
      return kAmxGemm;
    case Isa::kAvx512:
      return kAvx512Gemm;
    case Isa::kAvx2:
      return kAvx2Gemm;
    case Isa::kPortable:
      break;
  }
  return kPortableGemm;
}

}  // namespace augur::cpu
