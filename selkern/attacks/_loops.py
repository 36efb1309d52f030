"""Attacks made of steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeAlias

import torch
from torch import Tensor

from selkern import _checks
from selkern._modes import evaluating, without_inference
from selkern.attacks import _checks as checks
from selkern.attacks._step import pgd_step
from selkern.reference.attacks import random_start, summed_cross_entropy

Loss: TypeAlias = Callable[[Any, Tensor], Tensor]


class PGD:
    r"""Projected gradient descent (Madry et al., arXiv 1706.06083).

    From a random point of the ball around each image, or from the image itself, ``steps`` times
    :func:`pgd_step` along the gradient of the loss.

    The model runs in eval mode, and each of its modules gets its own mode back; gradients are taken
    of the images alone, so that ``param.grad`` and BatchNorm statistics stay as they were. Works
    under ``torch.no_grad``, ``torch.inference_mode`` and autocast, and with compiled models.

    Parameters
    ----------
    model : Module or callable
        Gives logits ``[N, K]`` of images; a normalisation belongs into it.
    eps : float, default 8/255
        Radius of the ball, in units of the images; with "linf" at most the width of ``bounds``.
    alpha : float, default 2/255
        Length of a step.
    steps : int, default 10
        Number of steps.
    random_start : bool, default True
        Begin at a point drawn uniformly from the ball.
    norm : {"linf", "l2"}, default "linf"
        Norm of the ball and of the steps.
    bounds : tuple of float, default (0, 1)
        Lowest and highest value of an image.
    targeted : bool, default False
        Descend: the labels are those that the model shall give.
    early_stop : bool, default False
        Leave a sample where it is once it fools the model: where the class of the largest logit is
        not the label, or is the target. The other samples go on, in the same batch; on the CPU the
        attack ends once all have stopped.
    loss : callable, optional
        ``loss(logits, labels)``, a scalar to increase; cross entropy summed over the samples if not
        given. It may add the term of a regularizer that is attached to the model, which then reads
        the activations of the attack's own forward.
    generator : torch.Generator, optional
        Of the random starts, on the device of the images.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or has a wrong value; when called, if ``images`` are no
        floating tensor with 2 to 5 axes, if ``images`` are not within ``bounds`` or ``labels`` not
        classes (on CUDA, where looking would mean waiting, only with ``SELKERN_CHECK=1`` in the
        environment), and if logits, labels or loss do not fit.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> images, labels = torch.rand(8, 1, 4, 4), torch.randint(3, (8,))
    >>> attack = PGD(model, eps=0.1, alpha=0.03, steps=5)
    >>> adv = attack(images, labels)
    >>> bool((adv - images).abs().max() <= 0.1)
    True
    """

    def __init__(
        self,
        model: Callable[[Tensor], Any],
        eps: float = 8 / 255,
        alpha: float = 2 / 255,
        steps: int = 10,
        random_start: bool = True,
        *,
        norm: str = "linf",
        bounds: tuple[float, float] = (0.0, 1.0),
        targeted: bool = False,
        early_stop: bool = False,
        loss: Loss | None = None,
        generator: torch.Generator | None = None,
    ):
        self.model = checks.function("model", model)
        self.eps = checks.radius(eps)
        self.alpha = checks.length(alpha)
        self.steps = checks.steps(steps)
        self.random_start = checks.switch("random_start", random_start)
        self.norm = checks.norm(norm)
        self.bounds = checks.bounds(bounds)
        checks.within_width(self.eps, self.norm, self.bounds)
        self.targeted = checks.switch("targeted", targeted)
        self.early_stop = checks.switch("early_stop", early_stop)
        self.loss = None if loss is None else checks.function("loss", loss)
        self.generator = _checks.generator(generator)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return adversarial images.

        Parameters
        ----------
        images : Tensor
            ``[N, C, ...]`` within ``bounds``.
        labels : Tensor
            Classes ``[N]`` of the images, or those to aim at, int64 or int32; a sample whose label
            is -100 stays at its start, on CUDA also one whose label is no class. A ``loss`` of your
            own may take other labels, with one row a sample.

        Returns
        -------
        Tensor
            Within the ball and the bounds; dtype and memory format of ``images``, detached.
        """
        checks.images(images, self.bounds)
        checks.labels(labels, images, classes=self.loss is None or self.early_stop)
        with ExitStack() as scope:
            scope.enter_context(torch.inference_mode(False))
            scope.enter_context(torch.enable_grad())
            scope.enter_context(evaluating(self.model))
            images, labels = without_inference(images.detach()), without_inference(labels)
            return self._walk(images, labels)

    def _walk(self, images: Tensor, labels: Tensor) -> Tensor:
        alpha = -self.alpha if self.targeted else self.alpha
        adv, targets = self._start(images), labels
        for step in range(self.steps):
            leaf = adv.detach().requires_grad_()
            logits = self.model(leaf)
            if step == 0 and (self.early_stop or self.loss is None):
                targets = checks.classes(labels, logits)
            stopped = self._stopped(logits, targets)
            if stopped is not None and _checks.may_look_at(stopped) and bool(stopped.all()):
                break
            gradient = _gradient_of(self._value(logits, labels, targets), leaf)
            if stopped is not None:
                gradient = gradient.masked_fill(stopped.view(-1, *[1] * (gradient.dim() - 1)), 0.0)
            out = None if adv is images else adv
            adv = pgd_step(adv, gradient, images, alpha=alpha, out=out, **self._ball)
        return adv.clone() if adv is images else adv

    @property
    def _ball(self) -> dict[str, Any]:
        return {"eps": self.eps, "norm": self.norm, "bounds": self.bounds}

    def _start(self, images: Tensor) -> Tensor:
        if not self.random_start:
            return images
        start = random_start(images, self.eps, self.norm, self.generator)
        return pgd_step(start, start, images, alpha=0.0, out=start, **self._ball)

    def _stopped(self, logits: Tensor, targets: Tensor) -> Tensor | None:
        if not self.early_stop:
            return None
        return (logits.argmax(1) == targets) == self.targeted

    def _value(self, logits: Any, labels: Tensor, targets: Tensor) -> Tensor:
        if self.loss is None:
            return summed_cross_entropy(logits, targets)
        value = self.loss(logits, labels)
        checks.loss(value)
        return value

    def __repr__(self) -> str:
        """Name the attack and its settings."""
        shown = ("eps", "alpha", "steps", "random_start", "norm", "bounds", "targeted")
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({settings})"


