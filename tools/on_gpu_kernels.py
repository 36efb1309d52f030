"""Runs every kernel once or a few times, for compute-sanitizer to watch.

Inputs are made on the CPU and results compared there, so that few other kernels run.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

import selkern

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Many maps a block, short maps, one map, parts of a map; units in vectors and alone; one position;
# rows.
SHAPES = (
    (3, 37, 7, 7),
    (3, 37, 1, 3),
    (1, 2, 65, 67),
    (1, 1, 150, 151),
    (2, 72, 20, 20),
    (2, 16, 1, 1),
    (9, 70),
)
NUM_CLASSES = 4
TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 2e-2, torch.float32: 1e-4, torch.float64: 1e-9}

Results = list[Tensor]
Task = Callable[[torch.device], Results]


def layouts(x: Tensor) -> Iterator[Tensor]:
    yield x
    yield x.movedim(1, -1).contiguous().movedim(-1, 1)
    # Rows that are not aligned.
    yield torch.cat([x[:, :1], x], 1)[:, 1:]


def pooling(x: Tensor, device: torch.device) -> Results:
    leaf = x.to(device).requires_grad_()
    y, mean = selkern.relu_with_mean(leaf - 0.5)
    plain = selkern.spatial_mean(leaf)
    total = mean.square().sum() + plain.square().sum() + y.sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    in_place = torch.ops.selkern.relu_with_mean_((leaf - 0.5).detach())
    return [y.detach(), mean.detach(), plain.detach(), gradient, in_place]


def selectivity(x: Tensor, labels: Tensor, device: torch.device) -> Results:
    leaf, classes = x.to(device).requires_grad_(), labels.to(device)
    means, counts = selkern.class_means(leaf, classes, NUM_CLASSES)
    index = selkern.selectivity_index(leaf, classes, NUM_CLASSES)
    loss = selkern.mean_selectivity([leaf, leaf[:, :1]], classes, NUM_CLASSES)
    (gradient,) = torch.autograd.grad(means.sum() + index.sum() + loss, leaf)
    return [means.detach(), counts, index.detach(), loss.detach(), gradient]


def many_layers(layers: int, dtype: torch.dtype, device: torch.device) -> Results:
    """More layers than the parameters of one launch hold."""
    generator = torch.Generator().manual_seed(layers)
    labels = torch.randint(NUM_CLASSES, (6,), generator=generator).to(device)
    leaves = [
        torch.rand(6, 2 + layer % 3, *((3, 2) if layer % 2 else ()), generator=generator)
        .to(dtype)
        .to(device)
        .requires_grad_()
        for layer in range(layers)
    ]
    loss = selkern.mean_selectivity(leaves, labels, NUM_CLASSES)
    gradients = torch.autograd.grad(loss, leaves)
    return [loss.detach(), *gradients[:3], *gradients[-3:]]


def many_classes(dtype: torch.dtype, device: torch.device) -> Results:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(5000, (300,), generator=generator)
    x = torch.rand(300, 40, generator=generator).to(dtype).to(device).requires_grad_()
    means, counts = selkern.class_means(x, labels.to(device), 5000)
    (gradient,) = torch.autograd.grad(means.sum(), x)
    return [means.detach(), counts, gradient]


def spectra(dtype: torch.dtype, device: torch.device) -> Results:
    generator = torch.Generator().manual_seed(2)
    operators = selkern._pooling_autograd._ops
    x = torch.randn(3, 150, 140, generator=generator, dtype=torch.float64)
    results = [operators.center(x.to(dtype).to(device), 0.5)]
    # Rows that are not aligned.
    results.append(operators.center(x.to(dtype).to(device)[:, ::2, 1:], 0.5))
    if dtype in (torch.float16, torch.bfloat16):
        return results
    projected = x.to(dtype).to(device)
    for shape in [(3, 150, 140), (3, 20, 9), (1, 1, 33_000)]:
        part = projected.flatten()[: math.prod(shape)].view(shape)
        variances = operators.basis_spectrum(part, 0.5)[0]
        results += [variances, *operators.basis_penalty(part, None, 0.5, 1.0, 3, 140)]
        results += operators.power_law_penalty(variances, None, 1.5, 3, 140)
    for size in (1, 7, 16, 17, 32, 33, 64, 100, 128, 129):
        matrices = (x[:, :size, :size] + x[:, :size, :size].mT).to(dtype).to(device)
        values, vectors = operators.eigh(matrices)
        # Vectors may differ by their signs.
        results += [operators.eigvalsh(matrices), values]
        results.append((vectors * values.unsqueeze(-2)).cpu() @ vectors.cpu().mT)
    values = projected[:, 0].abs().sort().values
    spectrum = operators.covariance_spectrum(values, 150, 1, 0.5)
    of_values = operators.covariance_spectrum_backward(projected[:, 1], spectrum, 150, 1, 0.5)
    return [*results, spectrum, of_values]


def attack_steps(x: Tensor, device: torch.device) -> Results:
    x = x.detach()
    images, moved = x.to(device), (x + 0.02).to(device)
    gradient = (x - 0.5).to(device)
    results = []
    for norm, eps, alpha in [("linf", 0.03, 0.01), ("l2", 0.3, 0.1), ("l2", 100.0, 0.1)]:
        step = {"eps": eps, "alpha": alpha, "norm": norm}
        results.append(selkern.attacks.pgd_step(moved, gradient, images, **step))
        in_place = moved.clone()
        results.append(selkern.attacks.pgd_step(in_place, gradient, images, **step, out=in_place))
    return results


def tasks() -> Iterator[tuple[str, torch.dtype, Task]]:
    generator = torch.Generator().manual_seed(0)
    for dtype in DTYPES:
        for shape in SHAPES:
            labels = torch.randint(-1, NUM_CLASSES, shape[:1], generator=generator)
            labels[labels < 0] = -100
            values = torch.rand(shape, generator=generator).to(dtype)
            for i, x in enumerate(layouts(values)):
                name = f"{dtype} {shape} layout {i}"
                yield f"pooling {name}", dtype, lambda d, x=x: pooling(x, d)
                yield f"attack steps {name}", dtype, lambda d, x=x: attack_steps(x, d)
                yield (
                    f"selectivity {name}",
                    dtype,
                    lambda d, x=x, labels=labels: selectivity(x, labels, d),
                )
        yield f"spectra {dtype}", dtype, lambda d, dtype=dtype: spectra(dtype, d)
        yield f"many classes {dtype}", dtype, lambda d, dtype=dtype: many_classes(dtype, d)
        for layers in (40, 230):
            yield (
                f"{layers} layers {dtype}",
                dtype,
                lambda d, dtype=dtype, layers=layers: many_layers(layers, dtype, d),
            )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    device = torch.device(parser.parse_args(arguments).device)
    wrong = []
    count = 0
    for name, dtype, task in tasks():
        count += 1
        for actual, expected in zip(task(device), task(torch.device("cpu")), strict=True):
            tolerance = TOLERANCE[dtype]
            close = torch.allclose(
                actual.cpu().double(), expected.double(), rtol=tolerance, atol=tolerance
            )
            if not close and name not in wrong:
                wrong.append(name)
    print(f"{count} tasks on {device}, {len(wrong)} wrong")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
