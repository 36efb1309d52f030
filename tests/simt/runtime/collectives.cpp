// What operations over the lanes of a warp give.
#include <algorithm>

#include "block.h"

namespace simt {

namespace {

// Takes the operands of all lanes in the mask together, two by two.
template <typename T, typename Combine>
void reduce(unsigned mask, Thread* lanes, Combine combine) {
  bool first = true;
  T total{};
  for (int lane = 0; lane < warp_threads; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    const T value = static_cast<T>(lanes[lane].operand.value);
    total = first ? value : combine(total, value);
    first = false;
  }
  for (int lane = 0; lane < warp_threads; ++lane) {
    if (mask >> lane & 1) lanes[lane].result = static_cast<uint32_t>(total);
  }
}

unsigned lanes_with(uint64_t value, unsigned mask, const Thread* lanes) {
  unsigned found = 0;
  for (int lane = 0; lane < warp_threads; ++lane) {
    if ((mask >> lane & 1) && lanes[lane].operand.value == value) found |= 1u << lane;
  }
  return found;
}

// Lanes fall into segments of width; a source that is out of reach is the lane itself.
int source_of(Operation operation, int lane, const Operand& operand) {
  const int width = operand.width, distance = operand.lane & (warp_threads - 1);
  const int first = lane & ~(width - 1), last = first + width - 1;
  switch (operation) {
    case Operation::shuffle_up:
      return lane - distance >= first ? lane - distance : lane;
    case Operation::shuffle_down:
      return lane + distance <= last ? lane + distance : lane;
    case Operation::shuffle_xor:
      return (lane ^ distance) <= last ? lane ^ distance : lane;
    default:
      return first + distance % width;
  }
}

void shuffle(Operation operation, unsigned mask, Thread* lanes) {
  for (int lane = 0; lane < warp_threads; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    const int source = source_of(operation, lane, lanes[lane].operand);
    // What a lane outside the mask holds is undefined: NaN.
    const bool defined = mask >> source & 1;
    lanes[lane].result = defined ? lanes[source].operand.value : ~uint64_t(0);
  }
}

}  // namespace

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::barrier:
      return "__syncwarp";
    case Operation::shuffle:
      return "__shfl_sync";
    case Operation::shuffle_up:
      return "__shfl_up_sync";
    case Operation::shuffle_down:
      return "__shfl_down_sync";
    case Operation::shuffle_xor:
      return "__shfl_xor_sync";
    case Operation::ballot:
      return "__ballot_sync";
    case Operation::any:
      return "__any_sync";
    case Operation::all:
      return "__all_sync";
    case Operation::match_any:
      return "__match_any_sync";
    case Operation::match_all:
      return "__match_all_sync";
    default:
      return "__reduce_sync";
  }
}

void complete(Operation operation, unsigned mask, Thread* lanes) {
  using U = uint32_t;
  using S = int32_t;
  const auto give = [&](uint64_t result) {
    for (int lane = 0; lane < warp_threads; ++lane) {
      if (mask >> lane & 1) lanes[lane].result = result;
    }
  };
  switch (operation) {
    case Operation::barrier:
      return;
    case Operation::shuffle:
    case Operation::shuffle_up:
    case Operation::shuffle_down:
    case Operation::shuffle_xor:
      return shuffle(operation, mask, lanes);
    case Operation::ballot:
      return give(lanes_with(1, mask, lanes));
    case Operation::any:
      return give(lanes_with(1, mask, lanes) != 0);
    case Operation::all:
      return give(lanes_with(1, mask, lanes) == mask);
    case Operation::match_any:
      for (int lane = 0; lane < warp_threads; ++lane) {
        if ((mask >> lane & 1) == 0) continue;
        lanes[lane].result = lanes_with(lanes[lane].operand.value, mask, lanes);
      }
      return;
    case Operation::match_all: {
      const uint64_t value = lanes[__builtin_ctz(mask)].operand.value;
      return give(lanes_with(value, mask, lanes) == mask ? mask : 0);
    }
    case Operation::add:
      return reduce<U>(mask, lanes, [](U a, U b) { return a + b; });
    case Operation::minimum:
      return reduce<U>(mask, lanes, [](U a, U b) { return std::min(a, b); });
    case Operation::minimum_signed:
      return reduce<S>(mask, lanes, [](S a, S b) { return std::min(a, b); });
    case Operation::maximum:
      return reduce<U>(mask, lanes, [](U a, U b) { return std::max(a, b); });
    case Operation::maximum_signed:
      return reduce<S>(mask, lanes, [](S a, S b) { return std::max(a, b); });
    case Operation::bit_and:
      return reduce<U>(mask, lanes, [](U a, U b) { return a & b; });
    case Operation::bit_or:
      return reduce<U>(mask, lanes, [](U a, U b) { return a | b; });
    case Operation::bit_xor:
      return reduce<U>(mask, lanes, [](U a, U b) { return a ^ b; });
  }
}

}  // namespace simt
