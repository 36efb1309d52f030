// Gradient of relu and of the spatial mean of its result, by one block of threads.
#pragma once

#include "cuda/block_buffer.cuh"
#include "cuda/numeric.cuh"
#include "cuda/pooling_streams.cuh"

namespace selkern::cuda {

// grad_x = (y <= 0 ? 0 : grad_y + grad_mean / positions)
struct ReluBackward {
  MapPlan plan;
  const void* y;              // [samples, units, positions]
  void* grad_x;               // the same, with the same strides
  MapStrides strides;         //
  const void* grad_y;         // the same shape, or null
  MapStrides grad_y_strides;  //
  const void* grad_mean;      // [samples, units], units adjacent, or null
  int64_t grad_mean_stride;   // elements between samples
  int64_t units;              // of a sample, before samples were folded
};

template <typename T>
class ReluDifferentiator {
 public:
  __device__ __forceinline__ ReluDifferentiator(const ReluBackward& task, unsigned block)
      : task_(task),
        plan_(task.plan),
        tile_(task.plan, block),
        y_(static_cast<const T*>(task.y) + offset(task.strides)),
        grad_x_(static_cast<T*>(task.grad_x) + offset(task.strides)),
        grad_y_(task.grad_y ? static_cast<const T*>(task.grad_y) + offset(task.grad_y_strides)
                            : nullptr) {}

  __device__ __forceinline__ void run(RowGroups) const { differentiate_row_group(); }
  __device__ __forceinline__ void run(LongRows) const { differentiate_long_row(); }
  __device__ __forceinline__ void run(UnitsLast) const {
    differentiate_units_last<vector_size<T>>();
  }
  __device__ __forceinline__ void run(UnitsLastScalar) const { differentiate_units_last<1>(); }

 private:
  using R = Result<T>;

  __device__ __forceinline__ int64_t offset(const MapStrides& strides) const {
    return tile_.sample * strides.sample + tile_.first_unit * strides.unit;
  }

  __device__ __forceinline__ bool aligned_alike(const T* y, const T* grad_y,
                                                const T* grad_x) const {
    const int expected = elements_to_boundary(y);
    return elements_to_boundary(grad_x) == expected &&
           (grad_y == nullptr || elements_to_boundary(grad_y) == expected);
  }

  // What each position of a unit of the tile gets from the gradient of the mean.
  __device__ __forceinline__ R share_of_mean(int unit) const {
    return gradient_of_mean(unit) / R(plan_.positions);
  }

  __device__ __forceinline__ R gradient_of_mean(int unit) const {
    if (task_.grad_mean == nullptr) return 0;
    int64_t sample = tile_.sample, row_unit = tile_.first_unit + unit;
    if (plan_.units != task_.units) {
      sample = row_unit / task_.units;
      row_unit %= task_.units;
    }
    const R* grad_mean = static_cast<const R*>(task_.grad_mean);
    return grad_mean[sample * task_.grad_mean_stride + row_unit];
  }

  __device__ __forceinline__ static T gradient(T y, R grad_y, R share) {
    return narrow<T>(widen(y) <= 0 ? R(0) : grad_y + share);
  }

  // share_of(i): of element i.
  template <typename ShareOf>
  __device__ __forceinline__ void differentiate_row(int64_t begin, int64_t end,
                                                    ShareOf share_of) const {
    const T* y = y_ + begin;
    const T* grad_y = grad_y_ ? grad_y_ + begin : nullptr;
    T* grad_x = grad_x_ + begin;
    for_each_pack(y, grad_y, end - begin, aligned_alike(y, grad_y, grad_x),
                  [&](int64_t i, const auto& pack, const auto& incoming) {
                    auto result = pack;
                    constexpr int width = sizeof(pack.values) / sizeof(T);
#pragma unroll
                    for (int k = 0; k < width; ++k) {
                      const R grad = grad_y ? widen(incoming.values[k]) : R(0);
                      result.values[k] = gradient(pack.values[k], grad, share_of(i + k));
                    }
                    store(grad_x + i, result);
                  });
  }

  __device__ void differentiate_row_group() const {
    const int positions = int(plan_.positions);
    const int rows = int(min(plan_.tile_units, plan_.units - tile_.first_unit));
    // One a map, and a map has at least two positions: with one it would count as units-last.
    R* shares = block_buffer<R>();
    for (int row = threadIdx.x; row < rows; row += block_threads) shares[row] = share_of_mean(row);
    __syncthreads();
    const unsigned reciprocal = plan_.reciprocal;
    differentiate_row(0, int64_t(rows) * positions,
                      [&](int64_t i) { return shares[__umulhi(unsigned(i), reciprocal)]; });
  }

  __device__ void differentiate_long_row() const {
    const R share = share_of_mean(0);
    differentiate_row(tile_.begin, tile_.end, [&](int64_t) { return share; });
  }

  template <int width>
  __device__ void differentiate_units_last() const {
    const UnitsLastThread thread(plan_.lanes);
    const int unit = thread.lane * width;
    if (tile_.first_unit + unit >= plan_.units) return;
    R shares[width];
#pragma unroll
    for (int k = 0; k < width; ++k) shares[k] = gradient_of_mean(unit + k);
    // All are asked for before the first is divided, which waits for it.
#pragma unroll
    for (int k = 0; k < width; ++k) shares[k] /= R(plan_.positions);
    T* grad_x = grad_x_ + unit;
    const int64_t stride = task_.strides.position;
    for_each_position<width>(
        y_ + unit, stride, grad_y_ ? grad_y_ + unit : nullptr, task_.grad_y_strides.position,
        tile_.begin, tile_.end, thread,
        [&](int64_t position, const auto& pack, const auto& incoming) {
          auto result = pack;
#pragma unroll
          for (int k = 0; k < width; ++k) {
            const R grad = grad_y_ ? widen(incoming.values[k]) : R(0);
            result.values[k] = gradient(pack.values[k], grad, shares[k]);
          }
          store(grad_x + position * stride, result);
        },
        [] {});
  }

  const ReluBackward& task_;
  const MapPlan& plan_;
  const MapTile tile_;
  const T* y_;
  T* grad_x_;
  const T* grad_y_;
};

}  // namespace selkern::cuda
