"""Covariances over a data set, batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

from selkern import linalg
from selkern._layout import result_dtype
from selkern._numerics import rounding_tolerance


class Moments:
    """Number of samples, their mean and the products of their differences from it, in float64."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.samples = 0
        self.mean = torch.empty(0)
        self.products = torch.empty(0, 0)
        self.dtype = torch.float32

    def merge(self, x: Tensor) -> None:
        """Take in samples ``[N, D]``."""
        samples = x.shape[0]
        if samples == 0:
            return
        if self.samples and x.shape[1] != len(self.mean):
            raise ValueError(
                f"layer {self.name!r} must have as many units in every batch of loader, got "
                f"{x.shape[1]} after {len(self.mean)}: give inputs of one size, or leave it out "
                "of layers="
            )
        rows = x.double()
        mean = rows.mean(0)
        rows = rows - mean
        products = rows.T @ rows
        if self.samples == 0:
            self.samples, self.mean, self.products = samples, mean, products
            self.dtype = result_dtype(x.dtype)
            return
        total = self.samples + samples
        difference = mean - self.mean
        self.products += products
        self.products.addr_(difference, difference, alpha=self.samples * samples / total)
        self.mean += difference * (samples / total)
        self.samples = total

    def covariance(self) -> Tensor:
        """Return the covariance ``[D, D]`` of all samples, in float64."""
        if self.samples < 2:
            raise ValueError(f"loader must hold at least 2 samples, got {self.samples}")
        if not self.products.isfinite().all():
            raise ValueError(f"the activations of layer {self.name!r} must be finite")
        return self.products / (self.samples - 1)

    def spectrum(self) -> Tensor:
        """Return the covariance's eigenvalues ``[D]``, largest first; those of rounding are 0."""
        values = linalg.eigvalsh(self.covariance()).flip(-1)
        return torch.where(values > rounding_tolerance(values.dtype) * values[0], values, 0.0)

    def eigenvectors(self, at_least: int) -> Tensor:
        """Return the eigenvectors ``[D, R]``, that of the largest eigenvalue first.

        Those of eigenvalues that are rounding are left out, but for the first ``at_least``.
        """
        values, vectors = linalg.eigh(self.covariance())
        is_direction = values > rounding_tolerance(values.dtype) * values[-1]
        kept = max(int(is_direction.sum()), at_least)
        return vectors.flip(-1)[:, :kept].to(self.dtype, memory_format=torch.contiguous_format)


__all__ = ["Moments"]
