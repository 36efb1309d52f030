// Included once by each kernels_<instruction set>.cpp.
#include "cpu/attacks_kernels.h"
#include "cpu/centered_kernels.h"
#include "cpu/centering.h"
#include "cpu/linalg_kernels.h"
#include "cpu/pooling_kernels.h"
#include "cpu/rayleigh_quotients.h"
#include "cpu/selectivity_kernels.h"
#include "cpu/spectrum_kernels.h"

#define SELKERN_STRINGIZE_EXPANDED(name) #name
#define SELKERN_STRINGIZE(name) SELKERN_STRINGIZE_EXPANDED(name)

namespace selkern::cpu::SELKERN_ISA {

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
    run_product<PackPanels>,
    run_product<MultiplyPanels>,
    centered_matmul,
    covariance_spectrum,
    covariance_spectrum_backward,
    power_law_penalty,
    basis_variances,
    basis_spectrum,
    run_solver<Eigensystems>,
    run_solver<EigenvaluesFirst>,
    run_solver<EigenvectorsThen>,
    rayleigh_quotients,
    run_solver<UnitColumns>,
    pgd_step,
    l2_sums,
    l2_step,
};

}  // namespace selkern::cpu::SELKERN_ISA
