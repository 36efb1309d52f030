#include <algorithm>
#include <cmath>
#include <string>

#include "common/spectrum_power_law.h"
#include "cuda/column_sums.cuh"
#include "cuda/last_block.cuh"
#include "cuda/launch.cuh"
#include "cuda/numeric.cuh"
#include "cuda/shared_memory.cuh"
#include "cuda/spectrum.h"
#include "cuda/spectrum_penalty.cuh"
#include "cuda/spectrum_sort.cuh"
#include "cuda/warp.cuh"

namespace selkern::cuda {
namespace {

constexpr int warps = column_threads / warp_threads;
constexpr int lanes = 32;  // a tile's threads side by side

template <typename T>
struct BasisTask {
  const T* projected;
  int64_t samples;
  int64_t columns;
  T scale;
  T* spectrum;
  int64_t* order;
  PowerLawOf<T> law;
  T* penalty;  // or null
  T* derivative;
  BasisPlan plan;
  T* shares;
  unsigned* blocks_done;
  SortEntry<T>* entries;
  bool vectors;
};

// Of a block. The sums of the threads and, after them, the entries to be sorted come behind it.
template <typename T>
struct alignas(16) BasisMemory {
  OrderedBits<T> largest[warps];
  CompensatedSum<T> penalties[warps];
  bool is_last;
};

template <typename T>
constexpr int64_t stage_of_sums =
    column_threads * vector_size<T> * int64_t(sizeof(CompensatedSum<T>));

// Sums of squares of a tile of columns, over this block's share of the samples.
template <typename T>
__device__ __forceinline__ void sum_squares(const BasisTask<T>& task, int64_t matrix,
                                            unsigned block, CompensatedSum<T>* stage) {
  using Tile = ColumnTile<T>;
  const unsigned splits = unsigned(task.plan.splits);
  const int64_t split = block % splits, begin = split * task.plan.share_rows;
  const Tile tile(lanes, block / splits, task.columns, task.vectors);
  CompensatedSum<T> sums[Tile::width] = {};
  tile.for_each_row(task.projected + matrix * task.samples * task.columns + tile.first,
                    task.columns, begin, min(begin + task.plan.share_rows, task.samples),
                    [&](int64_t, const Pack<T, Tile::width>& pack) {
#pragma unroll
                      for (int c = 0; c < Tile::width; ++c) {
                        sums[c].add(pack.values[c] * pack.values[c]);
                      }
                    });
  tile.add_groups(sums, stage);
  if (tile.group > 0) return;
  T* shares = task.shares + (matrix * splits + split) * task.columns + tile.first;
#pragma unroll
  for (int c = 0; c < Tile::width; ++c) {
    if (c < tile.columns) shares[c] = sums[c].value();
  }
}

// By the last block of a matrix.
template <typename T>
class SpectrumOfMatrix {
 public:
  __device__ __forceinline__ SpectrumOfMatrix(const BasisTask<T>& task, int64_t matrix,
                                              BasisMemory<T>* memory, SortEntry<T>* entries)
      : task_(task), matrix_(matrix), memory_(memory), entries_(entries) {}

  __device__ __forceinline__ void compute() const {
    const T largest = add_shares();
    drop_rounding(largest);
    sort_entries<T, column_threads>(entries_, unsigned(task_.plan.sort_size));
    T* spectrum = task_.spectrum + matrix_ * task_.columns;
    int64_t* order = task_.order + matrix_ * task_.columns;
    for (int64_t i = threadIdx.x; i < task_.columns; i += column_threads) {
      spectrum[i] = entries_[i].variance();
      order[i] = entries_[i].column;
    }
    if (task_.penalty == nullptr) return;
    T* derivative = task_.derivative + matrix_ * task_.columns;
    penalise<T, column_threads>(
        task_.law, matrix_, task_.columns, largest - largest == 0,
        [&](int64_t rank) { return entries_[rank - 1].variance(); },
        [&](int64_t rank, T value) { derivative[entries_[rank - 1].column] = value; },
        memory_->penalties, task_.penalty);
  }

 private:
  // Returns the largest variance, not a number where one is not.
  __device__ __forceinline__ T add_shares() const {
    OrderedBits<T> largest = 0;
    const T* shares = task_.shares + matrix_ * task_.plan.splits * task_.columns;
    for (int64_t i = threadIdx.x; i < task_.columns; i += column_threads) {
      T sum = 0;
      for (int64_t split = 0; split < task_.plan.splits; ++split) {
        sum += __ldcg(shares + split * task_.columns + i);
      }
      const T variance = sum == sum ? sum * task_.scale : T(NAN);
      entries_[i] = SortEntry<T>::of(variance, i);
      largest = max(largest, ordered_bits(variance));
    }
    largest = lane_max(largest);
    if (threadIdx.x % warp_threads == 0) memory_->largest[threadIdx.x / warp_threads] = largest;
    __syncthreads();
    for (int w = 0; w < warps; ++w) largest = max(largest, memory_->largest[w]);
    return number_with(largest);
  }

