#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace selkern::cpu {

// Elements below which handing work to a second thread costs more than it saves.
constexpr int64_t grain_elements = 32768;

// Runs kernel(params, begin, end) over params' items in torch's own thread pool.
template <typename Params>
void parallel_items(void (*kernel)(const Params&, int64_t, int64_t), const Params& params,
                    int64_t items, int64_t item_cost) {
  const int64_t grain = std::max<int64_t>(1, grain_elements / std::max<int64_t>(1, item_cost));
  torch::stable::parallel_for(0, items, grain,
                              [&](int64_t begin, int64_t end) { kernel(params, begin, end); });
}

// The same over several Params at once, split by cost: an item belongs to the thread whose share
// its first element falls in.
template <typename Params, typename Items, typename ItemCost>
void parallel_layers(void (*kernel)(const Params&, int64_t, int64_t),
                     const std::vector<Params>& layers, const Items& items,
                     const ItemCost& item_cost) {
  std::vector<int64_t> offsets{0};
  for (const Params& layer : layers) {
    offsets.push_back(offsets.back() + items(layer) * std::max<int64_t>(1, item_cost(layer)));
  }
  torch::stable::parallel_for(0, offsets.back(), grain_elements, [&](int64_t begin, int64_t end) {
    for (size_t l = 0; l < layers.size(); ++l) {
      const int64_t cost = std::max<int64_t>(1, item_cost(layers[l]));
      const auto first_item_from = [&](int64_t element) {
        return std::clamp<int64_t>((element - offsets[l] + cost - 1) / cost, 0, items(layers[l]));
      };
      const int64_t from = begin <= offsets[l] ? 0 : first_item_from(begin);
      const int64_t to = end <= offsets[l] ? 0 : first_item_from(end);
      if (from < to) kernel(layers[l], from, to);
    }
  });
}

}  // namespace selkern::cpu
