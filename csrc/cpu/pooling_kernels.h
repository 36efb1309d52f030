// Spatial means and the ReLU that takes one along. Included by kernel_table.h.
#pragma once

#include "cpu/elements.h"
#include "cpu/row_sums.h"

namespace selkern::cpu::SELKERN_ISA {

template <typename T>
inline void relu_row(const T* x, T* y, int64_t count) {
  int64_t i = 0;
  for (; i + full_lanes<T> <= count; i += full_lanes<T>) {
    prefetch(x + i);
    store(y + i, relu<T>(load<T, FullVector<T>>(x + i)));
  }
  for (; i < count; i += float64_lanes) {
    store_first(y + i, relu<T>(load_first(x + i, count - i)), count - i);
  }
}

// The first count of lanes elements, the others zero. Elements before limit may be read.
template <typename T>
inline Float64 widen_first(const T* from, int64_t count, const T* limit) {
  if (count >= float64_lanes) return widen<T>(load(from));
  if (from + float64_lanes > limit) return widen<T>(load_first(from, count));
  constexpr int64_t index[] = {0, 1, 2, 3, 4, 5, 6, 7};
  return (load(index) < count) ? widen<T>(load(from)) : Float64{};
}

// Position p of a planar map is added to lane p % 32 and the lanes as a binary tree, so that every
// instruction set gives the same bits.
constexpr int64_t sum_lanes = 32;
constexpr int64_t sum_parts = sum_lanes / float64_lanes;

inline double sum_of_lanes(Float64* part) {
  for (int64_t half = sum_parts / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) part[i] += part[i + half];
  }
  double lane[float64_lanes];
  std::memcpy(lane, part, sizeof(lane));
  for (int64_t half = float64_lanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

template <typename T>
inline double sum_of_block(const T* values, int64_t count, const T* limit) {
  Float64 part[sum_parts] = {};
  int64_t p = 0;
  for (; p + sum_lanes <= count; p += sum_lanes) {
    prefetch_row(values + p, sum_lanes);
    for (int64_t i = 0; i < sum_parts; ++i)
      part[i] += widen<T>(load(values + p + i * float64_lanes));
  }
  // Constant indices, or the sums would not stay in registers.
  for (int64_t i = 0; i < sum_parts; ++i, p += float64_lanes) {
    if (p < count) part[i] += widen_first(values + p, count - p, limit);
  }
  return sum_of_lanes(part);
}

// Elements that stay in the first-level cache between relu and sum.
constexpr int64_t planar_block = 1024;

// Means of `maps` adjacent planar maps, after relu where asked for.
template <typename T, bool with_relu>
inline void planar_means(const T* x, T* y, int64_t maps, int64_t positions, Result<T>* mean) {
  const T* values = with_relu ? y : x;
  const double scale = 1.0 / positions;
  if (positions <= planar_block) {
    if constexpr (with_relu) relu_row(x, y, maps * positions);
    const T* limit = values + maps * positions;
    for (int64_t map = 0; map < maps; ++map) {
      mean[map] = sum_of_block(values + map * positions, positions, limit) * scale;
    }
    return;
  }
  for (int64_t map = 0; map < maps; ++map) {
    double total = 0, lost = 0;
    for (int64_t p = map * positions; p < (map + 1) * positions; p += planar_block) {
      const int64_t count = std::min((map + 1) * positions - p, planar_block);
      if constexpr (with_relu) relu_row(x + p, y + p, count);
      add_compensated(sum_of_block(values + p, count, values + p + count), total, lost);
    }
    mean[map] = total * scale;
  }
}

inline bool has_adjacent_maps(const MapLayout& layout) {
  return layout.unit_stride == layout.positions &&
         layout.sample_stride == layout.units * layout.positions;
}

// Planar maps that are worked on together: as many as fit a block where they lie side by side.
inline int64_t maps_together(bool adjacent, int64_t positions) {
  return adjacent ? std::max<int64_t>(1, planar_block / std::max<int64_t>(1, positions)) : 1;
}

inline int64_t map_offset(const MapLayout& layout, int64_t item) {
  return item / layout.units * layout.sample_stride + item % layout.units * layout.unit_stride;
}

// Where relu(x) goes. Without it nothing is stored, and x serves as a valid pointer.
template <typename T, bool with_relu>
inline T* relu_output(const SpatialMeanParams& params) {
  return static_cast<T*>(with_relu ? params.y : const_cast<void*>(params.x));
}

template <typename T, bool with_relu>
void planar_mean(const SpatialMeanParams& params, int64_t begin, int64_t end) {
  const MapLayout& x = params.x_layout;
  const MapLayout& y = params.y_layout;
  const bool adjacent = has_adjacent_maps(x) && (!with_relu || has_adjacent_maps(y));
  const int64_t together = maps_together(adjacent, x.positions);
  for (int64_t item = begin; item < end; item += together) {
    planar_means<T, with_relu>(static_cast<const T*>(params.x) + map_offset(x, item),
                               relu_output<T, with_relu>(params) + map_offset(y, item),
                               std::min(end - item, together), x.positions,
                               static_cast<Result<T>*>(params.mean) + item);
  }
}

template <typename T, bool with_relu>
void channels_last_mean(const SpatialMeanParams& params, int64_t begin, int64_t end) {
  const MapLayout& x = params.x_layout;
  const MapLayout& y = params.y_layout;
  const int64_t blocks = map_items(x) / x.samples;
  const double scale = 1.0 / x.positions;
  double sum[channels_last_block];
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = item / blocks, first = item % blocks * channels_last_block;
    const int64_t width = std::min(x.units - first, channels_last_block);
    const T* x_rows = static_cast<const T*>(params.x) + n * x.sample_stride + first;
    T* y_rows = relu_output<T, with_relu>(params) + n * y.sample_stride + first;
    const auto row_at = [=](int64_t p) {
      const T* x_row = x_rows + p * x.position_stride;
      if constexpr (!with_relu) {
        prefetch_row(x_row, width);
        return x_row;
      }
      T* y_row = y_rows + p * y.position_stride;
      relu_row(x_row, y_row, width);
      return static_cast<const T*>(y_row);
    };
    sum_rows<T>(row_at, x.positions, width, sum);
    auto* mean = static_cast<Result<T>*>(params.mean) + n * x.units + first;
    for (int64_t c = 0; c < width; c += float64_lanes) {
      store_first(mean + c, narrow<Result<T>>(load(sum + c) * scale), width - c);
    }
  }
}

template <typename T>
struct SpatialMean {
  static void run(const SpatialMeanParams& params, int64_t begin, int64_t end) {
    if (params.x_layout.channels_last) {
      params.y ? channels_last_mean<T, true>(params, begin, end)
               : channels_last_mean<T, false>(params, begin, end);
    } else {
      params.y ? planar_mean<T, true>(params, begin, end)
               : planar_mean<T, false>(params, begin, end);
    }
  }
};

inline void spatial_mean(const SpatialMeanParams& params, int64_t begin, int64_t end) {
  run_for<SpatialMean>(params.dtype, params, begin, end);
}

// grad_x = (y <= 0 ? 0 : grad_y + shift) over count elements. shift has one value, or one for each
// element and room for a whole number of vectors; grad_y may be null.
template <typename T, bool shared_shift>
inline void relu_gradient_row(const T* grad_y, const typename Arithmetic<T>::Scalar* shift,
                              const T* y, T* grad_x, int64_t count) {
  using A = Arithmetic<T>;
  using V = FullVector<typename A::Scalar>;
  constexpr int64_t step = A::count;
  for (int64_t i = 0; i < count; i += step) {
    V incoming = shared_shift ? V{} + *shift : load<typename A::Scalar, V>(shift + i);
    prefetch(y + i);
    if (grad_y) {
      prefetch(grad_y + i);
      incoming += A::load(grad_y + i, count - i);
    }
    const V passed = (A::load(y + i, count - i) <= 0) ? V{} : incoming;
    A::store(grad_x + i, passed, count - i);
  }
}

template <typename T>
struct ReluWithMeanBackward {
  using Scalar = typename Arithmetic<T>::Scalar;

