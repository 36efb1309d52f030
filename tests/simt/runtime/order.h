// The orders in which blocks, warps and lanes take their turns.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace simt {

enum class Order { forward, reversed, random };

// Numbers that depend on the seed alone (splitmix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t below(uint64_t bound) {
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (x ^ (x >> 31)) % bound;
  }

 private:
  uint64_t state_;
};

class Permutation {
 public:
  explicit Permutation(Order order) : order_(order) {}

  // 0 to size - 1 in this order; a random one is another one each time.
  const std::vector<uint64_t>& of(uint64_t size, Random& random) {
    if (order_ == Order::random || items_.size() != size) {
      items_.resize(size);
      for (uint64_t i = 0; i < size; ++i) items_[i] = order_ == Order::reversed ? size - 1 - i : i;
    }
    if (order_ == Order::random) {
      for (uint64_t i = size; i > 1; --i) std::swap(items_[i - 1], items_[random.below(i)]);
    }
    return items_;
  }

 private:
  Order order_;
  std::vector<uint64_t> items_;
};

struct Orders {
  Orders(Order threads_order, Order blocks_order, uint64_t seed)
      : threads(threads_order),
        random(seed),
        blocks(blocks_order),
        warps(threads_order),
        lanes(threads_order) {}

  bool coin() { return random.below(2) == 0; }

  Order threads;
  Random random;
  Permutation blocks, warps, lanes;
};

}  // namespace simt
