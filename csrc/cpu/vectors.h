// Vectors of the instruction set that the including file is compiled for. Sums are in float64, so
// a Vector holds as many elements of any type as fit in one register of float64.
#pragma once

namespace selkern::cpu::SELKERN_ISA {

// Elements of any type in a Vector; a FullVector<T> has full_lanes<T>.
constexpr int64_t float64_lanes = SELKERN_VECTOR_BYTES / sizeof(double);

typedef double Float64 __attribute__((vector_size(SELKERN_VECTOR_BYTES)));
typedef int64_t Int64 __attribute__((vector_size(SELKERN_VECTOR_BYTES)));
typedef float Float32 __attribute__((vector_size(SELKERN_VECTOR_BYTES / 2)));
typedef uint32_t Bits32 __attribute__((vector_size(SELKERN_VECTOR_BYTES / 2)));
typedef uint16_t Bits16 __attribute__((vector_size(SELKERN_VECTOR_BYTES / 4)));

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename T>
struct VectorOf;
template <>
struct VectorOf<double> {
  using type = Float64;
};
template <>
struct VectorOf<float> {
  using type = Float32;
};
template <>
struct VectorOf<Half> {
  using type = Bits16;
};
template <>
struct VectorOf<BFloat16> {
  using type = Bits16;
};
template <>
struct VectorOf<int64_t> {
  using type = Int64;
};
template <typename T>
using Vector = typename VectorOf<T>::type;

// A register full of T. Element-wise work goes by these: whole cache lines are stored fastest.
typedef float FullFloat32 __attribute__((vector_size(SELKERN_VECTOR_BYTES)));
typedef uint16_t FullBits16 __attribute__((vector_size(SELKERN_VECTOR_BYTES)));

template <typename T>
using FullVector =
    std::conditional_t<std::is_same_v<T, double>, Float64,
                       std::conditional_t<std::is_same_v<T, float>, FullFloat32, FullBits16>>;
template <typename T>
constexpr int64_t full_lanes = SELKERN_VECTOR_BYTES / sizeof(T);

template <typename To, typename From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename T, typename V = Vector<T>>
inline V load(const T* from) {
  V values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

template <typename T, typename V>
inline void store(T* to, V values) {
  std::memcpy(to, &values, sizeof(values));
}

// Writes past the caches what is not read again soon, without reading it first. `to` lies on a
// boundary of V; store_fence() comes before another thread may read.
template <typename T, typename V>
inline void store_past_caches(T* to, V values) {
#if SELKERN_VECTOR_BYTES == 64
  if constexpr (sizeof(V) == 64) {
    return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), bit_cast<__m512i>(values));
  }
#elif SELKERN_VECTOR_BYTES == 32
  if constexpr (sizeof(V) == 32) {
    return _mm256_stream_si256(reinterpret_cast<__m256i*>(to), bit_cast<__m256i>(values));
  }
#endif
  store(to, values);
}

inline void store_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Asks for the cache line one page ahead: the hardware's own prefetching stops at the page's end.
inline void prefetch(const void* address) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(address) + 4096));
}

template <typename T>
inline void prefetch_row(const T* row, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / sizeof(T)) prefetch(row + i);
}

// The first count elements; the others are zero.
template <typename T, typename V = Vector<T>>
inline V load_first(const T* from, int64_t count) {
  constexpr int64_t size = sizeof(V) / sizeof(T);
  if (count >= size) return load<T, V>(from);
  T buffer[size];
  for (int64_t i = 0; i < size; ++i) buffer[i] = i < count ? from[i] : T{};
  return load<T, V>(buffer);
}

template <typename T, typename V>
inline void store_first(T* to, V values, int64_t count) {
  constexpr int64_t size = sizeof(V) / sizeof(T);
  if (count >= size) return store(to, values);
  T buffer[size];
  store(buffer, values);
  for (int64_t i = 0; i < size; ++i) {
    if (i < count) to[i] = buffer[i];
  }
}

inline Float32 float32_from_half_bits(Bits32 half) {
  const Bits32 exponent_mask = Bits32{} + (0x7c00u << 13);
  Bits32 bits = (half & 0x7fffu) << 13;
  const Bits32 exponent = bits & exponent_mask;
  bits += (127u - 15u) << 23;
  bits += (exponent == exponent_mask) ? Bits32{} + ((128u - 16u) << 23) : Bits32{};
  // Subnormal: renormalised by the subtraction, without touching a subnormal float32.
  const Bits32 renormalised = bit_cast<Bits32>(bit_cast<Float32>(bits + (1u << 23)) -
                                               bit_cast<Float32>(Bits32{} + (113u << 23)));
  bits = (exponent == 0u) ? renormalised : bits;
  return bit_cast<Float32>(bits | ((half & 0x8000u) << 16));
}

