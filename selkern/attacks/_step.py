"""One step of a gradient attack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selkern import _checks, _library, reference
from selkern.attacks import _checks as checks

_ops = torch.ops.selkern


def pgd_step(
    adv: Tensor,
    grad: Tensor,
    images: Tensor,
    *,
    eps: float,
    alpha: float,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
    out: Tensor | None = None,
) -> Tensor:
    r"""Step along a gradient, and project onto the ball around the images and onto the bounds.

    .. math::

        \ell_\infty:\quad a' = \min(\max(a + \alpha\,\mathrm{sign}(g),\ x - \epsilon), x + \epsilon)

        \ell_2:\quad d = a + \alpha \frac{g}{\max(\lVert g \rVert, 10^{-12})} - x, \qquad
        a' = x + d \cdot \min\Bigl(1, \frac{\epsilon}{\lVert d \rVert}\Bigr)

    and then :math:`\min(\max(a', low), high)` (Madry et al., arXiv 1706.06083). Norms are those of
    each sample. One pass over the data, with :math:`\ell_2` two. Where the images lie within the
    bounds, the result lies within bounds and ball exactly: what rounding would put outside, with
    :math:`\ell_2` further from the image than it should be, is the next number in its direction.

    NaN in the gradient counts as zero; what is infinite counts by its sign, but as zero with
    :math:`\ell_2`, as does a gradient whose norm is not finite. NaN in ``adv`` or ``images`` stays.
    The result is detached: no gradient flows through a step.

    Parameters
    ----------
    adv : Tensor
        Where the attack is, ``[N, C]`` to ``[N, C, D, H, W]``; float16, bfloat16, float32 or
        float64; contiguous or channels-last.
    grad : Tensor
        Gradient of the loss there; shape and dtype of ``adv``. Another memory format than that of
        ``adv`` is copied once.
    images : Tensor
        Where the attack began, the same.
    eps : float
        Radius of the ball, in units of the images.
    alpha : float
        Length of the step; below zero it descends.
    norm : {"linf", "l2"}, default "linf"
        Norm of the ball and of the step.
    bounds : tuple of float, default (0, 1)
        Lowest and highest value of an image; infinite for none.
    out : Tensor, optional
        Where the result goes, of any strides. ``out=adv`` steps in place.

    Returns
    -------
    Tensor
        ``out``, or a new tensor with the memory format of ``adv``.

    Raises
    ------
    TypeError
        If a tensor is not a floating tensor or the dtypes differ, or a number is not real.
    ValueError
        If shapes or devices differ; if ``adv`` has fewer than 2 or more than 5 axes; if ``eps`` is
        negative, or ``eps`` or ``alpha`` not finite; for an unknown ``norm``; if the lower bound is
        not below the higher one, or the dtype has no number between them; if a dense ``out`` shares
        only a part of its memory with another argument, or elements of ``out`` share theirs.

    Examples
    --------
    >>> x = torch.tensor([[0.5, 0.75]])
    >>> pgd_step(x, torch.tensor([[3.0, -4.0]]), x, eps=0.25, alpha=0.125)
    tensor([[0.6250, 0.6250]])
    >>> pgd_step(x, torch.tensor([[3.0, 4.0]]), x, eps=0.5, alpha=0.25, norm="l2")
    tensor([[0.6500, 0.9500]])
    """
    _checks.activation("adv", adv)
    checks.like_adv("grad", grad, adv)
    checks.like_adv("images", images, adv)
    eps, alpha = checks.radius(eps), checks.step_size(alpha)
    norm, (low, high) = checks.norm(norm), checks.bounds(bounds)
    tensors = adv.detach(), grad.detach(), images.detach()
    if out is not None:
        checks.like_adv("out", out, adv)
        if out.requires_grad and torch.is_grad_enabled():
            raise ValueError("out must not require a gradient: pass out.detach()")
    if not _library.COMPILED:
        step: Any = {"eps": eps, "alpha": alpha, "norm": norm, "bounds": (low, high)}
        return reference.attacks.pgd_step(*tensors, **step, out=out)
    settings = (checks.NORMS.index(norm), eps, alpha, low, high)
    if out is None:
        return _ops.pgd_step(*tensors, *settings)
    if torch._C._are_functorch_transforms_active():
        return out.copy_(_ops.pgd_step(*tensors, *settings))
    _ops.pgd_step_out(out, *tensors, *settings)
    if not (torch.compiler.is_compiling() or out.is_inference()):
        torch.autograd.graph.increment_version(out)
    return out
