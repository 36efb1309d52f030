// Elements of T in memory, worked on in registers of V: T itself, or a wider type.
#pragma once

#include "cpu/vectors.h"

namespace selkern::cpu::SELKERN_ISA {

template <typename Element, int64_t count>
struct VectorWith {
  typedef Element type __attribute__((vector_size(count * sizeof(Element))));
};

template <typename T, typename V>
struct Elements {
  using Scalar = std::decay_t<decltype(V{}[0])>;
  static constexpr int64_t count = sizeof(V) / sizeof(Scalar);
  // As many elements as V has lanes.
  using Stored = std::conditional_t<std::is_same_v<V, FullVector<T>>, V, Vector<T>>;

  static inline V widened(Stored stored) {
    if constexpr (std::is_same_v<V, Stored>) return stored;
    if constexpr (!std::is_same_v<V, Stored>) return widen<T>(stored);
  }
  static inline Stored narrowed(V values) {
    if constexpr (std::is_same_v<V, Stored>) return values;
    if constexpr (!std::is_same_v<V, Stored>) return narrow<T>(values);
  }

  static inline V load(const T* from, int64_t elements) {
    return widened(load_first<T, Stored>(from, elements));
  }
  static inline void store(T* to, V values, int64_t elements) {
    store_first(to, narrowed(values), elements);
  }
};

// In T, or in float64 for the 16-bit types.
template <typename T>
using Arithmetic = Elements<T, std::conditional_t<sizeof(T) == 2, Float64, FullVector<T>>>;

}  // namespace selkern::cpu::SELKERN_ISA
