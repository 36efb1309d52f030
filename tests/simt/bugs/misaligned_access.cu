#include "case.h"

using namespace simt_cases;

namespace {

__global__ void copy_kernel(uint4* to, const uint4* from) { __stwb(to, __ldcs(from)); }

void copy(int offset) {
  Buffer<unsigned> from(8, 7), to(4);
  launch(&copy_kernel, 1, 1, 0, reinterpret_cast<uint4*>(+to),
         static_cast<const uint4*>(static_cast<void*>(from + offset)));
  to.print();
}

CASE(misaligned_access) { copy(1); }
CASE(no_misaligned_access) { copy(4); }

}  // namespace