  static void run(const ReluWithMeanBackwardParams& params, int64_t begin, int64_t end) {
    params.layout.channels_last ? channels_last(params, begin, end) : planar(params, begin, end);
  }

  static const T* grad_y_at(const ReluWithMeanBackwardParams& params, int64_t offset) {
    return params.grad_y ? static_cast<const T*>(params.grad_y) + offset : nullptr;
  }

  static Scalar shift_at(const ReluWithMeanBackwardParams& params, int64_t n, int64_t c) {
    if (!params.grad_mean) return 0;
    const auto* grad_mean = static_cast<const Result<T>*>(params.grad_mean);
    return double(grad_mean[n * params.grad_mean_stride + c]) / params.layout.positions;
  }

  static void planar(const ReluWithMeanBackwardParams& params, int64_t begin, int64_t end) {
    const MapLayout& layout = params.layout;
    const MapLayout& grad = params.grad_y_layout;
    const bool adjacent = has_adjacent_maps(layout) && (!params.grad_y || has_adjacent_maps(grad));
    const bool whole_vectors = layout.positions % full_lanes<T> == 0;
    const int64_t together = whole_vectors ? 1 : maps_together(adjacent, layout.positions);
    for (int64_t item = begin; item < end; item += together) {
      const int64_t offset = map_offset(layout, item);
      const int64_t maps = std::min(end - item, together);
      const T* grad_y = params.grad_y ? grad_y_at(params, map_offset(grad, item)) : nullptr;
      const T* y = static_cast<const T*>(params.y) + offset;
      T* grad_x = static_cast<T*>(params.grad_x) + offset;
      if (maps == 1) {
        const Scalar shift = shift_at(params, item / layout.units, item % layout.units);
        relu_gradient_row<T, true>(grad_y, &shift, y, grad_x, layout.positions);
      } else {
        Scalar shifts[planar_block + full_lanes<Scalar>];
        spread_shifts(params, item, maps, shifts);
        relu_gradient_row<T, false>(grad_y, shifts, y, grad_x, maps * layout.positions);
      }
    }
  }

