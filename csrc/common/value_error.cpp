#include "common/value_error.h"

// Not the whole of pybind11, and nothing of Python where this is linked into something else than a
// Python module: whoever calls it runs in an interpreter.
#include <pybind11/detail/common.h>

#pragma weak PyErr_SetString
#pragma weak PyExc_ValueError

namespace selkern {

// Since torch 2.15 an operator's std::invalid_argument becomes a RuntimeError; pybind11's own
// exceptions pass torch unchanged.
void raise_value_error(const std::string& message) { throw pybind11::value_error(message); }

}  // namespace selkern
