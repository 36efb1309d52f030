"""Executes every kernel for some dtypes, on few threads, while ThreadSanitizer watches."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from emulator import OPERATOR_MODULES, load_operators, operators_runtime

import selkern

sys.path.append(str(Path(__file__).parents[1]))
from attack_probe import attack_results
from cases import all_results, normal, result_dtype
from spectrum_probe import spectrum_results

SHAPES = [
    ((1, 40, 3, 3), "contiguous"),
    ((1, 40, 1, 3), "contiguous"),
    ((1, 64, 16, 16), "units_last"),
    ((1, 1, 97, 95), "contiguous"),
    ((40, 5), "contiguous"),
]


def kernels_for(dtype: torch.dtype) -> list[str]:
    operators = load_operators()
    operators_runtime().reset()
    for shape, layout in SHAPES:
        all_results(normal(shape, dtype, layout))
    layers = [normal((4, 33), dtype).requires_grad_() for _ in range(2)]
    labels = torch.tensor([0, 1, 0, 2])
    torch.autograd.grad(selkern.mean_selectivity(layers, labels, 3), layers)
    operators.relu_with_mean_(normal((1, 5, 3, 3), dtype))
    attack_results(operators, dtype)
    for each in {dtype, result_dtype(dtype)}:
        spectrum_results(operators, each)
    return operators_runtime().kernels()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for module in OPERATOR_MODULES:
        module._ops = load_operators()
    executed = {name: kernels_for(getattr(torch, name)) for name in sys.argv[1:]}
    print(json.dumps(executed))
