// Threads, barriers, and what the lanes of a warp do together.
#pragma once

#include <cstring>
#include <type_traits>

#include "simt/runtime.h"

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
extern const int warpSize;

inline void __syncthreads(simt::Place place = simt::Place::here()) {
  simt::block_barrier(simt::Barrier::all, true, place);
}

inline int __syncthreads_count(int predicate, simt::Place place = simt::Place::here()) {
  return simt::block_barrier(simt::Barrier::count, predicate != 0, place);
}

inline int __syncthreads_and(int predicate, simt::Place place = simt::Place::here()) {
  return simt::block_barrier(simt::Barrier::conjunction, predicate == 0, place) == 0;
}

inline int __syncthreads_or(int predicate, simt::Place place = simt::Place::here()) {
  return simt::block_barrier(simt::Barrier::disjunction, predicate != 0, place) != 0;
}

inline void __syncwarp(unsigned mask = 0xffffffff, simt::Place place = simt::Place::here()) {
  simt::warp_barrier(mask, place);
}

namespace simt {

// The types that CUDA shuffles; cuda_fp16.h and cuda_bf16.h add theirs.
template <typename T>
constexpr bool is_shuffled =
    std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8) && !std::is_same_v<T, wchar_t>;

template <typename T>
uint64_t to_bits(T value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <typename T>
T shuffle(Operation operation, unsigned mask, T value, unsigned lane, int width, Place place) {
  static_assert(is_shuffled<T>, "a shuffle moves int, long long, float, double, half, bfloat16");
  return from_bits<T>(warp_operation(operation, mask, {to_bits(value), lane, width}, place));
}

template <typename T>
T reduce(Operation of_unsigned, Operation of_signed, unsigned mask, T value, Place place) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>,
                "a warp reduces int and unsigned");
  const Operation operation = std::is_signed_v<T> ? of_signed : of_unsigned;
  return from_bits<T>(warp_operation(operation, mask, {to_bits(value)}, place));
}

template <typename T>
uint64_t match(Operation operation, unsigned mask, T value, Place place) {
  static_assert(is_shuffled<T>, "a match compares int, long long, float, double");
  return warp_operation(operation, mask, {to_bits(value)}, place);
}

}  // namespace simt

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              simt::Place place = simt::Place::here()) {
  return simt::shuffle(simt::Operation::shuffle, mask, value, source, width, place);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                 simt::Place place = simt::Place::here()) {
  return simt::shuffle(simt::Operation::shuffle_up, mask, value, distance, width, place);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                   simt::Place place = simt::Place::here()) {
  return simt::shuffle(simt::Operation::shuffle_down, mask, value, distance, width, place);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  simt::Place place = simt::Place::here()) {
  return simt::shuffle(simt::Operation::shuffle_xor, mask, value, lane_mask, width, place);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              simt::Place place = simt::Place::here()) {
  return simt::warp_operation(simt::Operation::ballot, mask, {predicate != 0}, place);
}

inline int __any_sync(unsigned mask, int predicate, simt::Place place = simt::Place::here()) {
  return simt::warp_operation(simt::Operation::any, mask, {predicate != 0}, place);
}

inline int __all_sync(unsigned mask, int predicate, simt::Place place = simt::Place::here()) {
  return simt::warp_operation(simt::Operation::all, mask, {predicate != 0}, place);
}

template <typename T>
unsigned __match_any_sync(unsigned mask, T value, simt::Place place = simt::Place::here()) {
  return simt::match(simt::Operation::match_any, mask, value, place);
}

template <typename T>
unsigned __match_all_sync(unsigned mask, T value, int* equal,
                          simt::Place place = simt::Place::here()) {
  const unsigned lanes = simt::match(simt::Operation::match_all, mask, value, place);
  *equal = lanes != 0;
  return lanes;
}

template <typename T>
T __reduce_add_sync(unsigned mask, T value, simt::Place place = simt::Place::here()) {
  return simt::reduce(simt::Operation::add, simt::Operation::add, mask, value, place);
}

template <typename T>
T __reduce_min_sync(unsigned mask, T value, simt::Place place = simt::Place::here()) {
  return simt::reduce(simt::Operation::minimum, simt::Operation::minimum_signed, mask, value,
                      place);
}

template <typename T>
T __reduce_max_sync(unsigned mask, T value, simt::Place place = simt::Place::here()) {
  return simt::reduce(simt::Operation::maximum, simt::Operation::maximum_signed, mask, value,
                      place);
}

inline unsigned __reduce_and_sync(unsigned mask, unsigned value,
                                  simt::Place place = simt::Place::here()) {
  return simt::warp_operation(simt::Operation::bit_and, mask, {value}, place);
}

inline unsigned __reduce_or_sync(unsigned mask, unsigned value,
                                 simt::Place place = simt::Place::here()) {
  return simt::warp_operation(simt::Operation::bit_or, mask, {value}, place);
}

inline unsigned __reduce_xor_sync(unsigned mask, unsigned value,
                                  simt::Place place = simt::Place::here()) {
  return simt::warp_operation(simt::Operation::bit_xor, mask, {value}, place);
}

// Of lanes that may have diverged: all that have not exited.
inline unsigned __activemask() { return simt::live_lanes(); }

inline void __nanosleep(unsigned) {}
inline void __trap(simt::Place place = simt::Place::here()) { simt::trap(place); }
