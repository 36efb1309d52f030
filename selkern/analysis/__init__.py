"""Measures of dimensionality, power-law fits and cross-validated spectra of whole data sets.

Every function takes tensors or NumPy arrays, and returns what it was given: for arrays, arrays or
NumPy scalars. Spectra are descending, as :func:`selkern.eigenspectrum` gives them and
:func:`selkern.linalg.eigvalsh` does not. Sums, products and decompositions are taken in float64.
"""

from selkern.analysis.cross_validated import cvpca
from selkern.analysis.dimensionality import (
    PerturbationDimensionality,
    components_for_variance,
    effective_rank,
    participation_ratio,
    perturbation_dimensionality,
)
from selkern.analysis.power_law import PowerLawFit, fit_power_law

__all__ = [
    "PerturbationDimensionality",
    "PowerLawFit",
    "components_for_variance",
    "cvpca",
    "effective_rank",
    "fit_power_law",
    "participation_ratio",
    "perturbation_dimensionality",
]
