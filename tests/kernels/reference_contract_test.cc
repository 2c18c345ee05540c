// The contract's batch invariance for the reference itself; against itself as oracle the values
// say little, and reference_*_test.cc checks them against plain loops.
#include "kernels/cpu/reference_ops.h"
#include "tests/kernels/ops_contract.h"

namespace augur::contract {

std::vector<Backend> backends() {
  return {{"reference_1_thread", [] { return make_reference_ops(1); }},
          {"reference_2_threads", [] { return make_reference_ops(2); }}};
}

}  // namespace augur::contract
