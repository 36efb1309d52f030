// Included once by each kernels_<instruction set>.cpp.
#include "common/stringize.h"
#include "cpu/attacks_kernels.h"
#include "cpu/linalg_kernels.h"
#include "cpu/linalg_rayleigh.h"
#include "cpu/pooling_kernels.h"
#include "cpu/selectivity_kernels.h"
#include "cpu/spectrum_center.h"
#include "cpu/spectrum_kernels.h"
#include "cpu/spectrum_products.h"

namespace selkern::cpu::SELKERN_ISA {

// In the order of Kernels, by its names: several have the same type.
extern const Kernels table = {
    SELKERN_STRINGIZE(SELKERN_ISA),
    SELKERN_VECTOR_BYTES,
    spatial_mean,
    relu_with_mean_backward,
    class_means,
    class_means_backward,
    selectivity,
    selectivity_backward,
    center,
    sample_means,
    subtract_means,
    centered_product,
    pack_panels,
    multiply_panels,
    centered_matmul,
    covariance_spectrum,
    covariance_spectrum_backward,
    power_law_penalty,
    basis_variances,
    basis_spectrum,
    eigensystems,
    eigenvalues,
    eigenvectors,
    rayleigh_quotients,
    unit_columns,
    pgd_step,
    l2_sums,
    l2_step,
};

}  // namespace selkern::cpu::SELKERN_ISA
