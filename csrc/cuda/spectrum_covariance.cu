#include "common/spectrum_covariance.h"
#include "cuda/block.h"
#include "cuda/launch.cuh"
#include "cuda/spectrum.h"

namespace selkern::cuda {
namespace {

template <typename T>
struct SpectrumTask {
  const T* eigenvalues;
  int64_t count;  // of all matrices
  int64_t size;
  int64_t samples;
  T factor;
  T* spectrum;
};

// A thread takes an eigenvalue.
template <typename T>
__global__ __launch_bounds__(block_threads) void covariance_spectrum_kernel(
    const __grid_constant__ SpectrumTask<T> task) {
  const int64_t i = int64_t(blockIdx.x) * block_threads + threadIdx.x;
  if (i >= task.count) return;
  const int64_t rank = i % task.size;
  task.spectrum[i] = covariance_eigenvalue(task.eigenvalues + (i - rank), task.size, rank,
                                           task.samples, task.factor);
}

template <typename T>
struct SpectrumBackwardTask {
  const T* grad;
  const T* spectrum;
  int64_t count;  // of all matrices
  int64_t size;
  T factor;
  T* grad_eigenvalues;
};

template <typename T>
__global__ __launch_bounds__(block_threads) void covariance_spectrum_backward_kernel(
    const __grid_constant__ SpectrumBackwardTask<T> task) {
  const int64_t i = int64_t(blockIdx.x) * block_threads + threadIdx.x;
  if (i >= task.count) return;
  const int64_t rank = i % task.size;
  task.grad_eigenvalues[i - rank + (task.size - 1 - rank)] =
      covariance_eigenvalue_backward(task.grad[i], task.spectrum[i], task.factor);
}

template <typename T>
void launch_for(const CovarianceSpectrumParams& params, cudaStream_t stream) {
  const SpectrumTask<T> task{static_cast<const T*>(params.eigenvalues),
                             params.matrices * params.size,
                             params.size,
                             params.samples,
                             T(params.factor),
                             static_cast<T*>(params.spectrum)};
  launch(&covariance_spectrum_kernel<T>, divide_up(task.count, block_threads), block_threads,
         stream, task);
}

template <typename T>
void launch_for(const CovarianceSpectrumBackwardParams& params, cudaStream_t stream) {
  const SpectrumBackwardTask<T> task{static_cast<const T*>(params.grad),
                                     static_cast<const T*>(params.spectrum),
                                     params.matrices * params.size,
                                     params.size,
                                     T(params.factor),
                                     static_cast<T*>(params.grad_eigenvalues)};
  launch(&covariance_spectrum_backward_kernel<T>, divide_up(task.count, block_threads),
         block_threads, stream, task);
}

}  // namespace

void launch_covariance_spectrum(const CovarianceSpectrumParams& params, cudaStream_t stream) {
  if (params.dtype == DType::float64) return launch_for<double>(params, stream);
  launch_for<float>(params, stream);
}

void launch_covariance_spectrum_backward(const CovarianceSpectrumBackwardParams& params,
                                         cudaStream_t stream) {
  if (params.dtype == DType::float64) return launch_for<double>(params, stream);
  launch_for<float>(params, stream);
}

}  // namespace selkern::cuda
