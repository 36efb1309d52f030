#include "cuda/column_sums.cuh"
#include "cuda/launch.cuh"
#include "cuda/numeric.cuh"
#include "cuda/shared_memory.cuh"
#include "cuda/spectrum.h"

namespace selkern::cuda {
namespace {

template <typename R>
struct CenterTask {
  CenterParams params;
  R scale;
  float sum_scale;  // of the samples
  int lanes;
  bool vectors;
};

// The mean in two parts, so that one far from zero is exact beside the spread around it.
template <typename R>
__device__ __forceinline__ CompensatedSum<R> mean_of(const CompensatedSum<R>& sum, int64_t samples,
                                                     R sum_scale) {
  const R count = R(samples), rest = R(samples - int64_t(count));
  const R total = sum.value(), high = total / count;
  const R error = (sum.high - total) + sum.low;
  const R remainder = fma(-high, count, total) - high * rest;
  const R low = (remainder + error) / count;
  // What rounding took from an infinite sum is not a number.
  return {high / sum_scale, low == low ? low / sum_scale : R(0)};
}

struct CenterStage;

// A block takes a tile of the columns of one matrix.
template <typename T>
__global__ __launch_bounds__(column_threads, sizeof(T) == sizeof(float) ? 2 : 1) void center_kernel(
    const __grid_constant__ CenterTask<Result<T>> task) {
  using R = Result<T>;
  using Tile = ColumnTile<T>;
  constexpr int width = Tile::width;
  const CenterParams& params = task.params;
  const unsigned tiles = unsigned(divide_up(params.units, task.lanes * width));
  const Tile tile(task.lanes, blockIdx.x % tiles, params.units, task.vectors);
  const int64_t matrix = blockIdx.x / tiles;
  const T* x = static_cast<const T*>(params.x) + matrix * params.matrix_stride + tile.first;

  CompensatedSum<R> sums[width] = {};
  const R sum_scale = task.sum_scale;
  tile.for_each_row(x, params.sample_stride, 0, params.samples,
                    [&](int64_t, const Pack<T, width>& pack) {
#pragma unroll
                      for (int c = 0; c < width; ++c) {
                        sums[c].add(widen(pack.values[c]) * sum_scale);
                      }
                    });
  auto* stage = static_shared<CenterStage, CompensatedSum<R>, column_threads * width>();
  tile.add_groups(sums, stage);
  if (tile.group == 0) {
#pragma unroll
    for (int c = 0; c < width; ++c) {
      stage[c * column_threads + tile.lane] = mean_of(sums[c], params.samples, sum_scale);
    }
  }
  __syncthreads();
#pragma unroll
  for (int c = 0; c < width; ++c) sums[c] = stage[c * column_threads + tile.lane];

  R* centered = static_cast<R*>(params.centered) + matrix * params.samples * params.units;
  tile.for_each_row(
      x, params.sample_stride, 0, params.samples, [&](int64_t row, const Pack<T, width>& pack) {
        R values[width];
#pragma unroll
        for (int c = 0; c < width; ++c) {
          values[c] = ((widen(pack.values[c]) - sums[c].high) - sums[c].low) * task.scale;
        }
        R* out = centered + row * params.units + tile.first;
        if (tile.vectors) {
          constexpr int part = vector_size<R>;
#pragma unroll
          for (int c = 0; c < width; c += part) {
            Pack<R, part> stored;
#pragma unroll
            for (int i = 0; i < part; ++i) stored.values[i] = values[c + i];
            store(out + c, stored);
          }
        } else {
#pragma unroll
          for (int c = 0; c < width; ++c) {
            if (c < tile.columns) out[c] = values[c];
          }
        }
      });
}

// So narrow that there are tiles for many multiprocessors, but not below 64 adjacent bytes. Not by
// the number of matrices: what a sum is taken in must not depend on it.
int lanes_of(int64_t units, int width) {
  constexpr int64_t enough_tiles = 264;
  int lanes = 64;
  while (lanes > 4 && divide_up(units, lanes * width) < enough_tiles) lanes /= 2;
  return lanes;
}

}  // namespace

void launch_center(const CenterParams& params, cudaStream_t stream) {
  for_dtype(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using R = Result<T>;
    constexpr int width = vector_size<T>;
    const int64_t steps = params.units | (params.samples > 1 ? params.sample_stride : 0) |
                          (params.matrices > 1 ? params.matrix_stride : 0);
    const bool vectors = vectors_align(steps * int64_t(sizeof(T)), params.x, params.centered);
    const CenterTask<R> task{params, R(params.scale), sum_scale(params.samples),
                             lanes_of(params.units, width), vectors};
    launch(&center_kernel<T>, params.matrices * divide_up(params.units, task.lanes * width),
           column_threads, stream, task);
  });
}

}  // namespace selkern::cuda
