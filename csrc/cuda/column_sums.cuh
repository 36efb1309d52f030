// Compensated sums over the rows of a tile of columns, by one block of threads.
#pragma once

#include "cuda/numeric.cuh"
#include "cuda/vectors.cuh"

namespace selkern::cuda {

constexpr int column_threads = 512;

// A thread takes as many adjacent columns as a vector holds, and every groups-th row.
template <typename T>
struct ColumnTile {
  static constexpr int width = vector_size<T>;

  int lanes;      // threads side by side
  int lane;       // of this thread
  int group;      //
  int groups;     //
  int64_t first;  // column of this thread
  int columns;    // of this thread, at most width
  bool vectors;   // whether rows are aligned to vectors

  __device__ __forceinline__ ColumnTile(int lanes, int64_t tile, int64_t all_columns, bool vectors)
      : lanes(lanes),
        lane(int(threadIdx.x) % lanes),
        group(int(threadIdx.x) / lanes),
        groups(column_threads / lanes),
        first((tile * lanes + lane) * width),
        columns(int(max(int64_t(0), min(int64_t(width), all_columns - first)))),
        vectors(vectors) {}

  // Calls visit(row, pack) for this thread's rows from begin to end. x: this thread's first column
  // of row 0. What a pack holds beyond the columns is undefined.
  template <typename Visit>
  __device__ __forceinline__ void for_each_row(const T* x, int64_t row_stride, int64_t begin,
                                               int64_t end, Visit visit) const {
    if (columns == 0) return;
    if (vectors) {
      visit_rows<LoadedPack<T, width>>(x, row_stride, begin, end, visit);
    } else {
      visit_rows<SingleElements>(x, row_stride, begin, end, visit);
    }
  }

  // Columns that are loaded one by one.
  struct SingleElements {
    Pack<T, width> pack;

    __device__ __forceinline__ Pack<T, width> unpack() const { return pack; }
  };

  template <typename Loaded, typename Visit>
  __device__ __forceinline__ void visit_rows(const T* x, int64_t row_stride, int64_t begin,
                                             int64_t end, Visit visit) const {
    for (int64_t row = begin + group; row < end; row += groups * loads_in_flight) {
      Loaded packs[loads_in_flight];
#pragma unroll
      for (int j = 0; j < loads_in_flight; ++j) {
        const int64_t r = row + j * groups;
        if (r < end) packs[j] = load_columns<Loaded>(x + r * row_stride);
      }
#pragma unroll
      for (int j = 0; j < loads_in_flight; ++j) {
        const int64_t r = row + j * groups;
        if (r < end) visit(r, packs[j].unpack());
      }
    }
  }

  template <typename Loaded>
  __device__ __forceinline__ Loaded load_columns(const T* x) const {
    if constexpr (std::is_same_v<Loaded, SingleElements>) {
      Loaded loaded;
#pragma unroll
      for (int c = 0; c < width; ++c) loaded.pack.values[c] = x[c < columns ? c : 0];
      return loaded;
    } else {
      return load<width>(x);
    }
  }

  // Adds the sums of all groups into those of the first. stage: column_threads * width; the slots
  // of the first group stay free.
  template <typename R>
  __device__ __forceinline__ void add_groups(CompensatedSum<R> (&sums)[width],
                                             CompensatedSum<R>* stage) const {
    // The slots of a round are those of its givers alone, so rounds need no barrier between them.
    for (int half = groups / 2; half > 0; half /= 2) {
      if (group >= half && group < 2 * half) {
#pragma unroll
        for (int c = 0; c < width; ++c) stage[c * column_threads + int(threadIdx.x)] = sums[c];
      }
      __syncthreads();
      if (group < half) {
        const int giver = int(threadIdx.x) + half * lanes;
#pragma unroll
        for (int c = 0; c < width; ++c) sums[c].add(stage[c * column_threads + giver]);
      }
    }
  }
};

}  // namespace selkern::cuda
