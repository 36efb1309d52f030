"""torch.compile of the spectrum operators without graph breaks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from cases import TRANSFORMS
from spectra import ALL_OPERATORS, BASIS, normal
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import selkern
from selkern import reference

pytestmark = pytest.mark.usefixtures("fresh_compiler")


def everything(module: object, x: Tensor) -> Tensor:
    """Scalar that depends on every result of every operator."""
    spectrum = module.eigenspectrum(x, correction=0)
    few = module.eigenspectrum(x[:4])
    values, vectors = module.linalg.eigh(x.mT @ x)
    terms = [
        module.covariance(x).square().sum(),
        spectrum.square().sum(),
        few.sin().sum(),
        module.eigenspectrum(x, basis=BASIS).sin().sum(),
        module.linalg.eigvalsh(x.mT @ x).sin().sum(),
        values.cos().sum() + vectors.detach().abs().sum(),
        module.power_law_penalty(spectrum, anchor=2),
        module.spectral_loss([x, x.unsqueeze(-1)], anchor=2, basis=[None, BASIS]),
    ]
    return sum(terms)


def value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    value = function(x)
    (gradient,) = torch.autograd.grad(value, x)
    return [value.detach(), gradient]


def test_static_shapes() -> None:
    x = normal(9, 5)
    expected = value_and_gradient(partial(everything, reference), x)
    compiled = torch.compile(
        partial(everything, selkern), fullgraph=True, dynamic=False, backend="aot_eager"
    )
    torch.testing.assert_close(value_and_gradient(compiled, x), expected, rtol=1e-9, atol=1e-10)


def test_dynamic_shapes_compile_once() -> None:
    compiled = torch.compile(
        partial(everything, selkern), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for samples in (9, 13, 30):
        x = normal(samples, 5)
        expected = value_and_gradient(partial(everything, reference), x)
        with torch.compiler.set_stance("default" if samples == 9 else "fail_on_recompile"):
            actual = value_and_gradient(compiled, x)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


def _losses(module: object, x: Tensor) -> Tensor:
    exact = module.spectral_loss(x, anchor=2) + module.eigenspectrum(x.mT).sin().sum()
    return exact + module.spectral_loss(x, anchor=2, basis=BASIS)


def test_the_default_backend() -> None:
    x = normal(9, 5)
    expected = value_and_gradient(partial(_losses, reference), x)
    compiled = torch.compile(partial(_losses, selkern), fullgraph=True)
    torch.testing.assert_close(value_and_gradient(compiled, x), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [
        ("grad", True),
        ("vmap", False),
        ("vmap_of_grad", False),
        ("grad_of_grad", False),
        ("grad_of_vmap", False),
    ],
)
def test_transforms_inside(name: str, dynamic: bool) -> None:
    x, transform = normal(2, 9, 5), TRANSFORMS[name]
    expected = transform(partial(_losses, reference))(x)
    assert expected.abs().max() > 0
    function = transform(partial(_losses, selkern))
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("operator", ALL_OPERATORS.values(), ids=ALL_OPERATORS)
def test_every_operator_alone(operator: Callable[[object, Tensor], Tensor]) -> None:
    x = normal(9, 5)

    def loss(module: object, x: Tensor) -> Tensor:
        return operator(module, x).sin().sum()

    compiled = torch.compile(partial(loss, selkern), fullgraph=True, backend="aot_eager")
    expected = value_and_gradient(partial(loss, reference), x)
    assert expected[1].abs().max() > 0
    torch.testing.assert_close(value_and_gradient(compiled, x), expected, rtol=1e-9, atol=1e-10)


class _Network(nn.Module):
    def __init__(self, checkpointed: bool):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.checkpointed = checkpointed

    def layer(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layers[i](x).tanh()
        return y, selkern.spectral_loss(y, anchor=3)

    def forward(self, x: Tensor) -> Tensor:
        losses = []
        for i in range(2):
            if self.checkpointed:
                x, loss = checkpoint(partial(self.layer, i), x, use_reentrant=False)
            else:
                x, loss = self.layer(i, x)
            losses.append(loss)
        return x.square().mean() + sum(losses)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
def test_a_training_step_of_a_network(checkpointed: bool) -> None:
    network, x = _Network(checkpointed).double(), normal(40, 16)

    def gradients(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        network.zero_grad()
        loss = function(x)
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in network.parameters())]

    expected = gradients(network)
    actual = gradients(torch.compile(network, fullgraph=True, backend="aot_eager"))
    assert all(gradient.abs().max() > 0 for gradient in expected[1:])
    torch.testing.assert_close(actual, expected)


def test_autocast_inside() -> None:
    x = normal(20, 12).float()

    def function(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return selkern.spectral_loss(x)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected = value_and_gradient(selkern.spectral_loss, x)
    torch.testing.assert_close(value_and_gradient(compiled, x), expected)


def test_bad_input_is_named() -> None:
    def function(x: Tensor) -> Tensor:
        return selkern.spectral_loss(x)

    compiled = torch.compile(function, backend="aot_eager")
    with pytest.raises(ValueError, match="at least 12 ranks"):
        compiled(normal(7, 20))


def test_a_change_in_place_after_a_layer_does_not_reach_the_regularizer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.GELU(), nn.ReLU(inplace=True))
    x = normal(40, 6).float()
    with selkern.SpectralRegularizer(model, beta=1.0, layers="1", anchor=3) as regularizer:
        torch.compile(model, backend="aot_eager")(x)
        expected = selkern.spectral_loss(nn.functional.gelu(model[0](x)), anchor=3)
        torch.testing.assert_close(regularizer(), expected)
