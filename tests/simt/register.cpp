// The operators for CUDA tensors, registered for tensors of the CPU under a name of their own.
#include "cuda/register.h"

#include "schemas.h"

STABLE_TORCH_LIBRARY(selkern_simt, m) { selkern::define_operators(m); }
STABLE_TORCH_LIBRARY_IMPL(selkern_simt, CPU, m) { selkern::cuda::register_operators(m); }
