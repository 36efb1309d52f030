// What all kernels agree on about blocks of threads.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace selkern::cuda {

constexpr int warp_threads = 32;
constexpr int block_threads = 256;
constexpr int vector_bytes = 16;    // of the widest access
constexpr int loads_in_flight = 4;  // vectors that a thread asks for before it uses the first

SELKERN_HOST_DEVICE inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A power of two, so that scaling is exact: a sum of `terms` values that are scaled by it is no
// larger than the largest of them, and does not overflow.
inline float sum_scale(int64_t terms) {
  float scale = 1;
  for (int64_t power = 1; power < terms; power *= 2) scale /= 2;
  return scale;
}

}  // namespace selkern::cuda
