// Launches of the attacks' kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/attacks.h"

namespace selkern::cuda {

// Parts that the l2 sums of a sample are taken in; each has an L2Sums in the workspace.
int64_t l2_parts(const PgdStepParams& params);

// sums: [samples, l2_parts] L2Sums, of double for float64, otherwise of float; linf needs none.
void launch_pgd_step(const PgdStepParams& params, void* sums, cudaStream_t stream);

}  // namespace selkern::cuda
