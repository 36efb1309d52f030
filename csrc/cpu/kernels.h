#pragma once

#include <cstdint>

#include "common/divide_up.h"
#include "common/dtype.h"
#include "common/map_layout.h"
#include "common/pooling.h"
#include "common/spectrum.h"
#include "cpu/attacks_work.h"
#include "cpu/linalg_work.h"
#include "cpu/selectivity_work.h"
#include "cpu/spectrum_work.h"

// Kernel parameters and the table of entry points, one table per instruction set. Every kernel
// works on items [begin, end) of its range, and an item's result does not depend on the split.
namespace selkern::cpu {

struct Kernels {
  const char* name;
  int64_t vector_bytes;
  // Item of the first two: one map of one sample (planar), or one block of units of one sample
  // (channels-last).
  void (*spatial_mean)(const SpatialMeanParams&, int64_t begin, int64_t end);
  void (*relu_with_mean_backward)(const ReluWithMeanBackwardParams&, int64_t begin, int64_t end);
  // Item: a class that has samples.
  void (*class_means)(const ClassMeansWork&, int64_t begin, int64_t end);
  // Item: a sample.
  void (*class_means_backward)(const ClassMeansBackwardWork&, int64_t begin, int64_t end);
  // Item: a block of units.
  void (*selectivity)(const SelectivityWork&, int64_t begin, int64_t end);
  // Item: a sample.
  void (*selectivity_backward)(const SelectivityBackwardWork&, int64_t begin, int64_t end);
  // Item: a matrix of no more than block_columns units.
  void (*center)(const CenterParams&, int64_t begin, int64_t end);
  // The same for any. Item: a block of columns of one matrix; a block of rows of one matrix.
  void (*sample_means)(const SampleMeansWork&, int64_t begin, int64_t end);
  void (*subtract_means)(const CenterWork&, int64_t begin, int64_t end);
  // Item: a matrix.
  void (*centered_product)(const CenteredProductParams&, int64_t begin, int64_t end);
  // The same, once the means are there. Item: as pack_items() says; a pair of panels.
  void (*pack_panels)(const CenteredProductWork&, int64_t begin, int64_t end);
  void (*multiply_panels)(const CenteredProductWork&, int64_t begin, int64_t end);
  // Item: a block of columns with weights of the size of a Gram matrix, otherwise a block of
  // samples.
  void (*centered_matmul)(const CenteredMatmulWork&, int64_t begin, int64_t end);
  // Item: a spectrum.
  void (*covariance_spectrum)(const CovarianceSpectrumParams&, int64_t begin, int64_t end);
  void (*covariance_spectrum_backward)(const CovarianceSpectrumBackwardParams&, int64_t begin,
                                       int64_t end);
  void (*power_law_penalty)(const PowerLawPenaltyParams&, int64_t begin, int64_t end);
  // Item: a block of columns of one matrix; then, once their variances are there, a matrix.
  void (*basis_variances)(const BasisSpectrumParams&, int64_t begin, int64_t end);
  void (*basis_spectrum)(const BasisSpectrumParams&, int64_t begin, int64_t end);
  // Item: a group of matrices, as many as a vector has lanes.
  void (*eigensystems)(const EigensolverWork&, int64_t begin, int64_t end);
  void (*eigenvalues)(const EigensolverWork&, int64_t begin, int64_t end);
  // Item: a block of rows of the eigenvectors of a group, whose eigenvalues come first.
  void (*eigenvectors)(const EigensolverWork&, int64_t begin, int64_t end);
  // Item: a panel of the vectors of one matrix.
  void (*rayleigh_quotients)(const RayleighQuotientParams&, int64_t begin, int64_t end);
  // Item: a matrix, whose eigenvectors become of length 1.
  void (*unit_columns)(const EigensolverWork&, int64_t begin, int64_t end);
  // Item: with linf a block of all elements, with l2 a sample.
  void (*pgd_step)(const PgdStepWork&, int64_t begin, int64_t end);
  // The two parts of an l2 step. Item: a block of the elements of one sample.
  void (*l2_sums)(const PgdStepWork&, int64_t begin, int64_t end);
  void (*l2_step)(const PgdStepWork&, int64_t begin, int64_t end);
};

// Columns of the panels that kernels take matrices of dtype in, float64 or float32.
inline int64_t panel_columns(const Kernels& kernels, DType dtype) {
  // They hold what is computed in: float64, or float32 for all others.
  return panel_registers * kernels.vector_bytes / (dtype == DType::float64 ? 8 : 4);
}

#if defined(__x86_64__)
namespace avx512 {
extern const Kernels table;
}
namespace avx2 {
extern const Kernels table;
}
#endif
namespace baseline {
extern const Kernels table;
}

// Channels-last maps are summed in blocks of this many units, so that the sums stay in the
// first-level cache.
constexpr int64_t channels_last_block = 1024;

// Columns that are summed over the samples together.
constexpr int64_t block_columns = 256;

inline int64_t column_blocks(int64_t columns) { return divide_up(columns, block_columns); }

inline int64_t map_items(const MapLayout& layout) {
  if (!layout.channels_last) return layout.samples * layout.units;
  return layout.samples * divide_up(layout.units, channels_last_block);
}

inline int64_t map_item_cost(const MapLayout& layout) {
  if (!layout.channels_last) return layout.positions;
  return layout.positions *
         (layout.units < channels_last_block ? layout.units : channels_last_block);
}

}  // namespace selkern::cpu
