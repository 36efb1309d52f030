#include "cpu/kernels_prelude.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define SELKERN_ISA avx2
#define SELKERN_VECTOR_BYTES 32
#define SELKERN_HAS_F16C 1
#include "cpu/kernel_table.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
