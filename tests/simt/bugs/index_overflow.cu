#include <sys/mman.h>

#include "case.h"

using namespace simt_cases;

namespace {

template <typename Index>
__global__ void gather_kernel(int* out, const int* rows, Index stride) {
  out[threadIdx.x] = rows[Index(threadIdx.x) * stride];
}

// Rows so far apart that an index of 32 bits does not reach the second. Only its page is there.
template <typename Index>
void gather() {
  const size_t stride = (size_t(1) << 31) + 1, bytes = (2 * stride + 1) * sizeof(int);
  void* memory = mmap(nullptr, 2 * bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    say() << "no address space\n";
    return;
  }
  int* rows = static_cast<int*>(memory) + bytes / sizeof(int);
  rows[0] = 10;
  rows[stride] = 11;
  Buffer<int> out(2);
  launch(&gather_kernel<Index>, 1, 2, 0, +out, static_cast<const int*>(rows), Index(stride));
  out.print();
  munmap(memory, 2 * bytes);
}

CASE(index_overflow) { gather<int>(); }
CASE(no_index_overflow) { gather<long long>(); }

// In range for a stride of 32 bits, whose product is not.
__global__ void product_kernel(int* out, int row, int stride) { out[0] = row * stride > 0; }

CASE(product_overflow) {
  Buffer<int> out(1);
  launch(&product_kernel, 1, 1, 0, +out, 3, 1 << 30);
}

}  // namespace
