// The ways a block walks over its part of a batch of feature maps, several loads in flight.
#pragma once

#include "cuda/pooling_plan.h"
#include "cuda/vectors.cuh"

namespace selkern::cuda {

// A kind as a type: a kernel for that kind alone takes no more registers than it needs.
struct RowGroups {};
struct LongRows {};
struct UnitsLast {};
struct UnitsLastScalar {};

template <typename Function>
__host__ __device__ __forceinline__ void for_map_kind(MapKind kind, Function function) {
  switch (kind) {
    case MapKind::row_groups:
      return function(RowGroups{});
    case MapKind::long_rows:
      return function(LongRows{});
    case MapKind::units_last:
      return function(UnitsLast{});
    case MapKind::units_last_scalar:
      return function(UnitsLastScalar{});
  }
}

// The part of a launch that one block works on.
struct MapTile {
  int64_t sample;
  int64_t first_unit;
  int64_t split;
  int64_t begin;  // positions
  int64_t end;

  __device__ __forceinline__ MapTile(const MapPlan& plan, unsigned block) {
    // A launch has less than 2^31 blocks, and 32-bit division is much faster.
    unsigned tile = block;
    split = sample = 0;
    if (plan.splits > 1) {
      tile = block / unsigned(plan.splits);
      split = block % unsigned(plan.splits);
    }
    if (plan.samples > 1) {
      sample = tile / unsigned(plan.tiles);
      tile %= unsigned(plan.tiles);
    }
    first_unit = tile * plan.tile_units;
    begin = split * plan.split_positions;
    end = min(begin + plan.split_positions, plan.positions);
  }
};

// Calls visit(v, pack v of x, pack v of other) for vectors [0, vectors) at 16-byte boundaries, by
// all threads of the block. Without `other` its pack holds nothing.
template <typename T, typename Index, typename Visit>
__device__ __forceinline__ void for_each_vector(const T* x, const T* other, Index vectors,
                                                Visit visit) {
  constexpr int width = vector_size<T>;
  for (Index v = threadIdx.x; v < vectors; v += block_threads * loads_in_flight) {
    LoadedPack<T, width> packs[loads_in_flight], others[loads_in_flight];
    const T* const of_x = x + int64_t(v) * width;
    const T* const of_other = other + int64_t(v) * width;
#pragma unroll
    for (int j = 0; j < loads_in_flight; ++j) {
      if (v + j * block_threads < vectors) {
        packs[j] = load<width>(of_x + j * block_threads * width);
        if (other) others[j] = load<width>(of_other + j * block_threads * width);
      }
    }
#pragma unroll
    for (int j = 0; j < loads_in_flight; ++j) {
      const Index i = v + j * block_threads;
      if (i < vectors) visit(i, packs[j].unpack(), others[j].unpack());
    }
  }
}

// Calls visit(i, pack of x + i, pack of other + i) for adjacent elements [0, count). Vectors where
// x lies on a 16-byte boundary, if all that visit touches lies alike (aligned_alike), and single
// elements elsewhere.
template <typename T, typename Visit>
__device__ __forceinline__ void for_each_pack(const T* x, const T* other, int64_t count,
                                              bool aligned_alike, Visit visit) {
  constexpr int width = vector_size<T>;
  const int64_t to_boundary = elements_to_boundary(x);
  const int64_t head = aligned_alike && to_boundary < count ? to_boundary : count;
  const int64_t vectors = (count - head) / width;
  const auto visit_elements = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin + threadIdx.x; i < end; i += block_threads) {
      visit(i, load<1>(x + i).unpack(), other ? load<1>(other + i).unpack() : Pack<T, 1>{});
    }
  };
  visit_elements(0, head);
  visit_elements(head + vectors * width, count);
  for_each_vector(x + head, other ? other + head : nullptr, vectors,
                  [&](int64_t v, const auto& pack, const auto& incoming) {
                    visit(head + v * width, pack, incoming);
                  });
}

// A thread's place in a units-last tile: which units, and which positions of every `groups`.
struct UnitsLastThread {
  int lane;
  int group;
  int groups;

  __device__ __forceinline__ explicit UnitsLastThread(int lanes)
      : lane(int(threadIdx.x) % lanes),
        group(int(threadIdx.x) / lanes),
        groups(block_threads / lanes) {}
};

// Calls visit(position, pack of x, pack of other) for every `groups`-th position from
// begin + group, and end_batch() after each few of them. x and other point at the thread's units at
// position 0.
template <int width, typename T, typename Visit, typename EndBatch>
__device__ __forceinline__ void for_each_position(const T* x, int64_t x_stride, const T* other,
                                                  int64_t other_stride, int64_t begin, int64_t end,
                                                  const UnitsLastThread& thread, Visit visit,
                                                  EndBatch end_batch) {
  const int64_t step = thread.groups;
  for (int64_t p = begin + thread.group; p < end; p += step * loads_in_flight) {
    LoadedPack<T, width> packs[loads_in_flight], others[loads_in_flight];
#pragma unroll
    for (int j = 0; j < loads_in_flight; ++j) {
      // Past the end the first again: a load under a condition would be asked for when it is used.
      const int64_t position = p + j * step < end ? p + j * step : p;
      packs[j] = load<width>(x + position * x_stride);
      if (other) others[j] = load<width>(other + position * other_stride);
    }
#pragma unroll
    for (int j = 0; j < loads_in_flight; ++j) {
      if (p + j * step < end) visit(p + j * step, packs[j].unpack(), others[j].unpack());
    }
    end_batch();
  }
}

}  // namespace selkern::cuda
