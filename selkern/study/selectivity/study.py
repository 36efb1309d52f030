"""Train at each strength and seed, and measure each network under every perturbation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selkern import SelectivityRegularizer, data
from selkern._outputs import layers_of_kind
from selkern.attacks import FGSM, PGD
from selkern.data.corruptions import corrupt, corruptions_for
from selkern.study.base import Cell, Study, Tick
from selkern.study.folder import Folder, Row
from selkern.study.images import StudyImages, checksum, load_study_images
from selkern.study.measures import accuracy, selectivity, under_perturbation
from selkern.study.selectivity.presets import NETWORKS, SWEPT_EPS, SWEPT_STEP, Preset
from selkern.study.training import Objective, Trainer

__all__ = ["CLEAN", "FGSM_NAME", "PGD_NAME", "SWEPT_NAME", "TRAINING", "SelectivityStudy"]

TRAINING, CLEAN = "training", "none"
FGSM_NAME, PGD_NAME, SWEPT_NAME = "FGSM", "PGD", f"PGD of steps of {SWEPT_STEP:g}"
SEVERITIES = (1, 2, 3, 4, 5)

Perturb = Callable[[Tensor, Tensor], Tensor]


class _Regularized(Objective):
    """Cross entropy minus alpha times the mean selectivity of every ReLU."""

    def __init__(self, model: nn.Module, regularizer: SelectivityRegularizer) -> None:
        super().__init__(model)
        self.regularizer = regularizer

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.model(images), labels) + self.regularizer(labels)


@dataclass(frozen=True)
class SelectivityStudy(Study):
    """The study of Leavitt & Morcos.

    Parameters
    ----------
    source : str
        Where the images are, as for :func:`selkern.data.load_images`.
    preset : Preset
        Networks, schedule, strengths and attacks.
    seeds : sequence of int
        One network of each strength for each.
    device : torch.device
        Where networks are trained and measured.
    corrupted : str, optional
        A folder with published corrupted images; without it the test images are corrupted here.
    """

    source: str
    preset: Preset
    seeds: Sequence[int]
    device: torch.device
    corrupted: str | None = None

    name: ClassVar[str] = "selectivity"
    parts: ClassVar[tuple[str, ...]] = (TRAINING, "clean", "corruptions", "attacks")

    @property
    def images(self) -> StudyImages:
        """The images."""
        return load_study_images(self.source, self.preset.validation)

    def settings(self) -> Mapping[str, Any]:
        """Everything but strengths and seeds, of which there may be more later."""
        preset = asdict(self.preset)
        del preset["alphas"], preset["seeds"]
        return {
            "study": self.name,
            **preset,
            **self.images.settings(),
            "corruptions": sorted({name for name, _, _ in self._corruptions()}),
            "corrupted images": self._checksum_of_corrupted(),
            "device": self.device.type,
        }

    def cells(self) -> Sequence[Cell]:
        """One network for each strength and seed; all strengths of a seed together."""
        return [Cell(_kind(alpha), seed) for seed in self.seeds for alpha in self.preset.alphas]

    def epochs(self, cell: Cell) -> int:
        """For how long a network is trained, all equally."""
        return self.preset.recipe.epochs

    def steps(self, part: str) -> int:
        """Epochs, and perturbed test sets."""
        attacks = 2 * len(self.preset.eps) + len(self.preset.swept_steps)
        counts = {
            TRAINING: self.preset.recipe.epochs,
            "clean": 1,
            "corruptions": len(list(self._corruptions())),
            "attacks": attacks,
        }
        return counts[part]

    def measure(self, cell: Cell, part: str, folder: Folder, tick: Tick) -> list[Row]:
        """Train a network, or measure it."""
        if part == TRAINING:
            return [self._train(cell, folder, tick)]
        model = self._make_model(cell.seed)
        state = folder.load(cell.name, "network", self.device)
        if state is None:
            raise FileNotFoundError(f"{folder.path} has no network of {cell.name}: remove its part")
        model.load_state_dict(state)
        layers = layers_of_kind(model, nn.ReLU)
        rows = []
        for row in self._measurements(part, model, layers, cell.seed):
            rows.append({"alpha": self._alpha(cell), **row})
            tick(1)
        return rows

    def _alpha(self, cell: Cell) -> float:
        return float(cell.kind.removeprefix("alpha="))

    def _make_model(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        channels, _, _ = self.images.shape
        model = NETWORKS[self.preset.network](self.images.num_classes, channels=channels)
        return model.to(self.device)

    def _train(self, cell: Cell, folder: Folder, tick: Tick) -> Row:
        model = self._make_model(cell.seed)
        alpha = self._alpha(cell)
        with SelectivityRegularizer(model, self.images.num_classes, alpha=alpha) as regularizer:
            objective = _Regularized(model, regularizer)
            trainer = Trainer(model, objective, self.preset.recipe, cell.seed, self.device)
            trained = trainer.run(self.images.train, self.images.validation, folder, cell, tick)
        return {"alpha": alpha, "perturbation": TRAINING, "strength": 0, **asdict(trained)}

    def _measurements(
        self, part: str, model: nn.Module, layers: Mapping[str, nn.Module], seed: int
    ) -> Iterator[Row]:
        if part == "clean":
            right, index = selectivity(model, self._test_batches(), layers, self.images.num_classes)
            yield {"perturbation": CLEAN, "strength": 0, "accuracy": right, "selectivity": index}
            return
        perturbations = self._corruptions() if part == "corruptions" else self._attacks(model, seed)
        for name, strength, perturb in perturbations:
            measured = (
                {"accuracy": accuracy(model, self._batches(perturb.load()))}
                if isinstance(perturb, _Unpaired)
                else asdict(under_perturbation(model, self._test_batches(), layers, perturb))
            )
            yield {"perturbation": name, "strength": strength, **measured}

    def check(self) -> None:
        """Refuse corrupted images that do not belong to the test images.

        Raises
        ------
        ValueError
            That says what differs.
        """
        if self.corrupted is None:
            return
        sets, test = data.load_corrupted(self.corrupted), self.images.test
        # CIFAR-10 has other names for its classes than the files of its corruptions.
        if not sets.is_paired and sets.classes != test.classes:
            raise ValueError(
                f"{self.corrupted} must have the classes of the test images, {_few(test.classes)}, "
                f"got {_few(sets.classes)}"
            )
        first = sets.load(sets.names[0], sets.severities[0])
        if first.image_shape != test.image_shape:
            raise ValueError(
                f"{self.corrupted} must have images of shape {test.image_shape}, got "
                f"{first.image_shape}"
            )
        if sets.is_paired and not torch.equal(first.labels, test.labels):
            raise ValueError(
                f"{self.corrupted} must hold the {len(test)} test images in their order, and its "
                f"{len(first)} images of {sets.names[0]} have other labels"
            )

    def _checksum_of_corrupted(self) -> str:
        if self.corrupted is None:
            return "made here"
        sets = data.load_corrupted(self.corrupted)
        return f"{checksum(sets.load(sets.names[0], sets.severities[-1])):08x}"

    def _test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._batches(self.images.test)

    def _batches(self, images: data.ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
        return images.batches(self.preset.evaluation_batch, device=self.device)

    def _corruptions(self) -> Iterator[tuple[str, float, Perturb | _Unpaired]]:
        """Each corruption and severity, and how the test images come to be corrupted."""
        if self.corrupted is not None:
            sets = data.load_corrupted(self.corrupted)
            for name in sets.names:
                for severity in sets.severities:
                    yield name, severity, self._published(sets, name, severity)
            return
        channels, _, _ = self.images.shape
        for name in corruptions_for(channels):
            for severity in SEVERITIES:
                yield name, severity, _Corruption(name, severity, self.device)

    def _published(self, sets: data.CorruptedSets, name: str, severity: int) -> Perturb | _Unpaired:
        if not sets.is_paired:
            return _Unpaired(sets, name, severity)
        batches: Iterator[tuple[Tensor, Tensor]] | None = None

        def perturb(images: Tensor, labels: Tensor) -> Tensor:
            nonlocal batches
            if batches is None:
                batches = self._batches(sets.load(name, severity))
            perturbed, theirs = next(batches)
            if not torch.equal(theirs, labels):
                raise ValueError(
                    f"{self.corrupted} must hold the test images in their order, and {name} has "
                    "other labels"
                )
            return perturbed

        return perturb

    def _attacks(self, model: nn.Module, seed: int) -> Iterator[tuple[str, float, Perturb]]:
        start = torch.Generator(self.device).manual_seed(seed)
        steps = self.preset.pgd_steps
        for eps in self.preset.eps:
            yield FGSM_NAME, eps, FGSM(model, eps)
            yield PGD_NAME, eps, PGD(model, eps, 2.5 * eps / steps, steps, generator=start)
        for swept in self.preset.swept_steps:
            yield SWEPT_NAME, swept, PGD(model, SWEPT_EPS, SWEPT_STEP, swept, random_start=False)


@dataclass(frozen=True)
class _Unpaired:
    """Corrupted images that are not the test images."""

    sets: data.CorruptedSets
    name: str
    severity: int

    def load(self) -> data.ImageSet:
        return self.sets.load(self.name, self.severity)


def _kind(alpha: float) -> str:
    """Name of a strength, from which it can be read again; -0 is 0."""
    return f"alpha={alpha + 0.0!r}".removesuffix(".0")


def _few(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:3])
    return f"{shown}, ... ({len(classes)})" if len(classes) > 3 else shown


class _Corruption:
    """A corruption with random numbers of its own, the same for every network."""

    def __init__(self, name: str, severity: int, device: torch.device) -> None:
        self.name = name
        self.severity = severity
        self.generator = torch.Generator(device).manual_seed(severity)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        return corrupt(images, self.name, self.severity, generator=self.generator)