class FGSM(PGD):
    r"""The fast gradient sign method (Goodfellow et al., arXiv 1412.6572).

    .. math:: a = x + \epsilon\,\mathrm{sign}(\nabla_x L)

    within the bounds: a single step of :class:`PGD` to the surface of the ball. The model is
    treated as there.

    Parameters
    ----------
    model : Module or callable
        Gives logits ``[N, K]`` of images; a normalisation belongs into it.
    eps : float, default 8/255
        Length of the step, in units of the images; at most the width of ``bounds``.
    bounds, targeted, loss
        As for :class:`PGD`.

    Raises
    ------
    TypeError, ValueError
        As for :class:`PGD`.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> images, labels = torch.rand(8, 1, 4, 4), torch.randint(3, (8,))
    >>> adv = FGSM(model, eps=0.1)(images, labels)
    >>> bool((adv - images).abs().max() <= 0.1)
    True
    """

    def __init__(
        self,
        model: Callable[[Tensor], Any],
        eps: float = 8 / 255,
        *,
        bounds: tuple[float, float] = (0.0, 1.0),
        targeted: bool = False,
        loss: Loss | None = None,
    ):
        super().__init__(model, eps, eps, 1, False, bounds=bounds, targeted=targeted, loss=loss)


def _gradient_of(loss: Tensor, leaf: Tensor) -> Tensor:
    gradient = None
    if loss.requires_grad:
        (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    if gradient is None:
        raise ValueError("the loss must depend on the images through model, and it does not")
    return gradient
