#include "kernels/cuda/linear.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_args.h"
#include "kernels/cuda/linear_plain.h"
#include "kernels/cuda/sm90_skinny_linear.h"

namespace augur::cuda {

void Linear::run(const LinearArgs& args, cudaStream_t stream) {
  check_linear(args);
  if (args.out.num_rows == 0 || args.out.num_cols == 0) return;
  const DeviceTraits& device = device_traits();
  if (device.is_hopper() && fits_skinny_linear(args)) {
    sm90_skinny_linear(
        args,
        choose_skinny_config(args.x.num_rows, args.out.num_cols, args.x.num_cols, device.num_sms),
        stream);
    return;
  }
  if (!gemm_.run(args, stream)) linear_plain(args, stream);
}

}  // namespace augur::cuda
