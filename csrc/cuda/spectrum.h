// Launches of the kernels on spectra.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/host_device.h"
#include "common/spectrum.h"

namespace selkern::cuda {

void launch_center(const CenterParams& params, cudaStream_t stream);
void launch_covariance_spectrum(const CovarianceSpectrumParams& params, cudaStream_t stream);
void launch_covariance_spectrum_backward(const CovarianceSpectrumBackwardParams& params,
                                         cudaStream_t stream);
void launch_power_law_penalty(const PowerLawPenaltyParams& params, cudaStream_t stream);

// How the columns of projections are dealt out to blocks, and what that takes.
struct BasisPlan {
  int64_t tiles;       // of the columns
  int64_t splits;      // blocks that share a tile's samples
  int64_t share_rows;  // samples of each but the last of these blocks
  int64_t sort_size;   // a power of two
  bool sorts_in_shared_memory;
  int64_t share_count;  // elements of the workspace for sums
  int64_t entry_bytes;  // of the workspace for sorting, where shared memory does not do

  SELKERN_HOST_DEVICE int64_t blocks() const { return tiles * splits; }  // of a matrix
};

// Raises a ValueError where there are more columns than can be sorted.
BasisPlan plan_basis_spectrum(const BasisSpectrumParams& params);

struct BasisWorkspace {
  void* shares;           // [matrices, splits, columns] in the dtype of the result
  unsigned* blocks_done;  // [matrices]; null where a matrix has one block
  void* entries;          // entry_bytes, or null
};

void launch_basis_spectrum(const BasisSpectrumParams& params, const BasisPlan& plan,
                           const BasisWorkspace& workspace, cudaStream_t stream);

}  // namespace selkern::cuda
