"""Networks and schedules of the selectivity study."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from selkern.study.residual import ResNet18, ResNet20
from selkern.study.selectivity.networks import DigitsNet
from selkern.study.training import Recipe

__all__ = ["NETWORKS", "Preset", "by_name", "choose"]

NETWORKS: dict[str, type[nn.Module]] = {
    "small": DigitsNet,
    "ResNet-20": ResNet20,
    "ResNet-18": ResNet18,
}
"""Each is called with the number of classes and ``channels``."""


@dataclass(frozen=True)
class Preset:
    """How the networks of a study are trained and measured."""

    network: str
    recipe: Recipe
    alphas: tuple[float, ...]
    """Strengths of the regularizer; a negative one lowers selectivity."""
    seeds: int
    validation: int
    """Training images held out to choose the best epoch by."""
    eps: tuple[float, ...]
    """Radii of FGSM and PGD in the maximum norm; images are in [0, 1]."""
    pgd_steps: int = 20
    """Each 2.5 radii over their number long, from a random start."""
    swept_steps: tuple[int, ...] = ()
    """Numbers of short steps of a further PGD, of `SWEPT_STEP` within `SWEPT_EPS`."""
    evaluation_batch: int = 500


SWEPT_EPS, SWEPT_STEP = 16 / 255, 1e-4

_PAPER_ALPHAS = (-100.0, -30.0, -10.0, -5.0, -2.0, -1.0, -0.3, -0.1)
_PAPER = Preset(
    network="ResNet-20",
    recipe=Recipe(epochs=200, batch_size=256, learning_rate=0.1, milestones=(100, 150)),
    alphas=(*_PAPER_ALPHAS, 0.0, *(-alpha for alpha in reversed(_PAPER_ALPHAS))),
    seeds=20,
    validation=5000,
    eps=tuple(levels / 255 for levels in (1, 2, 4, 8, 16)),
    swept_steps=(10, 30, 100, 300),
)
_PAPER_BY_SIZE = {
    32: _PAPER,
    64: replace(
        _PAPER,
        network="ResNet-18",
        recipe=Recipe(epochs=90, batch_size=4096, learning_rate=0.1, milestones=(35, 50, 65, 80)),
    ),
}
"""By the height of an image."""

_SMALL = Preset(
    network="small",
    recipe=Recipe(epochs=30, batch_size=128, learning_rate=0.05),
    alphas=(-5.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 5.0),
    seeds=8,
    validation=150,
    eps=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3),
)


def by_name() -> dict[str, tuple[Preset, ...]]:
    """All presets, under the names that ``choose`` takes."""
    return {"small": (_SMALL,), "paper": tuple(_PAPER_BY_SIZE.values())}


def choose(name: str, shape: tuple[int, int, int]) -> Preset:
    """The preset of a name for images of a shape.

    Raises
    ------
    ValueError
        If the paper had no such images.
    """
    if name == "small":
        return _SMALL
    _, height, _ = shape
    if height not in _PAPER_BY_SIZE:
        raise ValueError(
            "the paper's networks are for CIFAR-10, 32 x 32, and Tiny ImageNet, 64 x 64, got "
            f"images {shape[1]} x {shape[2]}: use --preset small"
        )
    return _PAPER_BY_SIZE[height]
