// Everything the kernels include from outside. It must precede the target pragma: an inline
// function compiled with it may be the copy the linker keeps, and fault on an older machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/attacks.h"
#include "common/spectrum_covariance.h"
#include "common/spectrum_power_law.h"
#include "cpu/kernels.h"
