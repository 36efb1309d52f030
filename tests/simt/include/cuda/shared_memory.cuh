// csrc/cuda/shared_memory.cuh with arrays of exactly their size, so that nothing lies behind them.
#pragma once

#include "simt/runtime.h"

namespace selkern::cuda {

template <typename Tag, typename T, int count>
T* static_shared() {
  static const char key = 0;
  return static_cast<T*>(simt::static_shared(&key, count * sizeof(T)));
}

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(simt::dynamic_shared());
}

}  // namespace selkern::cuda
