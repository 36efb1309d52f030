#pragma once

#if defined(__CUDACC__)
#define SELKERN_HOST_DEVICE __host__ __device__
#else
#define SELKERN_HOST_DEVICE
#endif
