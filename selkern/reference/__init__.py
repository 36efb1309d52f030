"""Every operator of the package in plain PyTorch.

The functions here have the names, arguments and results of the public ones. They define the
operators, and are what benchmarks and tests compare with.
"""

from selkern.reference import attacks, linalg
from selkern.reference.linalg import eigh as eigh
from selkern.reference.linalg import eigvalsh as eigvalsh
from selkern.reference.pooling import relu_with_mean, spatial_mean
from selkern.reference.selectivity import (
    class_means,
    mean_selectivity,
    selectivity_index,
    selectivity_index_from_means,
)
from selkern.reference.selectivity import mean_selectivity_of_layers as mean_selectivity_of_layers
from selkern.reference.spectrum import (
    covariance,
    eigenspectrum,
    power_law_penalty,
    spectral_loss,
)

__all__ = [
    "attacks",
    "class_means",
    "covariance",
    "eigenspectrum",
    "linalg",
    "mean_selectivity",
    "power_law_penalty",
    "relu_with_mean",
    "selectivity_index",
    "selectivity_index_from_means",
    "spatial_mean",
    "spectral_loss",
]
