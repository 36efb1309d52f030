#include "spectrum_ops.h"

#include "cuda/device.h"
#include "cuda/register.h"
#include "cuda/spectrum.h"

namespace selkern::cuda {
namespace {

struct Cuda {
  static void center(const CenterParams& params, const Tensor& like) {
    const DeviceScope scope(like);
    launch_center(params, scope.stream());
  }

  // Matrix products are the vendor's.
  static bool centered_product(const CenteredProductParams&, const Tensor&) { return false; }
  static bool centered_matmul(const CenteredMatmulParams&, const Tensor&) { return false; }

  static void covariance_spectrum(const CovarianceSpectrumParams& params, const Tensor& like) {
    const DeviceScope scope(like);
    launch_covariance_spectrum(params, scope.stream());
  }

  static void covariance_spectrum_backward(const CovarianceSpectrumBackwardParams& params,
                                           const Tensor& like) {
    const DeviceScope scope(like);
    launch_covariance_spectrum_backward(params, scope.stream());
  }

  static void power_law_penalty(const PowerLawPenaltyParams& params, const Tensor& like) {
    const DeviceScope scope(like);
    launch_power_law_penalty(params, scope.stream());
  }

  static void basis_spectrum(const BasisSpectrumParams& params, const Tensor& like) {
    const DeviceScope scope(like);
    const BasisPlan plan = plan_basis_spectrum(params);
    Tensor shares = empty({plan.share_count}, like.scalar_type(), like);
    Tensor entries = empty({plan.entry_bytes}, ScalarType::Byte, like);
    const bool counts_blocks = plan.blocks() > 1;
    Tensor blocks_done = empty({counts_blocks ? params.matrices : 0}, ScalarType::Int, like);
    BasisWorkspace workspace{shares.mutable_data_ptr(), nullptr, entries.mutable_data_ptr()};
    if (counts_blocks) {
      workspace.blocks_done = static_cast<unsigned*>(blocks_done.mutable_data_ptr());
    }
    launch_basis_spectrum(params, plan, workspace, scope.stream());
  }
};

}  // namespace

void register_spectrum_operators(torch::stable::detail::StableLibrary& m) {
  register_spectrum<Cuda>(m);
}

}  // namespace selkern::cuda
