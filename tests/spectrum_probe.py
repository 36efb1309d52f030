"""Every kernel of the spectrum family at work, on as few threads as it takes."""

from __future__ import annotations

import torch
from cases import normal
from torch import Tensor


def spectrum_results(operators: object, dtype: torch.dtype) -> list[Tensor]:
    """Run every operator for a dtype; what is no number becomes one, so that it can be compared."""
    results = [operators.center(normal((1, 40, 6), dtype), 0.5)]
    if dtype in (torch.float32, torch.float64):
        results += _results_of_full_precision(operators, dtype)
    return [result.nan_to_num(1234) for result in results]


def _results_of_full_precision(operators: object, dtype: torch.dtype) -> list[Tensor]:
    results = []
    for size in (6, 17, 37, 70, 130):  # of each kernel
        matrices = normal((2, size, size), dtype)
        matrices[1, 3, 2] = torch.nan
        results += [operators.eigvalsh(matrices), *operators.eigh(matrices)]
    spectrum = normal((2, 40), dtype).abs().sort(descending=True).values
    spectrum[1, 33] = torch.nan
    covariance = operators.covariance_spectrum(spectrum.flip(-1), 30, 1, 0.5)
    results += [covariance, operators.covariance_spectrum_backward(spectrum, covariance, 30, 1, 1)]
    results += operators.power_law_penalty(spectrum, None, 1.0, 3, 40)
    # One block, and two that share the samples.
    for shape in [(1, 20, 9), (1, 130, 9)]:
        results += operators.basis_penalty(normal(shape, dtype), None, 0.5, 1.0, 3, 40)
    return results