  __device__ __forceinline__ void drop_rounding(T largest) const {
    for (int64_t i = threadIdx.x; i < task_.plan.sort_size; i += column_threads) {
      entries_[i] = i < task_.columns
                        ? SortEntry<T>::of(without_rounding(entries_[i].variance(), largest), i)
                        : SortEntry<T>::none();
    }
  }

  const BasisTask<T>& task_;
  const int64_t matrix_;
  BasisMemory<T>* const memory_;
  SortEntry<T>* const entries_;
};

template <typename T>
__global__ __launch_bounds__(column_threads) void basis_spectrum_kernel(
    const __grid_constant__ BasisTask<T> task) {
  auto* memory = dynamic_shared<BasisMemory<T>>();
  const unsigned blocks = unsigned(task.plan.blocks());
  const int64_t matrix = blockIdx.x / blocks;
  sum_squares(task, matrix, blockIdx.x % blocks, reinterpret_cast<CompensatedSum<T>*>(memory + 1));
  if (blocks == 1) {
    __syncthreads();
  } else if (!is_last_block(task.blocks_done + matrix, blocks, &memory->is_last)) {
    return;
  }
  auto* entries = task.plan.sorts_in_shared_memory ? reinterpret_cast<SortEntry<T>*>(memory + 1)
                                                   : task.entries + matrix * task.plan.sort_size;
  SpectrumOfMatrix<T>(task, matrix, memory, entries).compute();
}

template <typename T>
int64_t shared_bytes(const BasisPlan& plan) {
  const int64_t sorting =
      plan.sorts_in_shared_memory ? plan.sort_size * int64_t(sizeof(SortEntry<T>)) : 0;
  return sizeof(BasisMemory<T>) + std::max(stage_of_sums<T>, sorting);
}

template <typename T>
BasisPlan plan_for(const BasisSpectrumParams& params) {
  constexpr int64_t most_columns = int64_t(1) << 30;
  if (params.columns > most_columns) {
    raise_value_error("projected must have at most " + std::to_string(most_columns) +
                      " columns, got " + std::to_string(params.columns));
  }
  // Not by the number of matrices: what a sum is taken in must not depend on it.
  constexpr int64_t enough_blocks = 264, most_splits = 64;
  constexpr int64_t fewest_rows = column_threads / lanes * loads_in_flight;
  BasisPlan plan{};
  plan.tiles = divide_up(params.columns, lanes * vector_size<T>);
  const int64_t wanted = std::min(divide_up(enough_blocks, plan.tiles), most_splits);
  const int64_t splits = std::max<int64_t>(1, std::min(wanted, params.samples / fewest_rows));
  plan.share_rows = std::max<int64_t>(1, divide_up(params.samples, splits));
  plan.splits = std::max<int64_t>(1, divide_up(params.samples, plan.share_rows));
  plan.share_count = params.matrices * plan.splits * params.columns;
  plan.sort_size = 2;
  while (plan.sort_size < params.columns) plan.sort_size *= 2;
  plan.sorts_in_shared_memory = true;
  plan.sorts_in_shared_memory = shared_bytes<T>(plan) <= most_shared_bytes();
  if (!plan.sorts_in_shared_memory) {
    plan.entry_bytes = params.matrices * plan.sort_size * int64_t(sizeof(SortEntry<T>));
  }
  return plan;
}

template <typename T>
void launch_for(const BasisSpectrumParams& params, const BasisPlan& plan,
                const BasisWorkspace& workspace, cudaStream_t stream) {
  const bool vectors = vectors_align(params.columns * int64_t(sizeof(T)), params.projected);
  const BasisTask<T> task{static_cast<const T*>(params.projected),
                          params.samples,
                          params.columns,
                          T(params.scale),
                          static_cast<T*>(params.spectrum),
                          params.order,
                          PowerLawOf<T>(params.law),
                          static_cast<T*>(params.penalty),
                          static_cast<T*>(params.derivative),
                          plan,
                          static_cast<T*>(workspace.shares),
                          workspace.blocks_done,
                          static_cast<SortEntry<T>*>(workspace.entries),
                          vectors};
  if (workspace.blocks_done != nullptr) {
    check_launch(
        cudaMemsetAsync(workspace.blocks_done, 0, params.matrices * sizeof(unsigned), stream));
  }
  launch(&basis_spectrum_kernel<T>, params.matrices * plan.blocks(), column_threads, stream, task,
         shared_bytes<T>(plan));
}

}  // namespace

BasisPlan plan_basis_spectrum(const BasisSpectrumParams& params) {
  const bool is_double = params.dtype == DType::float64;
  return (is_double ? &plan_for<double> : &plan_for<float>)(params);
}

void launch_basis_spectrum(const BasisSpectrumParams& params, const BasisPlan& plan,
                           const BasisWorkspace& workspace, cudaStream_t stream) {
  const bool is_double = params.dtype == DType::float64;
  (is_double ? &launch_for<double> : &launch_for<float>)(params, plan, workspace, stream);
}

}  // namespace selkern::cuda
