"""Steps of gradient attacks as a user would write them, without selkern."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CAREFUL", "PAGES", "Step", "in_place", "linf_bounds", "linf_within", "with_sizes"]

SMALLEST_NORM = 1e-12

Step = Callable[..., Tensor]
"""The next adversarial images of adv, grad, images, eps and alpha, within 0 and 1."""


def linf_page(adv: Tensor, grad: Tensor, images: Tensor, eps: float, alpha: float) -> Tensor:
    adv = adv + alpha * grad.sign()
    adv = torch.min(torch.max(adv, images - eps), images + eps)
    return torch.clamp(adv, 0, 1)


def linf_careful(
    adv: Tensor,
    grad: Tensor,
    images: Tensor,
    eps: float,
    alpha: float,
    out: Tensor | None = None,
) -> Tensor:
    """Two passes fewer, and all in one tensor."""
    moved = torch.sign(grad, out=out)
    moved = torch.add(adv, moved, alpha=alpha, out=moved)
    return moved.sub_(images).clamp_(-eps, eps).add_(images).clamp_(0, 1)


def linf_bounds(images: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Lowest and highest values of an attack, which do not change from step to step."""
    return (images - eps).clamp_(min=0), (images + eps).clamp_(max=1)


def linf_within(
    adv: Tensor, grad: Tensor, bounds: tuple[Tensor, Tensor], alpha: float, signs: Tensor
) -> Tensor:
    """Three passes, in place, for who keeps the bounds of the attack and a tensor for signs."""
    adv.add_(torch.sign(grad, out=signs), alpha=alpha)
    return torch.clamp(adv, *bounds, out=adv)


def l2_page(adv: Tensor, grad: Tensor, images: Tensor, eps: float, alpha: float) -> Tensor:
    of_samples = (-1, *[1] * (adv.dim() - 1))
    norms = grad.flatten(1).norm(dim=1) + SMALLEST_NORM
    adv = adv + alpha * grad / norms.view(of_samples)
    delta = adv - images
    norms = delta.flatten(1).norm(dim=1)
    factors = torch.min(eps / norms, torch.ones_like(norms))
    return torch.clamp(images + delta * factors.view(of_samples), 0, 1)


def l2_careful(
    adv: Tensor,
    grad: Tensor,
    images: Tensor,
    eps: float,
    alpha: float,
    out: Tensor | None = None,
) -> Tensor:
    """Factors of the samples instead of divided tensors, and all in one tensor."""
    scale = alpha / _norms(grad).clamp_(min=SMALLEST_NORM)
    delta = torch.addcmul(adv, grad, scale, out=out).sub_(images)
    factors = (eps / _norms(delta)).clamp_(max=1)
    return torch.addcmul(images, delta, factors, out=delta).clamp_(0, 1)


def _norms(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim())), keepdim=True)
    return norms


PAGES: dict[str, Step] = {"linf": linf_page, "l2": l2_page}
CAREFUL: dict[str, Step] = {"linf": linf_careful, "l2": l2_careful}


def with_sizes(step: Step, eps: float, alpha: float) -> Step:
    """A step of three tensors; to torch.compile both numbers are constants."""

    def sized(adv: Tensor, grad: Tensor, images: Tensor) -> Tensor:
        return step(adv, grad, images, eps=eps, alpha=alpha)

    return sized


def in_place(step: Step) -> Step:
    """Write the result over where the attack was, which costs a pass unless it is compiled."""

    def stepped(adv: Tensor, grad: Tensor, images: Tensor) -> Tensor:
        return adv.copy_(step(adv, grad, images))

    return stepped
