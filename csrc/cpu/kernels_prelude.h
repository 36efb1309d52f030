// Everything the kernels include from outside. It must precede the target pragma: an inline
// function compiled with it may be the copy the linker keeps, and fault on an older machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/kernels.h"
