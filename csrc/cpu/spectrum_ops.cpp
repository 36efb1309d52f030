#include "spectrum_ops.h"

#include "cpu/capability.h"
#include "cpu/parallel.h"

namespace selkern::cpu {
namespace {

int64_t block_cost(int64_t samples, int64_t columns) {
  return samples * std::min(columns, block_columns);
}

// Multiplications that take the time of one element of other work.
constexpr int64_t multiplications_per_element = 8;

// As SampleMeansWork has them.
Tensor means_of(const Kernels& table, const Samples& samples, const Tensor& x) {
  Tensor means = empty({samples.matrices, 2, samples.units}, result_type(x.scalar_type()), x);
  const SampleMeansWork work{samples, means.mutable_data_ptr()};
  parallel_items(table.sample_means, work, samples.matrices * column_blocks(samples.units),
                 block_cost(samples.samples, samples.units));
  return means;
}

struct Cpu {
  static void center(const CenterParams& params, const Tensor& x) {
    const bool is_small = params.samples * params.units <= grain_elements;
    const bool fills_threads = params.matrices >= torch::stable::get_num_threads();
    if (params.units <= block_columns && (is_small || fills_threads)) {
      parallel_items(kernels().center, params, params.matrices, 2 * params.samples * params.units);
      return;
    }
    // Whole rows are read and written fastest.
    const Kernels& table = kernels();
    Tensor means = means_of(table, params, x);
    const CenterWork work{params, means.mutable_data_ptr()};
    parallel_items(table.subtract_means, work, params.matrices * work.row_blocks(),
                   CenterWork::block_rows * params.units);
  }

  // Always by our own kernels, whose sums are of short runs: the vendor's lose digits.
  static bool centered_product(const CenteredProductParams& params, const Tensor& x) {
    const int64_t size = params.size(), terms = params.terms();
    if (params.matrices >= torch::stable::get_num_threads()) {
      parallel_items(kernels().centered_product, params, params.matrices, size * terms);
      return true;
    }
    const Kernels& table = kernels();
    const int64_t width = panel_columns(table, params.dtype), panels = panels_of(size, width);
    Tensor means = means_of(table, params, x);
    Tensor packed = empty({params.matrices, panels, terms, width}, result_type(x.scalar_type()), x);
    const CenteredProductWork work{params, means.mutable_data_ptr(), packed.mutable_data_ptr()};
    const int64_t pack_items = CenteredProductWork::pack_items(params, panels);
    parallel_items(table.pack_panels, work, params.matrices * pack_items,
                   panels * terms * width / pack_items);
    parallel_items(table.multiply_panels, work,
                   params.matrices * CenteredProductWork::pairs_of(panels),
                   terms * width * width / multiplications_per_element);
    return true;
  }

  // Larger weights do not stay in a core's own cache, and the vendor's product is as fast.
  static bool centered_matmul(const CenteredMatmulParams& params, const Tensor&) {
    constexpr int64_t largest_own = 256;
    if (params.size() > largest_own) return false;
    const int64_t threads = torch::stable::get_num_threads();
    const int64_t blocks = params.matrices >= threads ? 1 : threads;
    const CenteredMatmulWork work{params, divide_up(params.samples, blocks)};
    if (params.gram) {
      parallel_items(
          kernels().centered_matmul, work, params.matrices * column_blocks(params.units),
          params.samples * block_cost(params.samples, params.units) / multiplications_per_element);
    } else {
      parallel_items(kernels().centered_matmul, work, params.matrices * work.row_blocks(),
                     work.block_rows * params.units * params.units / multiplications_per_element);
    }
    return true;
  }

  static void covariance_spectrum(const CovarianceSpectrumParams& params, const Tensor&) {
    parallel_items(kernels().covariance_spectrum, params, params.matrices, params.size);
  }

  static void covariance_spectrum_backward(const CovarianceSpectrumBackwardParams& params,
                                           const Tensor&) {
    parallel_items(kernels().covariance_spectrum_backward, params, params.matrices, params.size);
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
