// Loads and stores with cache hints, and fences.
#pragma once

#include <cstdint>
#include <type_traits>

#include "simt/runtime.h"

namespace simt {

template <typename T>
void check_access(const T* address, Place place) {
  static_assert(
      std::is_trivially_copyable_v<T> && sizeof(T) <= 16 && (sizeof(T) & (sizeof(T) - 1)) == 0,
      "an access has 1, 2, 4, 8 or 16 bytes");
  // On the GPU an access is aligned to all of its size, whatever the type asks for.
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0) misaligned(address, sizeof(T), place);
}

}  // namespace simt

#define SIMT_LOAD(name)                                                      \
  template <typename T>                                                      \
  inline T name(const T* address, simt::Place place = simt::Place::here()) { \
    simt::check_access(address, place);                                      \
    return *address;                                                         \
  }

#define SIMT_STORE(name)                                      \
  template <typename T>                                       \
  inline void name(T* address, std::common_type_t<T> value,   \
                   simt::Place place = simt::Place::here()) { \
    simt::check_access(address, place);                       \
    *address = value;                                         \
  }

SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)

#undef SIMT_LOAD
#undef SIMT_STORE

inline void __threadfence() { simt::fence(); }
inline void __threadfence_system() { simt::fence(); }
// Orders nothing between blocks, and within one a barrier is what kernels use.
inline void __threadfence_block() {}
