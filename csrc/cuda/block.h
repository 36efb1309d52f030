// What all kernels agree on about blocks of threads.
#pragma once

#include <cstdint>

#include "common/divide_up.h"

namespace selkern::cuda {

constexpr int warp_threads = 32;
constexpr int block_threads = 256;
constexpr unsigned all_lanes = 0xffffffffu;  // of a warp, in a shuffle or a vote
constexpr int vector_bytes = 16;             // of the widest access
constexpr int loads_in_flight = 4;  // vectors that a thread asks for before it uses the first

// Whether vectors can be loaded and stored at all of these addresses, and at any number of steps of
// so many bytes from them; several steps are or-ed together.
template <typename... T>
inline bool vectors_align(int64_t step_bytes, const T*... addresses) {
  return ((reinterpret_cast<intptr_t>(addresses) | ...) | step_bytes) % vector_bytes == 0;
}

// A power of two, so that scaling is exact: a sum of `terms` values that are scaled by it is no
// larger than the largest of them, and does not overflow.
inline float sum_scale(int64_t terms) {
  float scale = 1;
  for (int64_t power = 1; power < terms; power *= 2) scale /= 2;
  return scale;
}

}  // namespace selkern::cuda
