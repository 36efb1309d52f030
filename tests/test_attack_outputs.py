"""Where a step's result goes: new tensors, in place, other tensors, compiled and transformed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import LAYOUTS, case_name
from step_cases import NORMS, RAW, STEPS, batch, images_like
from torch import Tensor
from torch.library import opcheck

from selkern.attacks import pgd_step

MIXED = ["contiguous", "units_last", "samples_last", "every_second_position"]
RAW_CASES = [
    *(((4, 3, 7, 7), layout) for layout in [*MIXED, "without_first_unit"]),
    ((0, 3, 4, 4), "contiguous"),
    ((2, 1, 5, 9), "units_last"),
    ((3, 18, 1), "contiguous"),
]
WRITABLE = [layout for layout in LAYOUTS if "expanded" not in layout]


def as_laid_out(x: Tensor, layout: str) -> Tensor:
    return LAYOUTS[layout](x.clone())


@pytest.mark.parametrize("norm", NORMS)
class TestMemory:
    @pytest.mark.parametrize("of_images", MIXED)
    @pytest.mark.parametrize("of_gradient", MIXED)
    @pytest.mark.parametrize("of_adv", MIXED)
    def test_memory_formats_may_be_mixed(
        self, of_adv: str, of_gradient: str, of_images: str, norm: str, device: torch.device
    ) -> None:
        tensors = [x.to(device) for x in batch(0, torch.float32)]
        expected = pgd_step(*tensors, **STEPS[norm])
        layouts = (of_adv, of_gradient, of_images)
        mixed = [as_laid_out(x, layout) for x, layout in zip(tensors, layouts, strict=True)]
        assert_close(pgd_step(*mixed, **STEPS[norm]), expected)

    @pytest.mark.parametrize("layout", ["contiguous", "units_last"])
    def test_a_new_result_has_the_format_of_adv(self, layout: str, norm: str) -> None:
        adv, gradient, images = batch(0, torch.float32)
        adv = as_laid_out(adv, layout)
        assert pgd_step(adv, gradient, images, **STEPS[norm]).stride() == adv.stride()

    @pytest.mark.parametrize("layout", WRITABLE)
    def test_a_step_in_place_is_the_step(
        self, layout: str, norm: str, device: torch.device
    ) -> None:
        adv, gradient, images = (as_laid_out(x.to(device), layout) for x in batch(1, torch.float32))
        expected = pgd_step(adv, gradient, images, **STEPS[norm])
        pointer = adv.data_ptr()
        assert pgd_step(adv, gradient, images, **STEPS[norm], out=adv) is adv
        assert adv.data_ptr() == pointer
        assert_close(adv, expected)

    @pytest.mark.parametrize("layout", WRITABLE)
    def test_out_may_have_any_strides(self, layout: str, norm: str, device: torch.device) -> None:
        tensors = [x.to(device) for x in batch(1, torch.float32)]
        out = as_laid_out(torch.empty_like(tensors[0]), layout)
        strides = out.stride()
        assert pgd_step(*tensors, **STEPS[norm], out=out) is out
        assert out.stride() == strides
        assert_close(out, pgd_step(*tensors, **STEPS[norm]))

    @pytest.mark.parametrize("which", [1, 2], ids=["grad", "images"])
    def test_out_may_be_any_of_the_inputs(
        self, which: int, norm: str, device: torch.device
    ) -> None:
        tensors = [x.to(device) for x in batch(1, torch.float32)]
        expected = pgd_step(*tensors, **STEPS[norm])
        assert torch.equal(pgd_step(*tensors, **STEPS[norm], out=tensors[which]), expected)

    def test_inputs_stay_as_they_are(self, norm: str) -> None:
        tensors = batch(1, torch.float32)
        copies = [x.clone() for x in tensors]
        pgd_step(*tensors, **STEPS[norm])
        assert all(torch.equal(x, copy) for x, copy in zip(tensors, copies, strict=True))

    def test_out_that_shares_a_part_of_its_memory_is_refused(self, norm: str) -> None:
        memory = torch.rand(3 * 63 + 5)
        adv, out = memory[:189].view(3, 63), memory[5:].view(3, 63)
        other = torch.rand(3, 63)
        for tensors, name in [
            ((adv, other, other), "adv"),
            ((other, adv, other), "grad"),
            ((other, other, adv), "images"),
        ]:
            with pytest.raises(ValueError, match=f"out must share all of its memory with {name}"):
                pgd_step(*tensors, **STEPS[norm], out=out)

    @pytest.mark.parametrize("strides", [(0, 1), (1, 1), (4, 0), (2, 1)])
    def test_out_that_overlaps_itself_is_refused(self, strides: tuple[int, int], norm: str) -> None:
        x = torch.rand(3, 4)
        with pytest.raises(ValueError, match="out must not be expanded or overlap itself"):
            pgd_step(x, x, x, **STEPS[norm], out=torch.rand(20).as_strided((3, 4), strides))

    def test_autograd_learns_that_out_has_changed(self, norm: str) -> None:
        x = torch.rand(3, 4)
        weight = torch.ones(3, 4, requires_grad=True)
        product = (x * weight).sum()
        pgd_step(x, x, x, **STEPS[norm], out=x)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()

    def test_a_result_is_detached(self, norm: str) -> None:
        adv, gradient, images = (x.requires_grad_() for x in batch(1, torch.float32))
        assert not pgd_step(adv, gradient, images, **STEPS[norm]).requires_grad

    @pytest.mark.usefixtures("restore_threads")
    @pytest.mark.parametrize("samples", [1, 3, 50])
    def test_the_number_of_threads_changes_nothing(self, samples: int, norm: str) -> None:
        generator = torch.Generator().manual_seed(samples)
        tensors = [torch.rand(samples, 70_001, generator=generator) for _ in range(3)]
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(pgd_step(*tensors, **STEPS[norm]))
        assert all(torch.equal(result, results[0]) for result in results)

    def test_results_beyond_the_caches_are_the_same(self, norm: str, capability: str) -> None:
        generator = torch.Generator().manual_seed(0)
        tensors = [torch.rand(2, 3, 1200, 1201, generator=generator) for _ in range(3)]
        expected = tensors[0].clone()
        pgd_step(expected, *tensors[1:], **STEPS[norm], out=expected)
        assert torch.equal(pgd_step(*tensors, **STEPS[norm]), expected)
        memory = torch.full((expected.numel() + 64,), torch.nan)
        for offset in (0, 1):
            end = offset + expected.numel()
            out = memory[offset:end].view_as(expected)
            assert torch.equal(pgd_step(*tensors, **STEPS[norm], out=out), expected)
            assert memory[end:].isnan().all()


def in_place(norm: str) -> Callable[..., Tensor]:
    def step(adv: Tensor, gradient: Tensor, images: Tensor) -> Tensor:
        return pgd_step(adv, gradient, images, **STEPS[norm], out=adv)

    return step


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("norm", NORMS)
class TestCompiled:
    @pytest.mark.parametrize("layout", ["contiguous", "units_last"])
    def test_a_step_is_one_graph(self, layout: str, norm: str) -> None:
        tensors = [as_laid_out(x, layout) for x in batch(5, torch.float32)]
        expected = pgd_step(*tensors, **STEPS[norm])
        step = torch.compile(lambda *x: pgd_step(*x, **STEPS[norm]), fullgraph=True)
        actual = step(*tensors)
        assert torch.equal(actual, expected)
        assert actual.stride() == expected.stride()

    def test_a_step_in_place_writes_where_it_shall(self, norm: str) -> None:
        adv, gradient, images = batch(5, torch.float32)
        expected = pgd_step(adv, gradient, images, **STEPS[norm])
        torch.compile(in_place(norm), fullgraph=True)(adv, gradient, images)
        assert torch.equal(adv, expected)

    def test_a_loop_of_steps_in_place_is_one_graph(self, norm: str) -> None:
        def loop(adv: Tensor, images: Tensor) -> Tensor:
            adv = adv.clone()
            for _ in range(3):
                pgd_step(adv, (adv - 0.4).sin(), images, **STEPS[norm], out=adv)
            return adv

        adv, _, images = batch(5, torch.float32)
        actual = torch.compile(loop, fullgraph=True)(adv, images)
        torch.testing.assert_close(actual, loop(adv, images), atol=1e-6, rtol=0)

    def test_the_batch_may_change_its_size(self, norm: str) -> None:
        step = torch.compile(lambda *x: pgd_step(*x, **STEPS[norm]), fullgraph=True, dynamic=True)
        for count in (4, 2, 3):
            tensors = [x[:count] for x in batch(5, torch.float32)]
            assert torch.equal(step(*tensors), pgd_step(*tensors, **STEPS[norm]))


@pytest.mark.parametrize("norm", NORMS)
class TestTransformed:
    def test_vmap_is_a_loop(self, norm: str) -> None:
        tensors = [torch.stack(x) for x in zip(*(batch(seed, torch.float32) for seed in range(3)))]
        expected = torch.stack([pgd_step(*x, **STEPS[norm]) for x in zip(*tensors)])
        mapped = torch.func.vmap(lambda *x: pgd_step(*x, **STEPS[norm]))
        assert torch.equal(mapped(*tensors), expected)
        one_image = torch.func.vmap(lambda *x: pgd_step(*x, **STEPS[norm]), in_dims=(0, 0, None))
        adv, gradient, images = tensors
        assert torch.equal(
            one_image(adv, gradient, images[1])[2],
            pgd_step(adv[2], gradient[2], images[1], **STEPS[norm]),
        )

    def test_vmap_of_a_step_in_place_is_a_loop(self, norm: str) -> None:
        tensors = [torch.stack(x) for x in zip(*(batch(seed, torch.float32) for seed in range(3)))]
        expected = torch.stack([pgd_step(*x, **STEPS[norm]) for x in zip(*tensors)])
        torch.func.vmap(in_place(norm))(*tensors)
        assert torch.equal(tensors[0], expected)

    @pytest.mark.parametrize("case", RAW_CASES, ids=case_name)
    def test_opcheck_accepts_the_raw_operators(self, case: tuple, norm: str) -> None:
        tensors = images_like(case[0], torch.float32, case[1])
        opcheck(torch.ops.selkern.pgd_step.default, (*tensors, *RAW[norm]))
        out = torch.empty_like(tensors[0])
        opcheck(torch.ops.selkern.pgd_step_out.default, (out, *tensors, *RAW[norm]))


@pytest.mark.parametrize("name", ["pgd_step", "pgd_step_out"])
class TestWithoutThePythonChecks:
    """What reaches a kernel directly must not read or write out of bounds."""

    @pytest.mark.parametrize(
        ("position", "value", "message"),
        [
            (0, torch.rand(3), "adv must have shape"),
            (0, torch.ones(3, 4, dtype=torch.int64), "adv must be float16.*, got int64"),
            (1, torch.rand(2, 4), r"grad must have the shape of adv, got \[2, 4\]"),
            (2, torch.rand(3, 4).double(), "images must have the dtype of adv, got float64"),
            (3, 2, "norm must be 0"),
            (4, -1.0, "eps must be finite"),
            (4, float("nan"), "eps must be finite"),
            (5, float("inf"), "alpha must be finite"),
            (6, 1.0, "low must be below high"),
        ],
    )
    def test_raw_operators_refuse(
        self, position: int, value: object, message: str, name: str
    ) -> None:
        arguments: list[object] = [*torch.rand(3, 3, 4), *RAW["linf"]]
        arguments[position] = value
        if name == "pgd_step_out":
            arguments.insert(0, torch.rand(3, 4))
        with pytest.raises(ValueError, match=message):
            getattr(torch.ops.selkern, name)(*arguments)

    def test_raw_out_must_be_like_adv(self, name: str) -> None:
        adv = torch.rand(3, 4)
        for out in (torch.rand(2, 4), torch.rand(3, 4).double()):
            with pytest.raises(ValueError, match="out must have the"):
                torch.ops.selkern.pgd_step_out(out, adv, adv, adv, *RAW["linf"])


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Sums may run in another order."""
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
