"""Attacks on a GPU: nothing waits, everything can be captured in a graph, sizes beyond 32 bits."""

from __future__ import annotations

import pytest
import torch
from gpu import CUDA, NEEDS_GPU, no_synchronisation
from networks import NUM_CLASSES, Network
from step_cases import NORMS, STEPS, batch
from torch import Tensor

from selkern.attacks import FGSM, PGD, pgd_step

pytestmark = NEEDS_GPU


def attacked() -> tuple[Network, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Network().to(CUDA)
    images = torch.rand(8, 3, 16, 16, device=CUDA)
    return model, images, torch.arange(8, device=CUDA) % NUM_CLASSES


def attacks_on(model: Network) -> dict[str, PGD]:
    return {
        "fgsm": FGSM(model),
        "linf": PGD(model, steps=3),
        "l2": PGD(model, 0.5, 0.2, 3, norm="l2"),
        "early_stop": PGD(model, steps=3, early_stop=True),
        "targeted": PGD(model, steps=3, targeted=True),
    }


@pytest.mark.parametrize("name", ["fgsm", "linf", "l2", "early_stop", "targeted"])
def test_the_host_never_waits(name: str) -> None:
    model, images, labels = attacked()
    attack = attacks_on(model)[name]
    attack(images, labels)
    with no_synchronisation():
        attack(images, labels)


@pytest.mark.parametrize("name", ["fgsm", "early_stop", "targeted"])
def test_an_attack_is_the_one_of_the_cpu(name: str) -> None:
    model, images, labels = attacked()
    model.double()
    attack = attacks_on(model)[name]
    attack.random_start = False
    actual = attack(images.double(), labels)
    assert actual.is_cuda
    model.cpu()
    expected = attack(images.double().cpu(), labels.cpu())
    differs = (actual.cpu() - expected).abs() > 1e-9
    assert differs.double().mean() < 0.01  # signs of the smallest gradients


@pytest.mark.parametrize("norm", NORMS)
def test_steps_in_a_graph_can_be_replayed(norm: str) -> None:
    adv, gradient, images = (x.to(CUDA) for x in batch(0, torch.float32))
    current, expected = adv.clone(), adv.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        pgd_step(current, gradient, images, **STEPS[norm], out=current)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pgd_step(current, gradient, images, **STEPS[norm], out=current)
    current.copy_(adv)
    for _ in range(3):
        graph.replay()
        pgd_step(expected, gradient, images, **STEPS[norm], out=expected)
        assert torch.equal(current, expected)


@pytest.mark.parametrize("norm", NORMS)
def test_a_whole_attack_in_a_graph_is_the_attack(norm: str) -> None:
    model, images, labels = attacked()
    attack = PGD(model, 0.1, 0.03, 3, random_start=False, norm=norm)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            attack(images, labels)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        actual = attack(images, labels)
    images.copy_(torch.rand_like(images))
    graph.replay()
    expected = attack(images, labels)
    differs = (actual - expected).abs() > 1e-4
    assert differs.double().mean() < 0.02  # signs of the smallest gradients


@pytest.mark.parametrize("norm", NORMS)
def test_the_same_bits_from_run_to_run(norm: str) -> None:
    tensors = [torch.rand(16, 3, 224, 224, device=CUDA) for _ in range(3)]
    expected = pgd_step(*tensors, **STEPS[norm])
    assert all(torch.equal(pgd_step(*tensors, **STEPS[norm]), expected) for _ in range(20))


@pytest.mark.parametrize("norm", NORMS)
def test_more_elements_than_32_bits_count(norm: str) -> None:
    images = torch.full((2, 2**30 + 9), 0.5, dtype=torch.float16, device=CUDA)
    gradient = torch.zeros_like(images)
    gradient[1, -1] = -1.0
    stepped = pgd_step(images, gradient, images, eps=0.25, alpha=0.25, norm=norm)
    assert 0.25 <= stepped[1, -1] <= 0.25 + 2.0**-11
    assert (stepped != images).sum() == 1


def test_a_generator_of_the_gpu_repeats_the_start() -> None:
    model, images, labels = attacked()
    starts = [
        PGD(model, steps=0, generator=torch.Generator(CUDA).manual_seed(seed))(images, labels)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_images_out_of_bounds_are_seen_where_looking_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, images, labels = attacked()
    with no_synchronisation():
        FGSM(model)(images + 1, labels)
    monkeypatch.setenv("SELKERN_CHECK", "1")
    with pytest.raises(ValueError, match="images must be within bounds"):
        FGSM(model)(images + 1, labels)
