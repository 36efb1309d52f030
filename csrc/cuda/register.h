#pragma once

#include <torch/csrc/stable/library.h>

namespace selkern::cuda {

void register_attacks_operators(torch::stable::detail::StableLibrary& m);
void register_linalg_operators(torch::stable::detail::StableLibrary& m);
void register_pooling_operators(torch::stable::detail::StableLibrary& m);
void register_selectivity_operators(torch::stable::detail::StableLibrary& m);
void register_spectrum_operators(torch::stable::detail::StableLibrary& m);

inline void register_operators(torch::stable::detail::StableLibrary& m) {
  register_attacks_operators(m);
  register_linalg_operators(m);
  register_pooling_operators(m);
  register_selectivity_operators(m);
  register_spectrum_operators(m);
}

}  // namespace selkern::cuda
