#include "linalg_ops.h"

#include "cuda/device.h"
#include "cuda/linalg.h"
#include "cuda/register.h"

namespace selkern::cuda {
namespace {

struct Cuda {
  static void solve(const EigensolverParams& params, const Tensor& like) {
    const DeviceScope scope(like);
    launch_eigensolver(params, scope.stream());
  }
};

}  // namespace

void register_linalg_operators(torch::stable::detail::StableLibrary& m) {
  register_linalg<Cuda>(m);
}

}  // namespace selkern::cuda
