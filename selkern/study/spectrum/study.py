"""Train each network with each regularizer, and measure spectra and robustness."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from selkern import analysis
from selkern.attacks import FGSM, PGD
from selkern.study.base import Cell, Study, Tick
from selkern.study.folder import Folder, Row
from selkern.study.images import StudyImages, load_study_images
from selkern.study.measures import accuracy, spectra
from selkern.study.spectrum.networks import Normalization, hidden_layers, make_network
from selkern.study.spectrum.objectives import (
    JACOBIAN,
    LAST,
    LAST_FROZEN,
    WHITENING,
    make_objective,
)
from selkern.study.spectrum.presets import ANCHOR, Preset
from selkern.study.training import Trainer

__all__ = [
    "CLEAN",
    "FGSM_NAME",
    "FIRST_RANK",
    "KEPT_RANKS",
    "LAST_RANK",
    "NOISE",
    "PGD_NAME",
    "TRAINING",
    "SpectrumStudy",
    "exponent",
]

TRAINING, CLEAN, NOISE = "training", "none", "gaussian noise"
FGSM_NAME, PGD_NAME = "FGSM", "PGD"

FIRST_RANK = ANCHOR + 1
"""The first rank that the regularizer penalises."""
LAST_RANK = 50
"""Last rank of the shorter of the two fits; the other takes all that are kept."""
KEPT_RANKS = 1000
"""Of each spectrum, rounded to so many digits:"""
DIGITS = 6


@dataclass(frozen=True)
class SpectrumStudy(Study):
    """The study of Nassar et al.

    Parameters
    ----------
    source : str
        Where the images are, as for :func:`selkern.data.load_images`.
    preset : Preset
        Networks, schedules and perturbations.
    networks : sequence of str
        Which of the preset's networks.
    regularizers : sequence of str
        Which of ``REGULARIZERS``.
    seeds : sequence of int
        One network of each kind for each.
    device : torch.device
        Where networks are trained and measured.
    """

    source: str
    preset: Preset
    networks: Sequence[str]
    regularizers: Sequence[str]
    seeds: Sequence[int]
    device: torch.device

    name: ClassVar[str] = "spectrum"
    parts: ClassVar[tuple[str, ...]] = (TRAINING, "clean", "attacks", "noise")

    @property
    def images(self) -> StudyImages:
        """The images; none are held out, as the network of the last epoch is kept."""
        return load_study_images(self.source, 0)

    def settings(self) -> Mapping[str, Any]:
        """Everything but networks, regularizers and seeds, of which there may be more later."""
        preset = asdict(self.preset)
        del preset["default_networks"], preset["seeds"]
        return {
            "study": self.name,
            **preset,
            **self.images.settings(),
            "device": self.device.type,
        }

    def cells(self) -> Sequence[Cell]:
        """One network of each kind and seed; all kinds of a seed together."""
        return [
            Cell(f"{network}/{regularizer}", seed)
            for seed in self.seeds
            for network in self.networks
            for regularizer in self.regularizers
            if not (regularizer in (LAST, LAST_FROZEN) and self._is_shallow(network))
        ]

    def epochs(self, cell: Cell) -> int:
        """For how long a network is trained."""
        network, _ = cell.kind.split("/")
        return self.preset.networks[network].recipe.epochs

    def steps(self, part: str) -> int:
        """Epochs, and perturbed test sets."""
        counts = {
            TRAINING: max(self.preset.networks[name].recipe.epochs for name in self.networks),
            "clean": 1,
            "attacks": 2 * len(self.preset.eps),
            "noise": len(self.preset.noise),
        }
        return counts[part]

    def measure(self, cell: Cell, part: str, folder: Folder, tick: Tick) -> list[Row]:
        """Train a network, or measure it."""
        network, regularizer = cell.kind.split("/")
        kind = {"architecture": network, "regularizer": regularizer}
        model = self._make_model(network, regularizer, cell.seed)
        if part == TRAINING:
            return [{**kind, **self._train(model, cell, folder, tick)}]
        state = folder.load(cell.name, "network", self.device)
        if state is None:
            raise FileNotFoundError(f"{folder.path} has no network of {cell.name}: remove its part")
        model.load_state_dict(state)
        measure = {"clean": self._clean, "attacks": self._attacks, "noise": self._noise}[part]
        rows = []
        for row in measure(model, cell.seed):
            rows.append({**kind, **row})
            tick(1)
        return rows

    def _is_shallow(self, network: str) -> bool:
        """Whether the last hidden layer of a network is all of them."""
        architecture = self.preset.networks[network].architecture
        return len(architecture.channels) + len(architecture.units) == 1

    def _make_model(self, network: str, regularizer: str, seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        architecture = self.preset.networks[network].architecture
        images = self.images
        model = make_network(
            architecture, images.shape, images.num_classes, whitened=regularizer == WHITENING
        )
        return model.to(self.device)

    def _train(self, model: nn.Sequential, cell: Cell, folder: Folder, tick: Tick) -> Row:
        network, regularizer = cell.kind.split("/")
        normalization = model.get_submodule("normalization")
        assert isinstance(normalization, Normalization)
        normalization.fit(self.images.train)
        plan = self.preset.networks[network]
        objective = make_objective(
            regularizer, model, beta=plan.beta, jacobian=self.preset.jacobian
        )
        recipe = self.preset.recipe(network, is_jacobian=regularizer == JACOBIAN)
        trainer = Trainer(model, objective, recipe, cell.seed, self.device)
        trained = trainer.run(self.images.train, None, folder, cell, tick)
        return {"perturbation": TRAINING, "strength": 0, **asdict(trained)}

    def _test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.images.test.batches(self.preset.evaluation_batch, device=self.device)

    def _clean(self, model: nn.Module, seed: int) -> Iterator[Row]:
        batches = self.images.train.batches(self.preset.evaluation_batch, device=self.device)
        found = spectra(model, batches, hidden_layers(model))
        yield {
            "perturbation": CLEAN,
            "strength": 0,
            "accuracy": accuracy(model, self._test_batches()),
            "layers": {name: _layer(spectrum) for name, spectrum in found.items()},
        }

    def _attacks(self, model: nn.Module, seed: int) -> Iterator[Row]:
        start = torch.Generator(self.device).manual_seed(seed)
        steps = self.preset.pgd_steps
        for eps in self.preset.eps:
            attacks = {
                FGSM_NAME: FGSM(model, eps),
                PGD_NAME: PGD(model, eps, 2.5 * eps / steps, steps, generator=start),
            }
            for name, attack in attacks.items():
                attacked = ((attack(x, labels), labels) for x, labels in self._test_batches())
                yield _perturbed(name, eps, model, attacked)

    def _noise(self, model: nn.Module, seed: int) -> Iterator[Row]:
        generator = torch.Generator().manual_seed(seed)
        for deviation in self.preset.noise:
            noisy = (
                (_with_noise(x, deviation, generator), labels) for x, labels in self._test_batches()
            )
            yield _perturbed(NOISE, deviation, model, noisy)


def _perturbed(
    name: str, strength: float, model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]
) -> Row:
    return {"perturbation": name, "strength": strength, "accuracy": accuracy(model, batches)}


def _with_noise(images: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(images.shape, generator=generator).to(images)
    return (images + deviation * noise).clamp(0, 1)


def _layer(spectrum: Tensor) -> dict[str, Any]:
    kept = [float(f"{value:.{DIGITS}g}") for value in spectrum[:KEPT_RANKS].tolist()]
    return {
        "width": len(spectrum),
        "exponent": exponent(kept, FIRST_RANK, KEPT_RANKS),
        f"exponent to rank {LAST_RANK}": exponent(kept, FIRST_RANK, LAST_RANK),
        "spectrum": kept,
    }


def exponent(spectrum: Sequence[float], first: int, last: int) -> float | None:
    """Exponent of the power law fitted to ranks, None where there are not two that are not 0."""
    values = torch.tensor(spectrum, dtype=torch.float64)
    if min(len(values), last) <= first:
        return None
    fitted = float(analysis.fit_power_law(values, first, last).exponent)
    return fitted if math.isfinite(fitted) else None
