// Launches, and the runtime API around them.
#include "simt/launch.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "block.h"
#include "simt/threads.h"

namespace simt {

namespace {

struct Settings {
  Order threads = Order::forward;
  Order blocks = Order::forward;
  uint64_t seed = 0;
};

Settings settings;
std::map<const void*, size_t> dynamic_shared_limits;
cudaError_t last_error = cudaSuccess;
std::string last_message;

cudaError_t refuse(cudaError_t error, const std::string& message) {
  last_error = error;
  last_message = message;
  return error;
}

// What the GPU would refuse, or nothing.
std::string bad_geometry(const Launch& launch) {
  const auto check = [](const char* name, uint64_t size, uint64_t most) {
    if (size >= 1 && size <= most) return std::string();
    return std::string(name) + " is " + std::to_string(size) + ", not 1 to " + std::to_string(most);
  };
  const dim3 &grid = launch.grid, &block = launch.block;
  for (const std::string& problem :
       {check("gridDim.x", grid.x, 0x7fffffff), check("gridDim.y", grid.y, 65535),
        check("gridDim.z", grid.z, 65535), check("blockDim.x", block.x, most_threads),
        check("blockDim.y", block.y, most_threads), check("blockDim.z", block.z, 64),
        check("the number of threads", uint64_t(block.x) * block.y * block.z, most_threads)}) {
    if (!problem.empty()) return "invalid configuration argument: " + problem;
  }
  return "";
}

uint3 index_of(uint64_t block, const dim3& grid) {
  const uint64_t row = block / grid.x;
  return {unsigned(block % grid.x), unsigned(row % grid.y), unsigned(row / grid.y)};
}

// Returns what failed, or nothing. In random order a thread or a warp of the first block is held
// back until all other blocks have ended, so that it shows where one relies on it without waiting.
std::string run_blocks(const Launch& launch) {
  const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  const races::Ignore ignore;
  Orders orders(settings.threads, settings.blocks, settings.seed);
  std::optional<Block> delayed;
  for (uint64_t number : orders.blocks.of(blocks, orders.random)) {
    const uint3 index = index_of(number, launch.grid);
    std::string failure;
    if (orders.threads == Order::random && !delayed) {
      delayed.emplace(launch, index, unsigned(number), 1);
      failure = delayed->run_with_some_held(orders);
    } else {
      failure = Block(launch, index, unsigned(number), 0).run(orders);
    }
    if (!failure.empty()) return failure;
  }
  return delayed ? delayed->run(orders) : "";
}

Order order_named(const std::string& name) {
  return name == "random" ? Order::random : name == "reversed" ? Order::reversed : Order::forward;
}

}  // namespace

size_t most_dynamic_shared(const void* kernel) {
  return std::max(shared_bytes_by_default, dynamic_shared_limits[kernel]);
}

int launch(const Launch& launch) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const std::string& name = kernel_name(launch.kernel);
  const std::string problem = bad_geometry(launch);
  if (!problem.empty()) return refuse(cudaErrorInvalidConfiguration, name + ": " + problem);
  if (launch.shared_bytes > most_dynamic_shared(launch.kernel)) {
    return refuse(cudaErrorInvalidValue,
                  name + ": invalid argument: " + std::to_string(launch.shared_bytes) +
                      " bytes of dynamic shared memory; allowed are " +
                      std::to_string(most_dynamic_shared(launch.kernel)));
  }
  record_kernel(name);
  blockDim = launch.block;
  gridDim = launch.grid;
  races::begin_launch();
  const std::string failure = run_blocks(launch);
  races::end_launch();
  return failure.empty() ? cudaSuccess : refuse(cudaErrorLaunchFailure, failure);
}

}  // namespace simt

cudaError_t cudaPeekAtLastError() { return simt::last_error; }
cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, cudaSuccess); }

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : simt::last_message.c_str();
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || size_t(value) > simt::most_shared_bytes) {
    return simt::refuse(cudaErrorInvalidValue,
                        simt::kernel_name(kernel) + ": invalid argument: " + std::to_string(value) +
                            " bytes of dynamic shared memory; a block has at most " +
                            std::to_string(simt::most_shared_bytes));
  }
  simt::dynamic_shared_limits[kernel] = value;
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t) {
  std::memset(address, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

// Those of an H100.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const std::map<cudaDeviceAttr, int> values = {
      {cudaDevAttrMaxThreadsPerBlock, simt::most_threads},
      {cudaDevAttrMaxSharedMemoryPerBlock, simt::shared_bytes_by_default},
      {cudaDevAttrWarpSize, simt::warp_threads},
      {cudaDevAttrMultiProcessorCount, 132},
      {cudaDevAttrL2CacheSize, 50 << 20},
      {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
      {cudaDevAttrComputeCapabilityMajor, 9},
      {cudaDevAttrComputeCapabilityMinor, 0},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 228 << 10},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, int(simt::most_shared_bytes)},
  };
  const auto found = values.find(attribute);
  if (found == values.end()) {
    return simt::refuse(cudaErrorInvalidValue, "an attribute that the emulated device has not");
  }
  *value = found->second;
  return cudaSuccess;
}

#pragma GCC visibility push(default)
extern "C" {

// "forward", "reversed" or "random", for the threads of a block and for the blocks of a launch.
void simt_set_order(const char* threads, const char* blocks, unsigned long long seed) {
  simt::settings.threads = simt::order_named(threads);
  simt::settings.blocks = simt::order_named(blocks);
  simt::settings.seed = seed;
}

}  // extern "C"
#pragma GCC visibility pop
