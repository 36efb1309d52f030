// What the headers that kernels see ask of the runtime.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simt/vector_types.h"

namespace simt {

// Where in the kernel's source something was called. As a default argument, here() is the caller.
struct Place {
  const char* file;
  int line;

  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

enum class Barrier { all, count, conjunction, disjunction };

// Waits for all threads of the block, and returns how many of them brought a true predicate.
int block_barrier(Barrier kind, bool predicate, Place place);

enum class Operation {
  barrier,
  shuffle,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  ballot,
  any,
  all,
  match_any,
  match_all,
  add,
  minimum,
  minimum_signed,
  maximum,
  maximum_signed,
  bit_and,
  bit_or,
  bit_xor,
};

// What a lane brings to an operation that the lanes of a mask carry out together.
struct Operand {
  uint64_t value = 0;
  unsigned lane = 0;  // of a shuffle: source, distance or mask
  int width = 32;
};

uint64_t warp_operation(Operation operation, unsigned mask, Operand operand, Place place);
void warp_barrier(unsigned mask, Place place);
unsigned live_lanes();

void* dynamic_shared();
// One array of a block for each key.
void* static_shared(const void* key, size_t bytes);

[[noreturn]] void misaligned(const void* address, size_t alignment, Place place);
[[noreturn]] void trap(Place place);

// What a fence and the atomics around it order; only ThreadSanitizer takes note.
void fence();
void before_atomic(const void* address);

// Body runs a kernel as one thread. Returns a cudaError_t.
struct Launch {
  const void* kernel;
  dim3 grid;
  dim3 block;
  size_t shared_bytes;
  void (*body)(const void* call);
  const void* call;
};
int launch(const Launch& launch);

}  // namespace simt
