#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "case.h"

using namespace simt_cases;

namespace {

enum class Call { shfl, up, down, exclusive_or, match_any, match_all };

// Lanes outside the mask call nothing, and keep what out held.
template <typename T>
__global__ void warp_kernel(Call call, unsigned mask, const T* values, const int* lanes, int width,
                            T* out, unsigned* matches) {
  const int lane = threadIdx.x;
  if ((mask >> lane & 1) == 0) return;
  int equal;
  switch (call) {
    case Call::shfl:
      out[lane] = __shfl_sync(mask, values[lane], lanes[lane], width);
      break;
    case Call::up:
      out[lane] = __shfl_up_sync(mask, values[lane], lanes[lane], width);
      break;
    case Call::down:
      out[lane] = __shfl_down_sync(mask, values[lane], lanes[lane], width);
      break;
    case Call::exclusive_or:
      out[lane] = __shfl_xor_sync(mask, values[lane], lanes[lane], width);
      break;
    case Call::match_any:
      if constexpr (std::is_arithmetic_v<T>) {
        matches[lane] = __match_any_sync(mask, values[lane]);
      }
      break;
    case Call::match_all:
      if constexpr (std::is_arithmetic_v<T>) {
        matches[lane] = __match_all_sync(mask, values[lane], &equal);
        matches[lane] = equal == (matches[lane] != 0) ? matches[lane] : 1;
      }
      break;
  }
}

template <typename T>
void run(int call, unsigned mask, const void* values, const int* lanes, int width, void* out,
         unsigned* matches) {
  launch(&warp_kernel<T>, 1, 32, 0, Call(call), mask, static_cast<const T*>(values), lanes, width,
         static_cast<T*>(out), matches);
}

struct Votes {
  unsigned ballot, any, all, add, least, most, bit_and, bit_or, bit_xor;
  int least_signed, most_signed, add_signed;
};

__global__ void votes_kernel(unsigned mask, const unsigned* values, Votes* votes) {
  if ((mask >> threadIdx.x & 1) == 0) return;
  const unsigned value = values[threadIdx.x];
  const int as_signed = static_cast<int>(value), odd = value & 1;
  Votes& mine = votes[threadIdx.x];
  mine.ballot = __ballot_sync(mask, odd);
  mine.any = __any_sync(mask, odd);
  mine.all = __all_sync(mask, odd);
  mine.add = __reduce_add_sync(mask, value);
  mine.least = __reduce_min_sync(mask, value);
  mine.most = __reduce_max_sync(mask, value);
  mine.bit_and = __reduce_and_sync(mask, value);
  mine.bit_or = __reduce_or_sync(mask, value);
  mine.bit_xor = __reduce_xor_sync(mask, value);
  mine.least_signed = __reduce_min_sync(mask, as_signed);
  mine.most_signed = __reduce_max_sync(mask, as_signed);
  mine.add_signed = __reduce_add_sync(mask, as_signed);
}

// Halves of a warp go different ways, and each must wait for its own lanes alone.
__global__ void independent_masks_kernel(int* out) {
  const bool low = threadIdx.x < 16;
  int value = threadIdx.x;
  for (int round = 0; round < (low ? 1 : 3); ++round) {
    value = low ? __shfl_xor_sync(0x0000ffff, value, 1) : __shfl_xor_sync(0xffff0000, value, 1);
  }
  out[threadIdx.x] = value;
}

CASE(independent_masks) {
  Buffer<int> out(32);
  launch(&independent_masks_kernel, 1, 32, 0, +out);
  out.print();
}

__global__ void block_votes_kernel(const int* predicates, int3* out) {
  const int predicate = predicates[threadIdx.x];
  const int count = __syncthreads_count(predicate);
  const int all = __syncthreads_and(predicate);
  const int any = __syncthreads_or(predicate);
  out[threadIdx.x] = {count, all, any};
}

__global__ void atomics_kernel(unsigned* u, int* i, unsigned long long* l) {
  const unsigned x = threadIdx.x;
  atomicAdd(&u[0], 1);
  atomicSub(&u[1], x);
  atomicMin(&u[2], x + 5);
  atomicMax(&u[3], x);
  atomicAnd(&u[4], ~(1u << x));
  atomicOr(&u[5], 1u << x);
  atomicXor(&u[6], x);
  atomicInc(&u[7], 4);
  atomicDec(&u[8], 4);
  if (x == 7) atomicExch(&u[9], 77);
  atomicCAS(&u[10], x, x + 1);
  atomicAdd(&i[0], int(x) - 40);
  atomicMin(&i[1], 10 - int(x));
  atomicMax(&i[2], 10 - int(x));
  atomicAdd(&l[0], 1ull << 40);
  atomicMax(&l[1], static_cast<unsigned long long>(x) << 33);
}

}  // namespace

EXPORTED void run_warp(const char* type, int call, unsigned mask, const void* values,
                       const int* lanes, int width, void* out, unsigned* matches) {
  const auto is = [&](const char* name) { return std::strcmp(type, name) == 0; };
  if (is("int32")) run<int>(call, mask, values, lanes, width, out, matches);
  if (is("uint32")) run<unsigned>(call, mask, values, lanes, width, out, matches);
  if (is("int64")) run<long long>(call, mask, values, lanes, width, out, matches);
  if (is("float32")) run<float>(call, mask, values, lanes, width, out, matches);
  if (is("float64")) run<double>(call, mask, values, lanes, width, out, matches);
  if (is("float16")) run<__half>(call, mask, values, lanes, width, out, matches);
  if (is("bfloat16")) run<__nv_bfloat16>(call, mask, values, lanes, width, out, matches);
}

EXPORTED void run_votes(unsigned mask, const unsigned* values, void* votes) {
  launch(&votes_kernel, 1, 32, 0, mask, values, static_cast<Votes*>(votes));
}

EXPORTED void run_block_votes(const int* predicates, int count, void* out) {
  launch(&block_votes_kernel, 1, count, 0, predicates, static_cast<int3*>(out));
}

EXPORTED void run_atomics(unsigned* u, int* i, unsigned long long* l) {
  launch(&atomics_kernel, 1, 32, 0, u, i, l);
}
