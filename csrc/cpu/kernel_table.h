// Included once by each kernels_<instruction set>.cpp.
#include "cpu/pooling_kernels.h"
#include "cpu/selectivity_kernels.h"

#define SELKERN_STRINGIZE_EXPANDED(name) #name
#define SELKERN_STRINGIZE(name) SELKERN_STRINGIZE_EXPANDED(name)

namespace selkern::cpu::SELKERN_ISA {

extern const Kernels table = {
    SELKERN_STRINGIZE(SELKERN_ISA), spatial_mean, relu_with_mean_backward, class_means,
    class_means_backward,           selectivity,  selectivity_backward,
};

}  // namespace selkern::cpu::SELKERN_ISA
