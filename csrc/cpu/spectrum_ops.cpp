#include "spectrum_ops.h"

#include "cpu/capability.h"
#include "cpu/parallel.h"

namespace selkern::cpu {
namespace {

int64_t block_cost(int64_t samples, int64_t columns) {
  return samples * std::min(columns, block_columns);
}

struct Cpu {
  static void center(const CenterParams& params, const Tensor&) {
    parallel_items(kernels().center, params, params.matrices * column_blocks(params.units),
                   2 * block_cost(params.samples, params.units));
  }

  static void power_law_penalty(const PowerLawPenaltyParams& params, const Tensor&) {
    parallel_items(kernels().power_law_penalty, params, params.spectra, params.ranks);
  }

  static void basis_spectrum(const BasisSpectrumParams& params, const Tensor&) {
    parallel_items(kernels().basis_variances, params,
                   params.matrices * column_blocks(params.columns),
                   block_cost(params.samples, params.columns));
    parallel_items(kernels().basis_spectrum, params, params.matrices, 16 * params.columns);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(selkern, CPU, m) { register_spectrum<Cpu>(m); }

}  // namespace selkern::cpu
