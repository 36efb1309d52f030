"""Spectra of what two repeats of the same stimuli have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from selkern import _checks
from selkern.analysis import _arrays
from selkern.analysis._arrays import Array

__all__ = ["cvpca"]


def cvpca(
    repeat1: Array,
    repeat2: Array,
    shuffles: int = 10,
    generator: torch.Generator | None = None,
) -> Array:
    r"""Cross-validated spectrum of Stringer et al. (Nature 571, 2019).

    .. math:: s_n = \sum_i (R_1 P)_{in} (R_2 P)_{in}, \qquad P = R_1^T A B^{-1/2}, \qquad
              R_1 R_1^T = A B A^T

    Noise that is independent between two repeats of the same stimuli does not add to it, as it
    does to the spectrum of either. No mean is removed. Before each of the shuffles, the two repeats
    of a stimulus are swapped with probability 1/2; the spectra of all shuffles are averaged, and
    divided by their sum. Values may be negative.

    The neurons enter by products of stimuli that are taken once, so many neurons cost little.

    Parameters
    ----------
    repeat1, repeat2 : Tensor or array
        Responses ``[S, D]``, stimuli by neurons; float16, bfloat16, float32 or float64.
    shuffles : int, default 10
        Number of shuffles.
    generator : torch.Generator, optional
        What draws the swaps.

    Returns
    -------
    Tensor or array
        ``[min(S, D)]``, with sum 1; float64 if either repeat is, and float32 otherwise. All NaN
        where a response is not finite, or where the repeats have nothing in common.

    Raises
    ------
    TypeError
        If the repeats are not both floating tensors or both floating arrays, or another argument
        is of the wrong kind.
    ValueError
        If the repeats differ in shape or device, have not 2 axes, or ``shuffles`` is below 1.

    Examples
    --------
    >>> responses = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> cvpca(responses, responses)
    tensor([0.8000, 0.2000])
    """
    _arrays.check_pair(("repeat1", "repeat2"), (repeat1, repeat2), "S, D")
    if len(repeat1.shape) != 2:
        raise ValueError(f"repeat1 must have shape [S, D], got {list(repeat1.shape)}")
    shuffles = _checks.integer("shuffles", shuffles)
    if shuffles < 1:
        raise ValueError(f"shuffles must be at least 1, got {shuffles}")
    generator = _checks.generator(generator)
    first, second = _arrays.doubles(repeat1), _arrays.doubles(repeat2)
    device = "cpu" if generator is None else generator.device
    chances = torch.rand(shuffles, len(first), generator=generator, device=device)
    swaps = (chances < 0.5).to(first.device)
    if bool(first.isfinite().all() & second.isfinite().all()):
        shared = _by_stimuli if first.shape[0] <= first.shape[1] else _by_neurons
        spectrum = shared(first, second, swaps)
    else:
        spectrum = first.new_full((min(first.shape),), torch.nan)
    return _arrays.like(spectrum / spectrum.sum(), repeat1, repeat2)


def _by_stimuli(first: Tensor, second: Tensor, swaps: Tensor) -> Tensor:
    """Average over the swaps of the diagonal of ``A^T R_2 R_1^T A``, which is the spectrum.

    ``R_1 P = A B^(1/2)`` and ``R_2 P = R_2 R_1^T A B^(-1/2)``: the scales cancel, and with them
    the division by eigenvalues that may be 0.
    """
    of_first, of_both, of_second = first @ first.T, first @ second.T, second @ second.T
    total = first.new_zeros(len(first))
    for swap in swaps:
        # Rows i of R_1 and j of R_1 or R_2, each from the repeat that the swaps give it.
        row, column = swap[:, None], swap[None, :]
        from_first = torch.where(column, of_both, of_first)
        from_second = torch.where(column, of_second, of_both.T)
        within = torch.where(row, from_second, from_first)
        across = torch.where(row, from_first, from_second)
        total += _diagonal(_components(within), across)
    return total / len(swaps)


def _by_neurons(first: Tensor, second: Tensor, swaps: Tensor) -> Tensor:
    """The same by ``P``, the eigenvectors of ``R_1^T R_1``, where neurons are the fewer."""
    total = first.new_zeros(first.shape[1])
    for swap in swaps:
        train = torch.where(swap[:, None], second, first)
        test = torch.where(swap[:, None], first, second)
        total += _diagonal(_components(train.T @ train), train.T @ test)
    return total / len(swaps)


def _components(products: Tensor) -> Tensor:
    """Eigenvectors in columns, by descending eigenvalue."""
    return torch.linalg.eigh(products).eigenvectors.flip(-1)


def _diagonal(components: Tensor, products: Tensor) -> Tensor:
    return (components * (products @ components)).sum(0)
