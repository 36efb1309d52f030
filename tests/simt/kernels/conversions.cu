#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "case.h"

EXPORTED void half_to_float(const unsigned short* from, float* to, int count) {
  for (int i = 0; i < count; ++i) to[i] = __half2float(__ushort_as_half(from[i]));
}

EXPORTED void float_to_half(const float* from, unsigned short* to, int count) {
  for (int i = 0; i < count; ++i) to[i] = __half_as_ushort(__float2half_rn(from[i]));
}

EXPORTED void double_to_half(const double* from, unsigned short* to, int count) {
  for (int i = 0; i < count; ++i) to[i] = __half_as_ushort(__double2half(from[i]));
}

EXPORTED void bfloat16_to_float(const unsigned short* from, float* to, int count) {
  for (int i = 0; i < count; ++i) to[i] = __bfloat162float(__ushort_as_bfloat16(from[i]));
}

EXPORTED void float_to_bfloat16(const float* from, unsigned short* to, int count) {
  for (int i = 0; i < count; ++i) to[i] = __bfloat16_as_ushort(__float2bfloat16_rn(from[i]));
}

EXPORTED void double_to_bfloat16(const double* from, unsigned short* to, int count) {
  for (int i = 0; i < count; ++i) to[i] = __bfloat16_as_ushort(__double2bfloat16(from[i]));
}

// Integer and bit functions of one argument, at x.
EXPORTED void integer_functions(unsigned x, long long* out) {
  out[0] = __popc(x);
  out[1] = __ffs(int(x));
  out[2] = __clz(int(x));
  out[3] = __brev(x);
  out[4] = __umulhi(x, 0xdeadbeef);
  out[5] = __float_as_uint(__uint_as_float(x & 0x7f7fffff));
  out[6] = min(x, 1000u) + max(int(x >> 1), 5);
}
