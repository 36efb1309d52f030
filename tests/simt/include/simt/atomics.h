// Atomic operations on integers. There are none on floating-point numbers: their result would
// depend on the order of the threads.
#pragma once

#include <type_traits>

#include "simt/runtime.h"

namespace simt {

template <typename T, typename... Allowed>
void check_atomic(const T* address) {
  static_assert((std::is_same_v<T, Allowed> || ...),
                "no atomic of this kind for this type; none at all for floating-point numbers");
  before_atomic(address);
}

// Atomically replaces *address by update(*address) and returns what was there.
template <typename T, typename Update>
T update_atomically(T* address, Update update) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(address, &old, update(old), true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  return old;
}

}  // namespace simt

#define SIMT_ATOMIC(name, expression, ...)                                               \
  template <typename T>                                                                  \
  T name(T* address, std::common_type_t<T> value) {                                      \
    simt::check_atomic<T, __VA_ARGS__>(address);                                         \
    return simt::update_atomically(address, [value](T old) -> T { return expression; }); \
  }

SIMT_ATOMIC(atomicAdd, T(std::make_unsigned_t<T>(old) + std::make_unsigned_t<T>(value)), int,
            unsigned, unsigned long long)
SIMT_ATOMIC(atomicSub, T(std::make_unsigned_t<T>(old) - std::make_unsigned_t<T>(value)), int,
            unsigned)
SIMT_ATOMIC(atomicMin, value < old ? value : old, int, unsigned, long long, unsigned long long)
SIMT_ATOMIC(atomicMax, value > old ? value : old, int, unsigned, long long, unsigned long long)
SIMT_ATOMIC(atomicAnd, old& value, int, unsigned, unsigned long long)
SIMT_ATOMIC(atomicOr, old | value, int, unsigned, unsigned long long)
SIMT_ATOMIC(atomicXor, old ^ value, int, unsigned, unsigned long long)
SIMT_ATOMIC(atomicInc, old >= value ? 0 : old + 1, unsigned)
SIMT_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1, unsigned)
SIMT_ATOMIC(atomicExch, (static_cast<void>(old), value), int, unsigned, unsigned long long)

#undef SIMT_ATOMIC

template <typename T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  simt::check_atomic<T, int, unsigned, unsigned long long>(address);
  return simt::update_atomically(address,
                                 [=](T old) -> T { return old == expected ? value : old; });
}
