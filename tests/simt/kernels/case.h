// Kernels that tests run by name, as a program or through a library.
#pragma once

#include <cuda_runtime.h>

#include <cstdlib>
#include <cstring>
#include <sstream>
#include <vector>

// Defines what the test of this name runs. What it says is what the test sees.
#define CASE(name)                                               \
  static void run_##name();                                      \
  static const simt_cases::Case case_##name(#name, &run_##name); \
  static void run_##name()

// A function that tests call through ctypes.
#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace simt_cases {

struct Case {
  Case(const char* name, void (*run)());
};

std::ostringstream& say();

// Memory of exactly this many elements that starts as NaN.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t count)
      : data_(static_cast<T*>(std::malloc(count * sizeof(T)))), count_(count) {
    std::memset(static_cast<void*>(data_), 0xff, count * sizeof(T));
  }
  Buffer(size_t count, T value) : Buffer(count) {
    for (size_t i = 0; i < count; ++i) data_[i] = value;
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  operator T*() const { return data_; }

  void print() const {
    for (size_t i = 0; i < count_; ++i) say() << (i == 0 ? "" : " ") << data_[i];
    say() << "\n";
  }

 private:
  T* data_;
  size_t count_;
};

// Says what the runtime says, where that is an error.
template <typename... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, size_t shared_bytes,
                   Parameters... parameters) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, parameters...);
  if (error != cudaSuccess) say() << "error " << error << ": " << cudaGetErrorString(error) << "\n";
  return error;
}

}  // namespace simt_cases
