"""Class selectivity and covariance eigenspectra for PyTorch: fused operators and regularizers."""

from selkern import _library, reference
from selkern._library import build_info
from selkern._version import __version__

if _library.COMPILED:
    from selkern import _fake as _fake

from selkern import analysis, attacks, data, linalg
from selkern.pooling import relu_with_mean, spatial_mean
from selkern.selectivity import (
    class_means,
    mean_selectivity,
    selectivity_index,
    selectivity_index_from_means,
)
from selkern.selectivity_regularizer import SelectivityRegularizer
from selkern.spectral_regularizer import SpectralRegularizer
from selkern.spectrum import covariance, eigenspectrum, power_law_penalty, spectral_loss

__all__ = [
    "SelectivityRegularizer",
    "SpectralRegularizer",
    "__version__",
    "analysis",
    "attacks",
    "build_info",
    "class_means",
    "covariance",
    "data",
    "eigenspectrum",
    "linalg",
    "mean_selectivity",
    "power_law_penalty",
    "reference",
    "relu_with_mean",
    "selectivity_index",
    "selectivity_index_from_means",
    "spatial_mean",
    "spectral_loss",
]
