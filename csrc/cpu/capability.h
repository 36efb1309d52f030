#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace selkern::cpu {

// Kernels of the instruction set in use: the best this machine runs, unless set_capability chose.
// An operator that launches more than once asks once: another thread may choose in between.
const Kernels& kernels();

std::string capability();
std::vector<std::string> compiled_capabilities();
// Best first.
std::vector<std::string> supported_capabilities();
// Throws std::invalid_argument for a name that is unknown or that this machine cannot run.
void set_capability(const std::string& name);

}  // namespace selkern::cpu
