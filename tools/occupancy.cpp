// Reads "threads registers shared_bytes" per line and writes "blocks limits", what an SM of an H100
// or H200 holds of such a block, by the formula of the toolkit's own header.

#include <cuda_occupancy.h>

#include <cstddef>
#include <iostream>
#include <string>

namespace {

cudaOccDeviceProp hopper() {
  cudaOccDeviceProp device;
  device.computeMajor = 9;
  device.computeMinor = 0;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = 2048;
  device.regsPerBlock = 65536;
  device.regsPerMultiprocessor = 65536;
  device.warpSize = 32;
  device.sharedMemPerBlock = 48 << 10;
  device.sharedMemPerMultiprocessor = 228 << 10;
  device.sharedMemPerBlockOptin = 227 << 10;
  device.reservedSharedMemPerBlock = 1 << 10;
  device.numSms = 132;
  return device;
}

std::string limits(unsigned mask) {
  std::string names;
  const auto add = [&](unsigned bit, const char* name) {
    if (mask & bit) names += (names.empty() ? "" : ", ") + std::string(name);
  };
  add(OCC_LIMIT_WARPS, "threads");
  add(OCC_LIMIT_REGISTERS, "registers");
  add(OCC_LIMIT_SHARED_MEMORY, "shared memory");
  add(OCC_LIMIT_BLOCKS, "blocks");
  return names;
}

}  // namespace

int main() {
  const cudaOccDeviceProp device = hopper();
  // Otherwise the header leaves most of the memory to the cache, and answers one block.
  cudaOccDeviceState state;
  state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
  int threads;
  cudaOccFuncAttributes kernel;
  kernel.maxThreadsPerBlock = 1024;
  kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
  kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_DEFAULT;
  kernel.maxDynamicSharedSizeBytes = 0;
  kernel.numBlockBarriers = 1;
  while (std::cin >> threads >> kernel.numRegs >> kernel.sharedSizeBytes) {
    cudaOccResult result;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0) !=
        CUDA_OCC_SUCCESS) {
      std::cerr << "the occupancy of " << threads << " threads cannot be computed\n";
      return 1;
    }
    std::cout << result.activeBlocksPerMultiprocessor << ' ' << limits(result.limitingFactors)
              << '\n';
  }
}
