// CUDA's language and runtime for kernels that g++ compiles and that run on the CPU.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
// The C++ library itself writes __attribute__((__noinline__)), so this can only be nothing.
#define __noinline__
#define __align__(bytes) alignas(bytes)
// Enough to compile; kernels take their shared memory from cuda/shared_memory.cuh.
#define __shared__ static

#include "simt/arithmetic.h"
#include "simt/atomics.h"
#include "simt/launch.h"
#include "simt/memory.h"
#include "simt/threads.h"
#include "simt/vector_types.h"
