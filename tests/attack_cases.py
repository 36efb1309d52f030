"""Small models to attack, their images, and how far exactly adversarial images are from those."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_CLASSES = 4
CHANNELS, SIDE = 3, 5
PIXELS = CHANNELS * SIDE * SIDE

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
STEPS: dict[str, Any] = {"eps": 0.2, "alpha": 0.07, "steps": 6}
L2_STEPS: dict[str, Any] = {"eps": 1.0, "alpha": 0.3, "steps": 6}


def steps_of(norm: str) -> dict[str, Any]:
    return (STEPS if norm == "linf" else L2_STEPS) | {"norm": norm}


def images(
    samples: int = 8,
    dtype: torch.dtype = torch.float64,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 1,
) -> Tensor:
    """Images of which some values lie on the bounds."""
    low, high = bounds
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(samples, CHANNELS, SIDE, SIDE, dtype=torch.float64, generator=generator)
    return (low + (high - low) * (1.2 * x - 0.1)).clamp(low, high).to(dtype)


def classes(samples: int = 8, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(NUM_CLASSES, (samples,), generator=generator)


def smooth_model(dtype: torch.dtype = torch.float64, scale: float = 3.0) -> nn.Sequential:
    """A model with a derivative everywhere, so that rounding turns no sign of a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(CHANNELS, 6, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(6 * SIDE * SIDE, NUM_CLASSES),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    return model.to(dtype)


def linear_model(weight: Tensor) -> nn.Sequential:
    """A model whose cross entropy is a convex function of the images."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0])).to(weight)
    with torch.no_grad():
        model[1].weight.copy_(weight)
    return model


class Stateful(nn.Module):
    """A model with BatchNorm and dropout, and with some modules in eval mode, some not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.frozen_norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6 * SIDE * SIDE, NUM_CLASSES)
        for norm in (self.norm, self.frozen_norm):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
        self.frozen_norm.eval()
        self.frozen_norm.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.frozen_norm(torch.tanh(self.norm(self.conv(x))))
        return self.head(self.dropout(x).flatten(1))


def stateful_model(dtype: torch.dtype = torch.float64) -> Stateful:
    """Return a model of which some parameters have gradients, one of them all zeros."""
    torch.manual_seed(0)
    model = Stateful().to(dtype)
    model.head.weight.grad = torch.randn_like(model.head.weight)
    model.conv.bias.grad = torch.zeros_like(model.conv.bias)
    return model


@contextmanager
def assert_untouched(model: nn.Module) -> Iterator[None]:
    """Check that a block leaves a model as it was: modes, gradients, flags, tensors."""
    before = _state(model)
    yield
    after = _state(model)
    assert before.keys() == after.keys()
    for name, (tensor, value) in before.items():
        tensor_now, value_now = after[name]
        assert tensor_now is tensor, name
        same = value_now == value if tensor is None else torch.equal(value_now, value)
        assert same, name


def _state(model: nn.Module) -> dict[str, tuple[Tensor | None, Any]]:
    """Map each part of a model's state to the tensor that it is, if any, and its value."""
    state: dict[str, tuple[Tensor | None, Any]] = {}
    for name, module in model.named_modules():
        state[f"{name} training"] = None, module.training
    for name, buffer in model.named_buffers():
        state[name] = buffer, buffer.clone()
    for name, parameter in model.named_parameters():
        state[name] = parameter, parameter.detach().clone()
        state[f"{name} requires_grad"] = None, parameter.requires_grad
        gradient = parameter.grad
        state[f"{name} grad"] = gradient, None if gradient is None else gradient.clone()
    return state


class Counting:
    """A model that is a plain function, and counts its calls."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.model = model
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.model(x)


def cross_entropies(model: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each sample."""
    with torch.no_grad():
        return F.cross_entropy(model(x), labels, reduction="none")


def assert_within(
    adv: Tensor,
    x: Tensor,
    eps: float,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Check ball and bounds without rounding: all that is compared is a fraction."""
    low, high = bounds
    assert adv.dtype == x.dtype
    assert bool(((low <= adv.double()) & (adv.double() <= high)).all())
    limit = Fraction(eps)
    for a, b in zip(adv.flatten(1).tolist(), x.flatten(1).tolist(), strict=True):
        distances = [abs(Fraction(p) - Fraction(q)) for p, q in zip(a, b, strict=True)]
        if norm == "linf":
            assert max(distances) <= limit
        else:
            assert sum(distance**2 for distance in distances) <= limit**2


def euclidean(x: Tensor) -> Tensor:
    """Euclidean norm of each sample."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)
