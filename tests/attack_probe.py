"""Every kernel of the attacks family at work, on as few threads as it takes."""

from __future__ import annotations

import torch
from cases import normal
from torch import Tensor

# A block and a part of one; samples in vectors and in single elements; more than one part.
SHAPES = [(2, 24), (3, 5), (1, 1, 97, 171)]


def attack_results(operators: object, dtype: torch.dtype) -> list[Tensor]:
    """Take both steps, from points inside the ball and outside."""
    results = []
    for shape in SHAPES:
        images = normal(shape, dtype).sigmoid()
        adv = images + normal(shape, dtype) / 16
        gradient = normal(shape, dtype).flip(-1)
        for norm, eps in [(0, 0.03), (1, 0.3), (1, 100.0)]:
            out = torch.empty_like(adv)
            operators.pgd_step_out(out, adv, gradient, images, norm, eps, 0.01, 0.0, 1.0)
            results.append(out)
    # Vectors and elements that are left; the same elements off the boundaries of vectors.
    row = normal((1, 1204), dtype).sigmoid()
    for part in (row[:, :1203], row[:, 1:]):
        for norm in (0, 1):
            results.append(operators.pgd_step(part, -part, part, norm, 0.5, 0.1, 0.0, 1.0))
    return results
