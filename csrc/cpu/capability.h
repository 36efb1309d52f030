#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace selkern::cpu {

// Kernels of the instruction set in use: the best this machine runs, unless set_capability chose.
const Kernels& kernels();

// Columns of the panels that they take matrices in, which hold float64 or float32.
inline int64_t panel_width(DType dtype) {
  const int64_t element = dtype == DType::float64 ? 8 : 4;
  return panel_registers * kernels().vector_bytes / element;
}

std::string capability();
std::vector<std::string> compiled_capabilities();
// Best first.
std::vector<std::string> supported_capabilities();
// Throws std::invalid_argument for a name that is unknown or that this machine cannot run.
void set_capability(const std::string& name);

}  // namespace selkern::cpu
