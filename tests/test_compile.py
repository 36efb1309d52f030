"""torch.compile without graph breaks, and what torch's own checks say of the raw operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from cases import LABELS, NUM_CLASSES, OPERATORS, SPARSE_LABELS, uniform
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.utils.checkpoint import checkpoint

import selkern
from selkern import reference

pytestmark = pytest.mark.usefixtures("fresh_compiler")


def everything(module: object, x: Tensor, labels: Tensor) -> Tensor:
    """Scalar that depends on every result of every operator."""
    y, mean = module.relu_with_mean(x - 0.25)
    tokens, _ = module.relu_with_mean(x.flatten(2).movedim(1, -1), unit_dim=-1)
    means, counts = module.class_means(y, labels, NUM_CLASSES)
    index = module.selectivity_index_from_means(means, counts)
    fused = module.selectivity_index(x, labels, NUM_CLASSES)
    layers = {"mean": mean, "maps": x, "tokens": tokens}
    loss = module.mean_selectivity(
        layers, labels, NUM_CLASSES, unit_dim={"mean": 1, "maps": 1, "tokens": -1}
    )
    spatial = module.spatial_mean(y * x)
    terms = [y.square().mean(), spatial.sin().sum(), index.sum(), fused.square().sum(), loss]
    return sum(terms)


def value_and_gradient(function: Callable[..., Tensor], x: Tensor, labels: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    value = function(x, labels)
    (gradient,) = torch.autograd.grad(value, x)
    return [value.detach(), gradient]


def maps(samples: int, *positions: int, layout: str = "contiguous") -> Tensor:
    return uniform((samples, 5, *(positions or (4, 3))), torch.float32, layout)


def operators_of(function: Callable[[Tensor], object], x: Tensor) -> set[str]:
    """Names of selkern's operators and functions in the compiled graph."""
    called: set[str] = set()

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        called.update(str(node.target) for node in graph.graph.nodes if "call" in node.op)
        return graph.forward

    torch.compile(function, backend=backend, fullgraph=True)(x)
    return {name for name in called if "mean" in name or "relu" in name}


@pytest.mark.parametrize("name", ["relu_with_mean", "spatial_mean"])
def test_a_gpus_compiler_sees_plain_operations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, x = getattr(selkern, name), maps(3)
    opaque = f"<function {name}"
    assert any(called.startswith(opaque) for called in operators_of(operator, x))
    torch.compiler.reset()
    monkeypatch.setattr("selkern.pooling._is_left_to_the_compiler", lambda x: True)
    plain = operators_of(operator, x)
    assert plain
    assert not any(called.startswith(opaque) for called in plain)


# ------------------------------------------------------------------------------- inductor


@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
def test_static_shapes(layout: str) -> None:
    compiled = torch.compile(partial(everything, selkern), fullgraph=True, dynamic=False)
    x = maps(8, layout=layout)
    expected = value_and_gradient(partial(everything, reference), x.double(), SPARSE_LABELS)
    actual = value_and_gradient(compiled, x, SPARSE_LABELS)
    assert expected[1].abs().max() > 0
    torch.testing.assert_close(actual[0].double(), expected[0], rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(actual[1].double(), expected[1], rtol=1e-5, atol=1e-7)


def test_dynamic_shapes_compile_once() -> None:
    compiled = torch.compile(partial(everything, selkern), fullgraph=True, dynamic=True)
    for samples, positions in [(8, (4, 3)), (9, (5, 7)), (13, (2, 6))]:
        x, labels = maps(samples, *positions), LABELS["partly_ignored"](samples, NUM_CLASSES)
        expected = value_and_gradient(partial(everything, selkern), x, labels)
        with torch.compiler.set_stance("default" if samples == 8 else "fail_on_recompile"):
            actual = value_and_gradient(compiled, x, labels)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def _slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return grad(function)(x).square().sum()


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]] = {
    "grad": lambda f: lambda x: grad(f)(x[0]),
    "vmap_of_grad": lambda f: vmap(grad(f)),
    "grad_of_grad": lambda f: lambda x: grad(partial(_slope, f))(x[0]),
}


