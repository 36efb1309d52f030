// Spatial means and the ReLU that takes one along. Included by kernel_table.h.
#pragma once

#include "cpu/vectors.h"

namespace selkern::cpu::SELKERN_ISA {

// Loads count elements, stores their relu to y where asked to, and returns them as float64.
template <typename T, bool with_relu>
inline Float64 take(const T* x, T* y, int64_t count) {
  Vector<T> values = load_first(x, count);
  if constexpr (with_relu) {
    values = relu<T>(values);
    store_first(y, values, count);
  }
  return widen<T>(values);
}

// Element p is added to lane p % 32 and the lanes as a binary tree, so that every instruction set
// gives the same bits.
constexpr int64_t sum_lanes = 32;
constexpr int64_t sum_parts = sum_lanes / lanes;

inline double sum_of_lanes(Float64* part) {
  for (int64_t half = sum_parts / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) part[i] += part[i + half];
  }
  double lane[lanes];
  std::memcpy(lane, part, sizeof(lane));
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

template <typename T, bool with_relu>
inline double planar_sum(const T* x, T* y, int64_t positions) {
  Float64 part[sum_parts] = {};
  int64_t p = 0;
  for (; p + sum_lanes <= positions; p += sum_lanes) {
    for (int64_t i = 0; i < sum_parts; ++i) {
      part[i] += take<T, with_relu>(x + p + i * lanes, y + p + i * lanes, lanes);
    }
  }
  // Constant indices, or the sums would not stay in registers.
  for (int64_t i = 0; i < sum_parts; ++i, p += lanes) {
    if (p < positions) part[i] += take<T, with_relu>(x + p, y + p, positions - p);
  }
  return sum_of_lanes(part);
}

// Sample and unit of the planar maps in turn, with one division at the start.
class MapIndex {
 public:
  inline MapIndex(int64_t item, int64_t units) : n(item / units), c(item % units), units_(units) {}

  inline void next() {
    if (++c == units_) {
      c = 0;
      ++n;
    }
  }

  int64_t n;
  int64_t c;

