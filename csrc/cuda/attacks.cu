#include "cuda/attacks.h"

#include <algorithm>
#include <limits>

#include "common/attacks_arithmetic.h"
#include "cuda/block.h"
#include "cuda/launch.cuh"
#include "cuda/numeric.cuh"
#include "cuda/shared_memory.cuh"
#include "cuda/vectors.cuh"

namespace selkern::cuda {
namespace {

template <typename R>
struct StepTask {
  PgdStepParams params;
  R eps;
  R alpha;
  R low;
  R high;
  // l2:
  int64_t parts;          // of a sample, which its sums are taken in
  int64_t part_elements;  //
  L2Sums<R>* sums;        // [samples, parts]
};

// ---------------------------------------------------------------------------------------- streams

// Elements that all threads of a block work on together.
template <int width>
constexpr int64_t tile_elements = int64_t(block_threads) * loads_in_flight * width;

template <typename T, int width>
struct StepPacks {
  Pack<T, width> adv;
  Pack<T, width> grad;
  Pack<T, width> images;

  // Stores value_of(adv, grad, image) from element i on.
  template <typename ValueOf>
  __device__ __forceinline__ void store_to(const PgdStepParams& params, int64_t i,
                                           ValueOf value_of) const {
    Pack<T, width> result;
#pragma unroll
    for (int k = 0; k < width; ++k) {
      result.values[k] = value_of(adv.values[k], grad.values[k], images.values[k]);
    }
    store(static_cast<T*>(params.out) + i, result);
  }
};

template <typename T, int width>
struct LoadedStepPacks {
  LoadedPack<T, width> adv;
  LoadedPack<T, width> grad;
  LoadedPack<T, width> images;

  __device__ __forceinline__ void load_from(const PgdStepParams& params, int64_t i) {
    adv = load<width>(static_cast<const T*>(params.adv) + i);
    grad = load<width>(static_cast<const T*>(params.grad) + i);
    images = load<width>(static_cast<const T*>(params.images) + i);
  }
  __device__ __forceinline__ StepPacks<T, width> unpack() const {
    return {adv.unpack(), grad.unpack(), images.unpack()};
  }
};

// Calls visit(i, packs from element i on) for this thread's part of the tile [begin, end): for
// vectors, several of them in flight, and for the elements that are left.
template <typename T, int width, typename Visit>
__device__ __forceinline__ void for_each_packs(const PgdStepParams& params, int64_t begin,
                                               int64_t end, Visit visit) {
  const int64_t end_of_packs = end - (end - begin) % width;
  const int64_t first = begin + int64_t(threadIdx.x) * width;
  LoadedStepPacks<T, width> packs[loads_in_flight];
#pragma unroll
  for (int j = 0; j < loads_in_flight; ++j) {
    const int64_t i = first + int64_t(j) * block_threads * width;
    if (i < end_of_packs) packs[j].load_from(params, i);
  }
#pragma unroll
  for (int j = 0; j < loads_in_flight; ++j) {
    const int64_t i = first + int64_t(j) * block_threads * width;
    if (i < end_of_packs) visit(i, packs[j].unpack());
  }
  if constexpr (width > 1) {
    if (end_of_packs + threadIdx.x < end) {
      LoadedStepPacks<T, 1> left;
      left.load_from(params, end_of_packs + threadIdx.x);
      visit(end_of_packs + threadIdx.x, left.unpack());
    }
  }
}

// --------------------------------------------------------------------------------------- rounding

// y, where wrong the number of T next to it in the direction of x.
template <typename T>
__device__ __forceinline__ T towards(T y, T x, bool wrong) {
  using Bits = Word<sizeof(T)>;
  constexpr Bits sign_bit = Bits(Bits(1) << (8 * sizeof(T) - 1));
  Bits y_bits, x_bits;
  memcpy(&y_bits, &y, sizeof(T));
  memcpy(&x_bits, &x, sizeof(T));
  const Bits next = next_towards<Bits>(y_bits, x_bits, sign_bit, widen(y) < widen(x));
  const Bits bits = wrong ? next : y_bits;
  memcpy(&y, &bits, sizeof(T));
  return y;
}

template <typename T, int width, typename Step>
__device__ __forceinline__ void take_step(const StepTask<Result<T>>& task, int64_t begin,
                                          int64_t end, const Step& step) {
  using R = Result<T>;
  for_each_packs<T, width>(task.params, begin, end, [&](int64_t i, const auto& packs) {
    packs.store_to(task.params, i, [&](T adv, T grad, T image) {
      const R x = widen(image);
      const auto target = step.target(widen(adv), widen(grad), x);
      const T rounded = narrow<T>(Step::value(target));
      const T inside = towards(rounded, image, step.is_wrong(widen(rounded), x, target));
      return narrow<T>(clamp<R>(widen(inside), task.low, task.high));
    });
  });
}

// ------------------------------------------------------------------------------------------- linf

template <typename T, int width>
__global__ __launch_bounds__(block_threads) void linf_step_kernel(
    const __grid_constant__ StepTask<Result<T>> task) {
  const PgdStepParams& params = task.params;
  const int64_t begin = blockIdx.x * tile_elements<width>;
  const int64_t end = min(begin + tile_elements<width>, params.samples * params.elements);
  take_step<T, width>(task, begin, end, LinfStep<Result<T>>{task.eps, task.alpha});
}

// --------------------------------------------------------------------------------------------- l2

constexpr int most_parts = 64;
constexpr int warps = block_threads / warp_threads;

template <typename R>
struct CompensatedL2Sums {
  CompensatedSum<R> gradient;
  CompensatedSum<R> moved;
  CompensatedSum<R> both;