inline Bits32 half_bits_from_float32(Float32 value) {
  const Bits32 all = bit_cast<Bits32>(value);
  const Bits32 bits = all & 0x7fffffffu;
  const Bits32 normal = (bits + 0xc8000fffu + ((bits >> 13) & 1u)) >> 13;
  // The addition of 0.5 rounds to the spacing of float16's subnormals.
  const Bits32 half_one = Bits32{} + 0x3f000000u;
  const Bits32 subnormal =
      bit_cast<Bits32>(bit_cast<Float32>(bits) + bit_cast<Float32>(half_one)) - half_one;
  Bits32 half = (bits < 0x38800000u) ? subnormal : normal;
  half = (bits >= 0x477ff000u) ? Bits32{} + 0x7c00u : half;
  half = (bits > 0x7f800000u) ? Bits32{} + 0x7e00u : half;
  return half | ((all >> 16) & 0x8000u);
}

inline Float64 float64_from_float32(Float32 values) {
#if SELKERN_VECTOR_BYTES == 64
  // One instruction, where gcc 12 makes five of the generic conversion. Its unmasked form warns.
  return _mm512_maskz_cvtps_pd(0xff, values);
#else
  return __builtin_convertvector(values, Float64);
#endif
}

template <typename T>
inline Float64 widen(Vector<T> values) {
  if constexpr (std::is_same_v<T, double>) {
    return values;
  } else if constexpr (std::is_same_v<T, float>) {
    return float64_from_float32(values);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    const Bits32 bits = __builtin_convertvector(values, Bits32) << 16;
    return float64_from_float32(bit_cast<Float32>(bits));
  } else {
#if SELKERN_HAS_F16C && SELKERN_VECTOR_BYTES == 64
    const Float32 single = bit_cast<Float32>(_mm256_cvtph_ps(bit_cast<__m128i>(values)));
#elif SELKERN_HAS_F16C
    int64_t bits;
    std::memcpy(&bits, &values, sizeof(bits));
    const Float32 single = bit_cast<Float32>(_mm_cvtph_ps(_mm_cvtsi64_si128(bits)));
#else
    const Float32 single = float32_from_half_bits(__builtin_convertvector(values, Bits32));
#endif
    return float64_from_float32(single);
  }
}

template <typename T>
inline Vector<T> narrow(Float64 values) {
  if constexpr (std::is_same_v<T, double>) {
    return values;
  } else {
    const Float32 single = __builtin_convertvector(values, Float32);
    if constexpr (std::is_same_v<T, float>) {
      return single;
    } else if constexpr (std::is_same_v<T, BFloat16>) {
      const Bits32 bits = bit_cast<Bits32>(single);
      Bits32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
      rounded = ((bits & 0x7fffffffu) > 0x7f800000u) ? (bits >> 16) | 0x40u : rounded;
      return __builtin_convertvector(rounded, Bits16);
    } else {
      return __builtin_convertvector(half_bits_from_float32(single), Bits16);
    }
  }
}

// relu of a vector of T, of any length.
template <typename T, typename V>
inline V relu(V values) {
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) {
    return (values <= 0) ? V{} : values;
  } else {
    constexpr uint16_t infinity = std::is_same_v<T, Half> ? 0x7c00 : 0x7f80;
    const V is_positive = (V)(values < uint16_t(0x8000));
    const V is_nan = (V)((values & uint16_t(0x7fff)) > infinity);
    return values & (is_positive | is_nan);
  }
}

// Runs Kernel<T>::run for the element type that dtype names.
template <template <typename> class Kernel, typename Params>
inline void run_for(DType dtype, const Params& params, int64_t begin, int64_t end) {
  switch (dtype) {
    case DType::float16:
      return Kernel<Half>::run(params, begin, end);
    case DType::bfloat16:
      return Kernel<BFloat16>::run(params, begin, end);
    case DType::float32:
      return Kernel<float>::run(params, begin, end);
    case DType::float64:
      return Kernel<double>::run(params, begin, end);
  }
}

// float64 for float64, otherwise float32.
template <typename T>
using Result = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace selkern::cpu::SELKERN_ISA
