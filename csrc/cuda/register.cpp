#include "cuda/register.h"

STABLE_TORCH_LIBRARY_IMPL(selkern, CUDA, m) { selkern::cuda::register_operators(m); }
