"""Other libraries' attacks as functions of images and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from selkern import _checks
from selkern._modes import evaluating, without_inference
from selkern.attacks import _checks as checks

Attack = Callable[[Tensor, Tensor], Tensor]


def from_foolbox(
    attack: Any, model: nn.Module, *, eps: float, bounds: tuple[float, float] = (0.0, 1.0)
) -> Attack:
    """Make ``attack(images, labels)`` of an attack of foolbox.

    The model runs in eval mode, and neither its modes nor its gradients are changed.

    Parameters
    ----------
    attack : foolbox.Attack
        Such as ``foolbox.attacks.LinfPGD(steps=10)``.
    model : Module
        Gives logits ``[N, K]`` of images.
    eps : float
        Radius of the ball; for an attack that finds the smallest one by itself, the largest allowed
        distance.
    bounds : tuple of float, default (0, 1)
        Lowest and highest value of an image.

    Returns
    -------
    callable
        ``attack(images, labels)``, which returns adversarial images within ``eps``: of images
        ``[N, C, ...]`` within ``bounds`` and their classes ``[N]``, or one of foolbox's criteria.

    Raises
    ------
    ImportError
        If foolbox is not installed.
    TypeError, ValueError
        If an argument is of the wrong kind or has a wrong value, also when ``attack`` is called.

    Examples
    --------
    >>> import foolbox  # doctest: +SKIP
    >>> attack = from_foolbox(foolbox.attacks.L2PGD(), model, eps=0.5)  # doctest: +SKIP
    >>> adv = attack(images, labels)  # doctest: +SKIP
    """
    from foolbox.models.pytorch import PyTorchModel

    checks.function("attack", attack)
    _checks.module("model", model)
    eps, bounds = checks.radius(eps), checks.bounds(bounds)

    def attack_images(images: Tensor, labels: Any) -> Tensor:
        checks.images(images, bounds)
        with _untouched(model):
            wrapped = PyTorchModel(model, bounds=bounds, device=images.device)
            if isinstance(labels, Tensor):
                labels = _classes_of(images, labels)
            _, adv, _ = attack(wrapped, without_inference(images), labels, epsilons=eps)
        return adv.detach()

    return attack_images


def from_secml(attack: Any, model: nn.Module) -> Attack:
    """Make ``attack(images, labels)`` of an attack of secml-torch.

    The model runs in eval mode, and neither its modes nor its gradients are changed.

    Parameters
    ----------
    attack : secmlt.adv.evasion.base_evasion_attack.BaseEvasionAttack
        Such as ``secmlt.adv.evasion.pgd.PGD(...)``, which has its own bounds.
    model : Module
        Gives logits ``[N, K]`` of images.

    Returns
    -------
    callable
        ``attack(images, labels)``, which returns adversarial images of images ``[N, C, ...]`` and
        their classes ``[N]``.

    Raises
    ------
    ImportError
        If secml-torch is not installed.
    TypeError, ValueError
        If an argument is of the wrong kind or has a wrong value, also when ``attack`` is called.

    Examples
    --------
    >>> from secmlt.adv.evasion.pgd import PGD  # doctest: +SKIP
    >>> native = PGD("linf", 0.1, 10, 0.03, backend="native")  # doctest: +SKIP
    >>> adv = from_secml(native, model)(images, labels)  # doctest: +SKIP
    """
    from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier

    checks.function("attack", attack)
    _checks.module("model", model)

    def attack_images(images: Tensor, labels: Tensor) -> Tensor:
        _checks.activation("images", images)
        samples = TensorDataset(images, _classes_of(images, labels))
        batch = DataLoader(samples, batch_size=max(1, len(images)))
        with _untouched(model):
            ((adv, _),) = attack(BasePyTorchClassifier(model), batch)
        return adv.detach().to(images.device)

    return attack_images


def _classes_of(images: Tensor, labels: Any) -> Tensor:
    """Return labels as other libraries want them."""
    checks.labels(labels, images, classes=True)
    return without_inference(labels).long()


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Evaluate a model that an attack would leave gradients in."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
