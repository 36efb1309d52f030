#include "cuda/launch.cuh"
#include "cuda/shared_memory.cuh"
#include "cuda/spectrum.h"
#include "cuda/spectrum_penalty.cuh"

namespace selkern::cuda {
namespace {

template <typename T>
struct PenaltyTask {
  const T* spectrum;
  int64_t ranks;
  PowerLawOf<T> law;
  T* penalty;
  T* derivative;
};

struct PenaltyStage;

// A block takes a spectrum.
template <typename T>
__global__ __launch_bounds__(block_threads) void power_law_penalty_kernel(
    const __grid_constant__ PenaltyTask<T> task) {
  const T* spectrum = task.spectrum + blockIdx.x * task.ranks;
  T* derivative = task.derivative + blockIdx.x * task.ranks;
  bool is_finite = true;
  for (int64_t i = threadIdx.x; i < task.ranks; i += block_threads) {
    is_finite = is_finite && spectrum[i] - spectrum[i] == 0;
  }
  is_finite = __syncthreads_and(is_finite) != 0;
  penalise<T, block_threads>(
      task.law, blockIdx.x, task.ranks, is_finite, [&](int64_t rank) { return spectrum[rank - 1]; },
      [&](int64_t rank, T value) { derivative[rank - 1] = value; },
      static_shared<PenaltyStage, CompensatedSum<T>, block_threads / warp_threads>(), task.penalty);
}

template <typename T>
void launch_for(const PowerLawPenaltyParams& params, cudaStream_t stream) {
  const PenaltyTask<T> task{static_cast<const T*>(params.spectrum), params.ranks,
                            PowerLawOf<T>(params.law), static_cast<T*>(params.penalty),
                            static_cast<T*>(params.derivative)};
  launch(&power_law_penalty_kernel<T>, params.spectra, block_threads, stream, task);
}

}  // namespace

void launch_power_law_penalty(const PowerLawPenaltyParams& params, cudaStream_t stream) {
  const bool is_double = params.dtype == DType::float64;
  (is_double ? &launch_for<double> : &launch_for<float>)(params, stream);
}

}  // namespace selkern::cuda
