#include "schemas.h"

STABLE_TORCH_LIBRARY(selkern, m) { selkern::define_operators(m); }