  __device__ __forceinline__ void add(const L2Sums<R>& sums) {
    gradient.add(sums.gradient);
    moved.add(sums.moved);
    both.add(sums.both);
  }
  __device__ __forceinline__ void add_all_lanes() {
    add_lanes(gradient, warp_threads);
    add_lanes(moved, warp_threads);
    add_lanes(both, warp_threads);
  }
  __device__ __forceinline__ L2Sums<R> value() const {
    return {gradient.value(), moved.value(), both.value()};
  }
};

template <typename T>
__device__ __forceinline__ Result<T> finite_gradient(T grad) {
  return finite_or_zero<Result<T>>(widen(grad), std::numeric_limits<Result<T>>::max());
}

template <typename T, int width>
__device__ __forceinline__ L2Sums<Result<T>> sums_of(const StepPacks<T, width>& packs) {
  L2Sums<Result<T>> sums{};
#pragma unroll
  for (int k = 0; k < width; ++k) {
    const auto grad = finite_gradient(packs.grad.values[k]);
    const auto distance = widen(packs.adv.values[k]) - widen(packs.images.values[k]);
    sums.gradient += grad * grad;
    sums.moved += distance * distance;
    sums.both += grad * distance;
  }
  return sums;
}

struct SumsOfWarps;
struct FactorsOfSample;

// A block takes a part of a sample.
template <typename T, int width>
__global__ __launch_bounds__(block_threads) void l2_sums_kernel(
    const __grid_constant__ StepTask<Result<T>> task) {
  using R = Result<T>;
  const unsigned parts = unsigned(task.parts);
  const int64_t sample = blockIdx.x / parts, part = blockIdx.x % parts;
  const int64_t start = sample * task.params.elements;
  const int64_t begin = start + part * task.part_elements;
  const int64_t end = min(begin + task.part_elements, start + task.params.elements);
  CompensatedL2Sums<R> sums{};
  for (int64_t tile = begin; tile < end; tile += tile_elements<width>) {
    for_each_packs<T, width>(task.params, tile, min(tile + tile_elements<width>, end),
                             [&](int64_t, const auto& packs) { sums.add(sums_of(packs)); });
  }
  sums.add_all_lanes();
  auto* of_warps = static_shared<SumsOfWarps, L2Sums<R>, warps>();
  if (threadIdx.x % warp_threads == 0) of_warps[threadIdx.x / warp_threads] = sums.value();
  __syncthreads();
  if (threadIdx.x > 0) return;
  CompensatedL2Sums<R> total{};
#pragma unroll
  for (int warp = 0; warp < warps; ++warp) total.add(of_warps[warp]);
  task.sums[blockIdx.x] = total.value();
}

template <typename R>
__device__ __forceinline__ L2Factors<R> factors_of(const StepTask<R>& task, int64_t sample) {
  auto* factors = static_shared<FactorsOfSample, L2Factors<R>, 1>();
  if (threadIdx.x < warp_threads) {
    const L2Sums<R>* of_parts = task.sums + sample * task.parts;
    CompensatedL2Sums<R> sums{};
    for (int64_t part = threadIdx.x; part < task.parts; part += warp_threads) {
      sums.add(of_parts[part]);
    }
    sums.add_all_lanes();
    if (threadIdx.x == 0) {
      *factors =
          l2_factors<R>(sums.value(), task.eps, task.alpha, std::numeric_limits<R>::epsilon());
    }
  }
  __syncthreads();
  return *factors;
}

struct RoundedProduct {
  __device__ __forceinline__ static float of(float a, float b) { return __fmul_rn(a, b); }
  __device__ __forceinline__ static double of(double a, double b) { return __dmul_rn(a, b); }
};

// A block takes a tile of a sample.
template <typename T, int width>
__global__ __launch_bounds__(block_threads) void l2_step_kernel(
    const __grid_constant__ StepTask<Result<T>> task) {
  using R = Result<T>;
  const PgdStepParams& params = task.params;
  const unsigned tiles = unsigned(divide_up(params.elements, tile_elements<width>));
  const int64_t sample = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const L2Factors<R> factors = factors_of(task, sample);
  const int64_t start = sample * params.elements, begin = start + tile * tile_elements<width>;
  const int64_t end = min(begin + tile_elements<width>, start + params.elements);
  take_step<T, width>(task, begin, end,
                      L2Step<R, RoundedProduct>{factors.step, factors.scale, factors.projects,
                                                std::numeric_limits<R>::max()});
}

// ---------------------------------------------------------------------------------------- launches

// Whether samples, which are taken one by one with l2, begin on boundaries of vectors.
bool samples_align(const PgdStepParams& params) {
  const int64_t step = params.norm == Norm::l2 && params.samples > 1 ? params.elements : 0;
  return vectors_align(step * element_size(params.dtype), params.adv, params.grad, params.images,
                       params.out);
}

int64_t part_elements_of(int64_t elements) {
  constexpr int64_t least = tile_elements<8> * 2;
  return std::max(least, divide_up(divide_up(elements, most_parts), least) * least);
}

template <typename T, int width>
void launch_step(const PgdStepParams& params, void* sums, cudaStream_t stream) {
  using R = Result<T>;
  StepTask<R> task{};
  task.params = params;
  task.eps = R(params.eps);
  task.alpha = R(params.alpha);
  task.low = R(params.low);
  task.high = R(params.high);
  if (params.norm == Norm::linf) {
    const int64_t tiles = divide_up(params.samples * params.elements, tile_elements<width>);
    return launch(&linf_step_kernel<T, width>, tiles, block_threads, stream, task);
  }
  task.parts = l2_parts(params);
  task.part_elements = part_elements_of(params.elements);
  task.sums = static_cast<L2Sums<R>*>(sums);
  const int64_t tiles = divide_up(params.elements, tile_elements<width>);
  launch(&l2_sums_kernel<T, width>, params.samples * task.parts, block_threads, stream, task);
  launch(&l2_step_kernel<T, width>, params.samples * tiles, block_threads, stream, task);
}

}  // namespace

int64_t l2_parts(const PgdStepParams& params) {
  return divide_up(params.elements, part_elements_of(params.elements));
}

void launch_pgd_step(const PgdStepParams& params, void* sums, cudaStream_t stream) {
  for_dtype(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (samples_align(params)) {
      launch_step<T, vector_size<T>>(params, sums, stream);
    } else {
      launch_step<T, 1>(params, sums, stream);
    }
  });
}

}  // namespace selkern::cuda
