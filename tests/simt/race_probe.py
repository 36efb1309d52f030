"""Executes every kernel for a dtype, on few threads, while ThreadSanitizer watches."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from emulator import OPERATOR_MODULES, load_operators, operators_runtime

import selkern

sys.path.append(str(Path(__file__).parents[1]))
from cases import all_results, normal, result_dtype
from spectrum_probe import spectrum_results

SHAPES = [
    ((1, 40, 3, 3), "contiguous"),
    ((1, 64, 16, 16), "units_last"),
    ((1, 1, 97, 95), "contiguous"),
    ((40, 5), "contiguous"),
]


def main(dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    operators = load_operators()
    for module in OPERATOR_MODULES:
        module._ops = operators
    for shape, layout in SHAPES:
        all_results(normal(shape, dtype, layout))
    layers = [normal((4, 33), dtype).requires_grad_() for _ in range(2)]
    labels = torch.tensor([0, 1, 0, 2])
    torch.autograd.grad(selkern.mean_selectivity(layers, labels, 3), layers)
    operators.relu_with_mean_(normal((1, 5, 3, 3), dtype))
    for each in {dtype, result_dtype(dtype)}:
        spectrum_results(operators, each)
    print("\n".join(operators_runtime().kernels()))


if __name__ == "__main__":
    main(getattr(torch, sys.argv[1]))
