"""Fused class selectivity for PyTorch: operators and a regularizer, with exact gradients."""

from selkern import _library, reference
from selkern._library import build_info
from selkern._version import __version__

if _library.COMPILED:
    from selkern import _fake as _fake

from selkern.pooling import relu_with_mean, spatial_mean
from selkern.regularizer import SelectivityRegularizer
from selkern.selectivity import (
    class_means,
    mean_selectivity,
    selectivity_index,
    selectivity_index_from_means,
)

__all__ = [
    "SelectivityRegularizer",
    "__version__",
    "build_info",
    "class_means",
    "mean_selectivity",
    "reference",
    "relu_with_mean",
    "selectivity_index",
    "selectivity_index_from_means",
    "spatial_mean",
]