@pytest.mark.parametrize(
    ("name", "dynamic"), [("grad", True), ("vmap_of_grad", False), ("grad_of_grad", False)]
)
def test_transforms_inside(name: str, dynamic: bool) -> None:
    x, transform = uniform((2, 8, 3, 2, 2), torch.float64), TRANSFORMS[name]
    function = transform(lambda x: everything(selkern, x, SPARSE_LABELS))
    expected = transform(lambda x: everything(reference, x, SPARSE_LABELS))(x)
    assert expected.abs().max() > 0
    # What inductor makes of it, which takes long, is the same for all.
    backend = "inductor" if name == "grad" else "aot_eager"
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=backend)
    torch.testing.assert_close(compiled(x), expected, rtol=1e-9, atol=1e-12)


class _Network(nn.Module):
    def __init__(self, checkpointed: bool):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(5, 5, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(5) for _ in range(2))
        self.checkpointed = checkpointed

    def layer(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        return selkern.relu_with_mean(self.norms[i](self.convolutions[i](x)))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        means = []
        for i in range(2):
            layer = partial(self.layer, i)
            if self.checkpointed:
                x, mean = checkpoint(layer, x, use_reentrant=False)
            else:
                x, mean = layer(x)
            means.append(mean)
        return x.square().mean() + selkern.mean_selectivity(means, labels, NUM_CLASSES)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
def test_a_training_step_of_a_network(checkpointed: bool) -> None:
    network = _Network(checkpointed)
    x, labels = maps(8, 6, 6), SPARSE_LABELS

    def gradients(function: Callable[..., Tensor]) -> list[Tensor]:
        network.zero_grad()
        loss = function(x, labels)
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in network.parameters())]

    expected = gradients(network)
    actual = gradients(torch.compile(network, fullgraph=True))
    assert all(gradient.abs().max() > 0 for gradient in expected[1:])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_autocast_inside() -> None:
    x = maps(8)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            y, mean = selkern.relu_with_mean(torch.matmul(x, x.mT))
            loss = selkern.mean_selectivity([y, mean], SPARSE_LABELS, NUM_CLASSES)
        return y, mean, loss

    y, mean, loss = torch.compile(function, fullgraph=True)(x)
    assert [y.dtype, mean.dtype, loss.dtype] == [torch.bfloat16, torch.float32, torch.float32]
    expected = reference.spatial_mean(y.double())
    torch.testing.assert_close(mean.double(), expected, rtol=2e-6, atol=2e-6)


def test_a_bad_label_is_named() -> None:
    labels = SPARSE_LABELS.clone()
    labels[[5, 7]] = torch.tensor([17, 18])
    compiled = torch.compile(partial(everything, selkern), fullgraph=True)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\).* got 17 at row 5"):
        compiled(maps(8), labels)


# ------------------------------------------------------------------ graphs without inductor


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("transform", [*TRANSFORMS, "backward"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_every_operator_alone(dynamic: bool, transform: str, name: str) -> None:
    x = uniform((2, 8, 3, 2, 2), torch.float64)

    def loss(module: object, x: Tensor) -> Tensor:
        return OPERATORS[name](module, x, SPARSE_LABELS, NUM_CLASSES).sin().sum()

    compiled = partial(torch.compile, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    if transform == "backward":
        leaf = x[0].clone().requires_grad_()
        compiled(partial(loss, selkern))(leaf).backward()
        actual, expected = leaf.grad, grad(partial(loss, reference))(x[0])
    else:
        actual = compiled(TRANSFORMS[transform](partial(loss, selkern)))(x)
        expected = TRANSFORMS[transform](partial(loss, reference))(x)
    assert expected.abs().max() > 0
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "layout", ["units_last", "samples_last", "every_second_sample", "expanded_positions"]
)
def test_layouts_and_their_outputs(layout: str) -> None:
    x = maps(8, layout=layout)

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        return selkern.relu_with_mean(x - 0.25 if x.stride(-1) else x)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(compiled(x), function(x), strict=True):
        assert torch.equal(actual, expected)
        assert actual.stride() == expected.stride()


def test_labels_and_layers_as_lists_and_mappings() -> None:
    x, labels = maps(8), SPARSE_LABELS.int()

    def function(x: Tensor, labels: Tensor) -> Tensor:
        as_list = selkern.mean_selectivity([x, x[:, :2]], labels, NUM_CLASSES)
        return as_list + selkern.mean_selectivity({"x": x}, labels, NUM_CLASSES)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, labels), function(x, labels))
