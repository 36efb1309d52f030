"""Steps of gradient attacks, and attacks made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from selkern._layout import result_dtype
from selkern._modes import evaluating

__all__ = ["FGSM", "PGD", "pgd_step"]

SMALLEST_NORM = 1e-12
"""A gradient is divided by its norm, or by this if that is smaller."""

Bounds = tuple[float, float]


def pgd_step(
    adv: Tensor,
    grad: Tensor,
    images: Tensor,
    *,
    eps: float,
    alpha: float,
    norm: str = "linf",
    bounds: Bounds = (0.0, 1.0),
    out: Tensor | None = None,
) -> Tensor:
    r"""Step along a gradient and project onto the ball around the images and onto the bounds.

    .. math::

        \ell_\infty:\quad a' = \min(\max(a + \alpha\,\mathrm{sign}(g),\ x - \epsilon), x + \epsilon)

        \ell_2:\quad d = a + \alpha \frac{g}{\max(\lVert g \rVert, 10^{-12})} - x, \qquad
        a' = x + d \cdot \min\Bigl(1, \frac{\epsilon}{\lVert d \rVert}\Bigr)

    and then :math:`\min(\max(a', low), high)`. Norms are those of each sample. NaN in the gradient
    counts as zero, with :math:`\ell_2` also what is infinite.

    Parameters
    ----------
    adv, grad, images : Tensor
        Where the attack is, the gradient there, and where it began; ``[N, ...]``.
    eps, alpha : float
        Radius of the ball, and length of the step.
    norm : {"linf", "l2"}
        Of the ball, and of the step.
    bounds : tuple of float
        Lowest and highest value of an image.
    out : Tensor, optional
        Where the result goes.

    Returns
    -------
    Tensor
        The new adversarial images.

    Examples
    --------
    >>> x = torch.tensor([[0.5, 0.75]])
    >>> pgd_step(x, torch.tensor([[3.0, 4.0]]), x, eps=0.5, alpha=0.25, norm="l2")
    tensor([[0.6500, 0.9500]])
    """
    if norm == "linf":
        stepped = adv + alpha * grad.nan_to_num(nan=0.0).sign()
        projected = torch.minimum(torch.maximum(stepped, images - eps), images + eps)
    else:
        direction = grad.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        direction = direction / sample_norms(direction).clamp(min=SMALLEST_NORM)
        moved = adv + alpha * direction - images
        norms = sample_norms(moved).clamp(min=torch.finfo(moved.dtype).tiny)
        projected = images + moved * (eps / norms).clamp(max=1.0)
    result = projected.clamp(*bounds)
    return result if out is None else out.copy_(result)


def sample_norms(x: Tensor) -> Tensor:
    """Euclidean norm of each sample, ``[N, 1, ...]``."""
    norms = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms.view(-1, *[1] * (x.dim() - 1))


def random_start(
    images: Tensor, eps: float, norm: str, generator: torch.Generator | None
) -> Tensor:
    """Draw uniformly from the ball around each of the images, whatever their memory format."""
    dtype = result_dtype(images.dtype)
    draw: Any = {"dtype": dtype, "device": images.device, "generator": generator}
    if norm == "linf":
        noise = torch.rand(images.shape, **draw).mul_(2).sub_(1).mul_(eps)
    else:
        noise = torch.randn(images.shape, **draw)
        dimensions = max(1, math.prod(images.shape[1:]))
        radius = eps * torch.rand(images.shape[:1], **draw) ** (1 / dimensions)
        noise *= radius.view(-1, *[1] * (noise.dim() - 1)) / sample_norms(noise)
    return torch.add(images, noise, out=torch.empty_like(images))


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, added up over the samples: a gradient does not depend on the others."""
    return F.cross_entropy(logits, labels, reduction="sum")


class PGD:
    """Projected gradient descent: steps uphill in the loss from the images or near them.

    Takes the arguments of :class:`selkern.attacks.PGD`, and looks at none of them.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        eps: float = 8 / 255,
        alpha: float = 2 / 255,
        steps: int = 10,
        random_start: bool = True,
        *,
        norm: str = "linf",
        bounds: Bounds = (0.0, 1.0),
        targeted: bool = False,
        early_stop: bool = False,
        loss: Callable[[Any, Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ):
        self.model = model
        self.step: Any = {"eps": eps, "norm": norm, "bounds": bounds}
        self.alpha = -alpha if targeted else alpha
        self.steps = steps
        self.random_start = random_start
        self.targeted = targeted
        self.early_stop = early_stop
        self.loss = loss or summed_cross_entropy
        self.generator = generator

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return adversarial images for ``labels``, which a targeted attack aims at."""
        adv = images
        if self.random_start:
            adv = random_start(images, self.step["eps"], self.step["norm"], self.generator)
            adv = pgd_step(adv, torch.zeros_like(adv), images, alpha=0.0, **self.step)
        with evaluating(self.model), torch.enable_grad():
            for _ in range(self.steps):
                leaf = adv.detach().requires_grad_()
                logits = self.model(leaf)
                (grad,) = torch.autograd.grad(self.loss(logits, labels), leaf)
                if self.early_stop:
                    fooled = (logits.argmax(1) == labels) == self.targeted
                    grad = grad.masked_fill(fooled.view(-1, *[1] * (grad.dim() - 1)), 0.0)
                adv = pgd_step(adv, grad, images, alpha=self.alpha, **self.step)
        return adv.detach()


class FGSM(PGD):
    """The fast gradient sign method: a single step from the images to the surface of the ball.

    Takes the arguments of :class:`selkern.attacks.FGSM`, and looks at none of them.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], eps: float = 8 / 255, **options: Any):
        super().__init__(model, eps, alpha=eps, steps=1, random_start=False, **options)
