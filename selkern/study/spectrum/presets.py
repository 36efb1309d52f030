"""Networks, schedules and perturbations: the paper's, and small ones for the digits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from selkern.study.spectrum.networks import Architecture, hidden_widths
from selkern.study.statistics import LEAST_VALUES
from selkern.study.training import Recipe

__all__ = ["ANCHOR", "PUBLISHED_SEEDS", "NetworkPlan", "Preset", "by_name", "choose"]

ANCHOR = 11
"""Rank, counted from 1, at which 1/n meets each spectrum; later ones are penalised."""
PUBLISHED_SEEDS = 3
"""Networks of each kind that the paper trained. The presets of the paper have as many as an
interval needs."""


@dataclass(frozen=True)
class NetworkPlan:
    """One network and how it is trained."""

    architecture: Architecture
    recipe: Recipe
    beta: float
    """Strength of the 1/n penalty, summed over layers."""

    def with_epochs(self, epochs: int) -> NetworkPlan:
        """The same with another number of epochs."""
        return replace(self, recipe=replace(self.recipe, epochs=epochs))

    def check(self, shape: tuple[int, int, int], images: int) -> None:
        """Refuse images that the network cannot take, or that do not fill a batch."""
        narrowest = min(hidden_widths(self.architecture, shape))
        if narrowest <= ANCHOR:
            raise ValueError(
                f"every hidden layer must have more than {ANCHOR} units, and one has {narrowest} "
                f"for images of {shape[1]} x {shape[2]}"
            )
        if images < self.recipe.batch_size:
            raise ValueError(
                f"there must be training images for a batch of {self.recipe.batch_size}, got "
                f"{images}"
            )


@dataclass(frozen=True)
class Preset:
    """Everything that decides what is trained and how it is measured."""

    networks: Mapping[str, NetworkPlan]
    default_networks: tuple[str, ...]
    seeds: int
    """Networks of each kind, unless --seeds says how many."""
    eps: tuple[float, ...]
    """Radii of the attacks, in the l-infinity norm."""
    noise: tuple[float, ...]
    """Standard deviations of gaussian noise."""
    pgd_steps: int = 20
    """Each of 2.5 eps / steps, so that a walk reaches every point of the ball."""
    jacobian: float = 0.01
    jacobian_batch: int | None = None
    """Batch size under Jacobian regularization; None is the network's own."""
    evaluation_batch: int = 500

    def recipe(self, network: str, *, is_jacobian: bool) -> Recipe:
        """How a network is trained."""
        recipe = self.networks[network].recipe
        if is_jacobian and self.jacobian_batch is not None:
            return replace(recipe, batch_size=self.jacobian_batch)
        return recipe

    def with_epochs(self, epochs: int) -> Preset:
        """The same with another number of epochs for every network."""
        networks = {name: plan.with_epochs(epochs) for name, plan in self.networks.items()}
        return replace(self, networks=networks)

    def with_beta(self, beta: float) -> Preset:
        """The same with another strength of the 1/n penalty.

        Raises
        ------
        ValueError
            If it is not a finite number from 0 on.
        """
        if not (math.isfinite(beta) and beta >= 0):
            raise ValueError(f"must be a finite number from 0 on, got {beta}")
        networks = {name: replace(plan, beta=beta) for name, plan in self.networks.items()}
        return replace(self, networks=networks)

    def check(self, networks: Sequence[str], shape: tuple[int, int, int], images: int) -> None:
        """Refuse networks that there are not, or that cannot be trained on these images.

        Raises
        ------
        ValueError
            That says which network, and why.
        """
        for name in networks:
            if name not in self.networks:
                known = ", ".join(self.networks)
                raise ValueError(f"this preset has {known}, and no {name!r}")
            try:
                self.networks[name].check(shape, images)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error


def _recipe(epochs: int, batch_size: int, learning_rate: float) -> Recipe:
    return Recipe(epochs, batch_size, learning_rate, optimizer="adam", drops_last=True)


# The strength that is among the published ones both for the last layer and for all.
PUBLISHED_BETA = 2.0

_SMALL = Preset(
    # Half of the digits in a batch: more than there are units, and the frozen eigenvectors are not
    # the batch's own.
    networks={
        "mlp": NetworkPlan(Architecture((128,) * 3), _recipe(300, 673, 2e-3), beta=1.0),
        "cnn": NetworkPlan(
            Architecture((128,), channels=(8, 16), padding=1), _recipe(300, 673, 2e-3), beta=1.0
        ),
    },
    default_networks=("mlp", "cnn"),
    seeds=8,
    eps=(0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    noise=(0.1, 0.2, 0.3, 0.4, 0.5),
)
_PAPER_MNIST = Preset(
    networks={
        "mlp": NetworkPlan(Architecture((1000,) * 3), _recipe(100, 1500, 1e-4), PUBLISHED_BETA),
        "cnn": NetworkPlan(
            Architecture((1000,), channels=(16, 32)), _recipe(100, 6000, 1e-4), PUBLISHED_BETA
        ),
        "shallow": NetworkPlan(
            Architecture((2000,), batch_norm=True), _recipe(50, 3500, 1e-3), PUBLISHED_BETA
        ),
    },
    default_networks=("mlp", "cnn"),
    seeds=LEAST_VALUES,
    eps=(0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2),
    noise=(0.1, 0.2, 0.3, 0.4, 0.5),
    jacobian_batch=100,
)
_PAPER_CIFAR = Preset(
    networks={
        "cnn": NetworkPlan(
            Architecture((256, 256), channels=(16, 32, 64)),
            _recipe(100, 10000, 1e-3),
            PUBLISHED_BETA,
        ),
    },
    default_networks=("cnn",),
    seeds=LEAST_VALUES,
    eps=tuple(levels / 255 for levels in (1, 2, 4, 6, 8, 12, 16)),
    noise=(0.02, 0.05, 0.1, 0.15, 0.2),
    jacobian_batch=100,
)
_PAPER = {(1, 28, 28): _PAPER_MNIST, (3, 32, 32): _PAPER_CIFAR}
"""By the shape of an image."""


def by_name() -> dict[str, tuple[Preset, ...]]:
    """All presets, under the names that ``choose`` takes."""
    return {"small": (_SMALL,), "paper": tuple(_PAPER.values())}


def choose(name: str, shape: tuple[int, int, int]) -> Preset:
    """The preset of a name for images of a shape.

    Raises
    ------
    ValueError
        If the paper had no such images.
    """
    if name == "small":
        return _SMALL
    if shape not in _PAPER:
        raise ValueError(
            "the paper's networks are for MNIST, 1 x 28 x 28, and CIFAR-10, 3 x 32 x 32, got "
            f"images {' x '.join(str(size) for size in shape)}: use --preset small"
        )
    return _PAPER[shape]