  // The shift of each element of adjacent maps. Each map's last vector runs into the next map,
  // which overwrites it.
  static void spread_shifts(const ReluWithMeanBackwardParams& params, int64_t item, int64_t maps,
                            Scalar* shifts) {
    using V = FullVector<Scalar>;
    const int64_t positions = params.layout.positions;
    for (int64_t map = 0; map < maps; ++map) {
      const int64_t n = (item + map) / params.layout.units, c = (item + map) % params.layout.units;
      const V shift = V{} + shift_at(params, n, c);
      for (int64_t p = 0; p < positions; p += full_lanes<Scalar>) {
        store(shifts + map * positions + p, shift);
      }
    }
  }

  static void channels_last(const ReluWithMeanBackwardParams& params, int64_t begin, int64_t end) {
    const MapLayout& layout = params.layout;
    const MapLayout& grad = params.grad_y_layout;
    const int64_t blocks = map_items(layout) / layout.samples;
    Scalar shift[channels_last_block] = {};
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / blocks, first = item % blocks * channels_last_block;
      const int64_t width = std::min(layout.units - first, channels_last_block);
      for (int64_t c = 0; c < width; ++c) shift[c] = shift_at(params, n, first + c);
      for (int64_t p = 0; p < layout.positions; ++p) {
        const int64_t offset = n * layout.sample_stride + p * layout.position_stride + first;
        relu_gradient_row<T, false>(
            grad_y_at(params, n * grad.sample_stride + p * grad.position_stride + first), shift,
            static_cast<const T*>(params.y) + offset, static_cast<T*>(params.grad_x) + offset,
            width);
      }
    }
  }
};

inline void relu_with_mean_backward(const ReluWithMeanBackwardParams& params, int64_t begin,
                                    int64_t end) {
  run_for<ReluWithMeanBackward>(params.dtype, params, begin, end);
}

}  // namespace selkern::cpu::SELKERN_ISA
