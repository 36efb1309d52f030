// csrc/cuda/team_barrier.cuh with a place of its own for every call.
#pragma once

#include "cuda/block.h"
#include "simt/runtime.h"

namespace selkern::cuda {

template <int threads>
void team_barrier(simt::Place place = simt::Place::here()) {
  if constexpr (threads == warp_threads) {
    simt::warp_barrier(0xffffffff, place);
  } else {
    simt::block_barrier(simt::Barrier::all, true, place);
  }
}

}  // namespace selkern::cuda