 private:
  int64_t units_;
};

// Where relu(x) goes. Without it nothing is stored, and x serves as a valid pointer.
template <typename T, bool with_relu>
inline T* relu_output(const SpatialMeanParams& params) {
  return static_cast<T*>(with_relu ? params.y : const_cast<void*>(params.x));
}

template <typename T, bool with_relu>
void planar_mean(const SpatialMeanParams& params, int64_t begin, int64_t end) {
  const MapLayout& x = params.x_layout;
  const MapLayout& y = params.y_layout;
  MapIndex at(begin, x.units);
  for (int64_t item = begin; item < end; ++item, at.next()) {
    const int64_t n = at.n, c = at.c;
    const T* x_map = static_cast<const T*>(params.x) + n * x.sample_stride + c * x.unit_stride;
    T* y_map = relu_output<T, with_relu>(params) + n * y.sample_stride + c * y.unit_stride;
    const double sum = planar_sum<T, with_relu>(x_map, y_map, x.positions);
    static_cast<Result<T>*>(params.mean)[item] = sum / x.positions;
  }
}

// Positions p to p + 3 of lanes adjacent units.
template <typename T, bool with_relu>
inline Float64 take_four(const T* x, int64_t x_stride, T* y, int64_t y_stride, int64_t count) {
  const Float64 first =
      take<T, with_relu>(x, y, count) + take<T, with_relu>(x + x_stride, y + y_stride, count);
  const Float64 second = take<T, with_relu>(x + 2 * x_stride, y + 2 * y_stride, count) +
                         take<T, with_relu>(x + 3 * x_stride, y + 3 * y_stride, count);
  return first + second;
}

template <typename T, bool with_relu>
inline Float64 column_sum(const T* x, int64_t x_stride, T* y, int64_t y_stride, int64_t positions,
                          int64_t count) {
  Float64 sum = {};
  int64_t p = 0;
  for (; p + 4 <= positions; p += 4) {
    sum += take_four<T, with_relu>(x + p * x_stride, x_stride, y + p * y_stride, y_stride, count);
  }
  for (; p < positions; ++p) {
    sum += take<T, with_relu>(x + p * x_stride, y + p * y_stride, count);
  }
  return sum;
}

template <typename T, bool with_relu>
void channels_last_block_mean(const T* x, int64_t x_stride, T* y, int64_t y_stride,
                              int64_t positions, int64_t units, Result<T>* mean) {
  const int64_t whole = units / lanes * lanes;
  Float64 sum[channels_last_block / lanes];
  std::memset(sum, 0, whole * sizeof(double));
  int64_t p = 0;
  for (; p + 4 <= positions; p += 4) {
    const T* x_row = x + p * x_stride;
    T* y_row = y + p * y_stride;
    for (int64_t c = 0; c < whole; c += lanes) {
      sum[c / lanes] += take_four<T, with_relu>(x_row + c, x_stride, y_row + c, y_stride, lanes);
    }
  }
  for (; p < positions; ++p) {
    for (int64_t c = 0; c < whole; c += lanes) {
      sum[c / lanes] += take<T, with_relu>(x + p * x_stride + c, y + p * y_stride + c, lanes);
    }
  }
  const double count = positions;
  for (int64_t c = 0; c < whole; c += lanes) {
    store(mean + c, narrow<Result<T>>(sum[c / lanes] / count));
  }
  if (whole < units) {
    // The last units, as a whole vector that overlaps the ones before where there are enough.
    const int64_t c = std::max<int64_t>(0, units - lanes);
    const int64_t width = std::min(units, lanes);
    const Float64 last =
        column_sum<T, with_relu>(x + c, x_stride, y + c, y_stride, positions, width);
    store_first(mean + c, narrow<Result<T>>(last / count), width);
  }
}

template <typename T, bool with_relu>
void channels_last_mean(const SpatialMeanParams& params, int64_t begin, int64_t end) {
  const MapLayout& x = params.x_layout;
  const MapLayout& y = params.y_layout;
  const int64_t blocks = map_items(x) / x.samples;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = item / blocks;
    const int64_t c = item % blocks * channels_last_block;
    channels_last_block_mean<T, with_relu>(
        static_cast<const T*>(params.x) + n * x.sample_stride + c, x.position_stride,
        relu_output<T, with_relu>(params) + n * y.sample_stride + c, y.position_stride, x.positions,
        std::min(x.units - c, channels_last_block),
        static_cast<Result<T>*>(params.mean) + n * x.units + c);
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

// count elements of grad_x = (y <= 0 ? 0 : grad_y + shift); grad_y may be null.
template <typename T>
inline void relu_gradient(const T* grad_y, Float64 shift, const T* y, T* grad_x, int64_t count) {
  const Float64 incoming = grad_y ? widen<T>(load_first(grad_y, count)) + shift : shift;
  const Float64 passed = (widen<T>(load_first(y, count)) <= 0) ? Float64{} : incoming;
  store_first(grad_x, narrow<T>(passed), count);
}

template <typename T>
struct ReluWithMeanBackward {
  static void run(const ReluWithMeanBackwardParams& params, int64_t begin, int64_t end) {
    params.layout.channels_last ? channels_last(params, begin, end) : planar(params, begin, end);
  }

  static void planar(const ReluWithMeanBackwardParams& params, int64_t begin, int64_t end) {
    const MapLayout& layout = params.layout;
    const MapLayout& grad = params.grad_y_layout;
    const auto* grad_mean = static_cast<const Result<T>*>(params.grad_mean);
    MapIndex at(begin, layout.units);
    for (int64_t item = begin; item < end; ++item, at.next()) {
      const int64_t n = at.n, c = at.c;
      const int64_t offset = n * layout.sample_stride + c * layout.unit_stride;
      const T* grad_y = params.grad_y ? static_cast<const T*>(params.grad_y) +
                                            n * grad.sample_stride + c * grad.unit_stride
                                      : nullptr;
      const double shift =
          grad_mean ? double(grad_mean[n * params.grad_mean_stride + c]) / layout.positions : 0.0;
      planar_map(grad_y, shift, static_cast<const T*>(params.y) + offset,
                 static_cast<T*>(params.grad_x) + offset, layout.positions);
    }
  }

  static void planar_map(const T* grad_y, double shift, const T* y, T* grad_x, int64_t positions) {
    const Float64 shifts = Float64{} + shift;
    int64_t p = 0;
    for (; p + lanes <= positions; p += lanes) {
      relu_gradient(grad_y ? grad_y + p : nullptr, shifts, y + p, grad_x + p, lanes);
    }
    if (p < positions) {
      relu_gradient(grad_y ? grad_y + p : nullptr, shifts, y + p, grad_x + p, positions - p);
    }
  }

  static void channels_last(const ReluWithMeanBackwardParams& params, int64_t begin, int64_t end) {
    const MapLayout& layout = params.layout;
    const int64_t blocks = map_items(layout) / layout.samples;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / blocks;
      const int64_t c = item % blocks * channels_last_block;
      channels_last_map(params, n, c, std::min(layout.units - c, channels_last_block));
    }
  }

  static void channels_last_map(const ReluWithMeanBackwardParams& params, int64_t n, int64_t first,
                                int64_t units) {
    const MapLayout& layout = params.layout;
    const MapLayout& grad = params.grad_y_layout;
    double shift[channels_last_block + lanes] = {};
    if (params.grad_mean) {
      const auto* grad_mean = static_cast<const Result<T>*>(params.grad_mean);
      grad_mean += n * params.grad_mean_stride + first;
      for (int64_t c = 0; c < units; ++c) shift[c] = double(grad_mean[c]) / layout.positions;
    }
    for (int64_t p = 0; p < layout.positions; ++p) {
      const int64_t offset = n * layout.sample_stride + p * layout.position_stride + first;
      const T* grad_y = params.grad_y
                            ? static_cast<const T*>(params.grad_y) + n * grad.sample_stride +
                                  p * grad.position_stride + first
                            : nullptr;
      const T* y = static_cast<const T*>(params.y) + offset;
      T* grad_x = static_cast<T*>(params.grad_x) + offset;
      int64_t c = 0;
      for (; c + lanes <= units; c += lanes) {
        relu_gradient(grad_y ? grad_y + c : nullptr, load(shift + c), y + c, grad_x + c, lanes);
      }
      if (c < units) {
        relu_gradient(grad_y ? grad_y + c : nullptr, load(shift + c), y + c, grad_x + c, units - c);
      }
    }
  }
};

inline void relu_with_mean_backward(const ReluWithMeanBackwardParams& params, int64_t begin,
                                    int64_t end) {
  run_for<ReluWithMeanBackward>(params.dtype, params, begin, end);
}

}  // namespace selkern::cpu::SELKERN_ISA
