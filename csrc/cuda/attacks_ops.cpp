#include "attacks_ops.h"

#include "cuda/attacks.h"
#include "cuda/device.h"
#include "cuda/register.h"

namespace selkern::cuda {
namespace {

struct Cuda {
  static void pgd_step(const PgdStepParams& params, const Tensor& like) {
    const DeviceScope scope(like);
    if (params.norm == Norm::linf) return launch_pgd_step(params, nullptr, scope.stream());
    constexpr int64_t sums = sizeof(L2Sums<float>) / sizeof(float);
    Tensor workspace =
        empty({params.samples, l2_parts(params), sums}, result_type(like.scalar_type()), like);
    launch_pgd_step(params, workspace.mutable_data_ptr(), scope.stream());
  }
};

}  // namespace

void register_attacks_operators(torch::stable::detail::StableLibrary& m) {
  register_attacks<Cuda>(m);
}

}  // namespace selkern::cuda
