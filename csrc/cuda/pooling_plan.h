// How a batch of feature maps is dealt out to the blocks of a launch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <numeric>

#include "common/map_layout.h"
#include "cuda/block.h"

namespace selkern::cuda {

constexpr int stage_bytes = block_threads * loads_in_flight * vector_bytes;
constexpr int64_t most_edges = 512;      // vectors of a block that hold the end of a map
constexpr int64_t enough_blocks = 1024;  // to fill a GPU

enum class MapKind {
  row_groups,         // planar: a block takes as many whole maps as fit its stage
  long_rows,          // planar: a block takes one map, or a part of one
  units_last,         // channels-last: a block takes a tile of units, or a part of its positions
  units_last_scalar,  // the same where vectors of units would not be aligned
};

// In elements.
struct MapStrides {
  int64_t sample;
  int64_t unit;
  int64_t position;
};

struct MapPlan {
  MapKind kind;
  // A power of two. Units-last: threads side by side across units. Row groups: threads that add up
  // one map.
  int lanes;
  uint32_t reciprocal;  // row groups: i / positions = i * reciprocal >> 32 for i in a tile
  int64_t samples;      // where all is dense, samples are folded into units
  int64_t units;        // of a sample
  int64_t positions;
  int64_t tile_units;       // maps of a block
  int64_t tiles;            // of a sample
  int64_t splits;           // blocks that share the positions of a tile
  int64_t split_positions;  // positions of each but the last of these blocks

  int64_t blocks() const { return samples * tiles * splits; }
};

struct MapTensor {
  const void* data;  // null: not there
  MapLayout layout;
};

// Axes of one element may have any stride; here they get the one of a dense tensor.
inline MapStrides strides_of(const MapLayout& layout) {
  MapStrides strides{layout.sample_stride, layout.unit_stride, layout.position_stride};
  if (layout.channels_last) {
    strides.unit = 1;
  } else if (layout.units == 1) {
    strides.unit = layout.positions;
  }
  if (layout.positions == 1 && layout.channels_last) strides.position = layout.units;
  if (layout.samples == 1) strides.sample = layout.units * layout.positions;
  return strides;
}

// Whether all maps, planar or of one position, follow each other without a gap.
inline bool maps_adjoin(const MapLayout& layout) {
  const MapStrides strides = strides_of(layout);
  const bool dense_units =
      layout.channels_last ? layout.positions == 1 : strides.unit == layout.positions;
  return dense_units && strides.sample == layout.units * layout.positions;
}

inline bool vectors_of_units_align(const MapTensor& tensor, const MapPlan& plan, int element_size) {
  const MapStrides strides = strides_of(tensor.layout);
  const int64_t elements = plan.units | (plan.samples > 1 ? strides.sample : 0) |
                           (plan.positions > 1 ? strides.position : 0);
  return vectors_align(elements * element_size, tensor.data);
}

// Splits so that small batches too fill a GPU, but not below `least` positions a block.
inline void choose_splits(MapPlan& plan, int64_t least) {
  constexpr int64_t most_splits = 64;
  const int64_t tiles = std::max<int64_t>(1, plan.samples * plan.tiles);
  const int64_t wanted = std::min(divide_up(enough_blocks, tiles), most_splits);
  const int64_t splits = std::max<int64_t>(1, std::min(wanted, plan.positions / least));
  plan.split_positions = std::max<int64_t>(1, divide_up(plan.positions, splits));
  plan.splits = std::max<int64_t>(1, divide_up(plan.positions, plan.split_positions));
}

// As many whole maps as fit, and where blocks can have whole vectors, only those. Two stages where
// they still fill a GPU, because what a block does but once takes long.
inline void plan_row_groups(MapPlan& plan, int64_t row_bytes, int64_t vector) {
  plan.kind = MapKind::row_groups;
  int64_t most = stage_bytes / row_bytes;
  if (plan.positions >= vector) {
    const bool many = plan.samples * plan.units * row_bytes >= 2 * stage_bytes * enough_blocks;
    const bool fit = vector > 2;  // sums of two stages of vectors of two elements do not
    most = std::min((many && fit ? 2 : 1) * stage_bytes / row_bytes, most_edges);
  }
  if (most < plan.units) most -= most % std::min(most, vector / std::gcd(vector, plan.positions));
  plan.tile_units = std::min(plan.units, most);
  plan.lanes = 1;
  while (plan.lanes < warp_threads && 2 * plan.lanes * plan.tile_units <= block_threads) {
    plan.lanes *= 2;
  }
  // Exact because i * positions stays below 2^32.
  plan.reciprocal = uint32_t(0xffffffff / std::max<int64_t>(1, plan.positions) + 1);
}

// All tensors are of one kind and size. can_split: whether blocks may share the positions of a map.
inline MapPlan plan_maps(std::initializer_list<MapTensor> tensors, int element_size,
                         bool can_split) {
  const MapLayout& layout = tensors.begin()->layout;
  MapPlan plan{};
  plan.samples = layout.samples;
  plan.units = layout.units;
  plan.positions = layout.positions;
  bool fold = true, adjacent_rows = true, vectors = true;
  for (const MapTensor& tensor : tensors) {
    if (tensor.data == nullptr) continue;
    fold = fold && maps_adjoin(tensor.layout);
    adjacent_rows = adjacent_rows && strides_of(tensor.layout).unit == layout.positions;
  }
  if (fold) {
    plan.units *= plan.samples;
    plan.samples = 1;
  }
  for (const MapTensor& tensor : tensors) {
    vectors =
        vectors && (tensor.data == nullptr || vectors_of_units_align(tensor, plan, element_size));
  }

  const int64_t vector = vector_bytes / element_size;
  const int64_t row_bytes = std::max<int64_t>(1, plan.positions) * element_size;
  int64_t least_positions = vector * block_threads * loads_in_flight;
  if (layout.channels_last) {
    plan.kind = vectors ? MapKind::units_last : MapKind::units_last_scalar;
    const int64_t width = vectors ? vector : 1;
    const int64_t most_lanes = plan.positions < loads_in_flight ? block_threads : 64;
    plan.lanes = 1;
    while (plan.lanes < most_lanes && plan.lanes * width < plan.units) plan.lanes *= 2;
    plan.tile_units = plan.lanes * width;
    least_positions = block_threads / plan.lanes * loads_in_flight;
  } else if (row_bytes <= stage_bytes && adjacent_rows) {
    plan_row_groups(plan, row_bytes, vector);
    can_split = false;
  } else {
    plan.kind = MapKind::long_rows;
    plan.tile_units = 1;
  }
  plan.tiles = divide_up(plan.units, plan.tile_units);
  if (can_split) {
    choose_splits(plan, least_positions);
  } else {
    plan.splits = 1;
    plan.split_positions = plan.positions;
  }
  return plan;
}

}  // namespace selkern::cuda
