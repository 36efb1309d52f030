#include "cpu/kernels_prelude.h"

#define SELKERN_ISA baseline
#define SELKERN_VECTOR_BYTES 16
#define SELKERN_HAS_F16C 0
#include "cpu/kernel_table.h"
