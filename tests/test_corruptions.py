"""What all corruptions have in common, and their strengths."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from corruption_cases import DRAWN, FIXED, generator, smooth

from selkern.data.corruptions import CORRUPTIONS, constants, corrupt, corruptions_for

pytest.importorskip("kornia")
pytest.importorskip("PIL")

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPES = ((1, 8, 8), (3, 8, 40), (3, 33, 9), (1, 28, 28), (3, 32, 32), (3, 48, 70), (1, 100, 80))
CASES = [
    (name, shape) for name in CORRUPTIONS for shape in SHAPES if name in corruptions_for(shape[0])
]
# Published as they are: saturate first takes colour away and then adds it, elastic transform trades
# its affine map for its field.
RISING = [name for name in CORRUPTIONS if name not in ("saturate", "elastic_transform")]
EVERY = pytest.mark.parametrize("name", CORRUPTIONS)


class TestCorrupt:
    @pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
    def test_stays_in_range_and_repeats(self, name: str, shape: tuple[int, int, int]) -> None:
        images = smooth(8, *shape)
        before = images.clone()
        for severity in (1, 5):
            corrupted = corrupt(images, name, severity, generator=generator())
            assert corrupted.shape == images.shape
            assert corrupted.dtype == images.dtype
            assert bool((corrupted >= 0).all() & (corrupted <= 1).all())
            assert not torch.equal(corrupted, images)
            assert torch.equal(corrupted, corrupt(images, name, severity, generator=generator()))
        assert torch.equal(images, before)

    @EVERY
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_computes_in_single_precision_or_double(self, name: str, dtype: torch.dtype) -> None:
        images = smooth(2, 3, 8, dtype=dtype)
        torch.manual_seed(3)
        corrupted = corrupt(images, name, 3)
        assert corrupted.dtype == dtype
        torch.manual_seed(3)
        if dtype == torch.float64:
            # Numbers drawn in double precision are others.
            assert torch.equal(corrupted, corrupt(images, name, 3))
        else:
            assert torch.equal(corrupted, corrupt(images.float(), name, 3).to(dtype))

    @EVERY
    def test_layout_and_autocast_change_nothing(self, name: str) -> None:
        images = smooth(2, 3, 12)
        expected = corrupt(images, name, 4, generator=generator())
        channels_last = images.contiguous(memory_format=torch.channels_last)
        strided = images.repeat_interleave(2, 3)[..., ::2]
        for same in (channels_last, strided, images.clone().requires_grad_()):
            assert torch.equal(corrupt(same, name, 4, generator=generator()), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(corrupt(images, name, 4, generator=generator()), expected)

    @pytest.mark.parametrize("name", DRAWN)
    def test_draws_for_every_image(self, name: str) -> None:
        twins = smooth(1, 3, 16).expand(4, -1, -1, -1)
        corrupted = corrupt(twins, name, 3, generator=generator())
        for image, other in zip(corrupted, corrupted.roll(1, 0)):
            assert not torch.equal(image, other)
        assert not torch.equal(corrupted, corrupt(twins, name, 3, generator=generator(2)))

    @pytest.mark.parametrize("name", FIXED)
    def test_treats_every_image_by_itself(self, name: str) -> None:
        images = smooth(5, 3, 16)
        whole = corrupt(images, name, 3)
        parts = [corrupt(part, name, 3) for part in images.split([1, 4])]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)

    @EVERY
    def test_an_empty_batch_stays_one(self, name: str) -> None:
        images = torch.empty(0, 3, 9, 11, dtype=torch.float16)
        corrupted = corrupt(images, name, 1)
        assert corrupted.shape == images.shape
        assert corrupted.dtype == images.dtype

    @EVERY
    def test_rounding_may_leave_the_range(self, name: str) -> None:
        images = torch.cat([smooth(1, 3, 8) * (1 + 2e-7), -1e-7 * torch.ones(1, 3, 8, 8)])
        assert images.max() > 1
        corrupted = corrupt(images, name, 2)
        assert bool((corrupted >= 0).all() & (corrupted <= 1).all())


class TestSeverities:
    @staticmethod
    def changes(name: str, size: int) -> list[float]:
        images = smooth(24, 3, size)
        return [
            float((corrupt(images, name, severity, generator=generator()) - images).abs().mean())
            for severity in range(1, 6)
        ]

    @pytest.mark.parametrize("size", [8, 28, 32, 48, 64])
    @pytest.mark.parametrize("name", RISING)
    def test_each_changes_images_more(self, name: str, size: int) -> None:
        changes = self.changes(name, size)
        assert changes[0] > 2e-3
        assert changes[4] > 1.15 * changes[0]
        # Fewer pixels fall on the old ones now better, now worse.
        share = 0.7 if name == "pixelate" else 0.97
        for weaker, stronger in pairwise(changes):
            assert stronger > share * weaker

    @pytest.mark.parametrize("size", [8, 28, 32, 64])
    def test_saturate_takes_color_and_then_adds_it(self, size: int) -> None:
        changes = self.changes("saturate", size)
        assert 0.02 < changes[0] < changes[1]
        assert 0.02 < changes[2] < changes[3] < changes[4]

    @pytest.mark.parametrize("size", [8, 28, 32, 64])
    def test_elastic_transform_always_changes_images(self, size: int) -> None:
        assert min(self.changes("elastic_transform", size)) > 0.04


class TestConstants:
    @pytest.mark.parametrize(
        ("name", "constant", "at_32", "at_64"),
        [
            (
                "gaussian_noise",
                "deviation",
                [0.04, 0.06, 0.08, 0.09, 0.1],
                [0.04, 0.08, 0.12, 0.15, 0.18],
            ),
            ("shot_noise", "photons", [500, 250, 100, 75, 50], [250, 100, 50, 30, 15]),
            (
                "impulse_noise",
                "amount",
                [0.01, 0.02, 0.03, 0.05, 0.07],
                [0.01, 0.02, 0.05, 0.08, 0.14],
            ),
            (
                "speckle_noise",
                "deviation",
                [0.06, 0.1, 0.12, 0.16, 0.2],
                [0.15, 0.2, 0.25, 0.3, 0.35],
            ),
            ("defocus_blur", "radius", [0.3, 0.4, 0.5, 1, 1.5], [0.5, 1, 1.5, 2.5, 3]),
            ("defocus_blur", "softness", [0.4, 0.5, 0.6, 0.2, 0.1], [0.6, 0.1, 0.1, 0.01, 0.1]),
            ("gaussian_blur", "deviation", [0.4, 0.6, 0.7, 0.8, 1], [0.5, 0.75, 1, 1.25, 1.5]),
            ("motion_blur", "radius", [6, 6, 6, 8, 9], [10, 10, 10, 10, 12]),
            ("motion_blur", "deviation", [1, 1.5, 2, 2, 2.5], [1, 1.5, 2, 2.5, 3]),
            ("fog", "density", [0.2, 0.5, 0.75, 1, 1.5], [0.4, 0.7, 1, 1.5, 2]),
            ("fog", "decay", [3, 3, 2.5, 2, 1.75], [3, 3, 2.5, 2, 1.75]),
            ("brightness", "shift", [0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5]),
            ("contrast", "factor", [0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]),
            ("saturate", "factor", [0.3, 0.1, 1.5, 2, 2.5], [0.3, 0.1, 2, 5, 30]),
            ("saturate", "shift", [0, 0, 0, 0.1, 0.2], [0, 0, 0, 0.1, 0.2]),
            ("pixelate", "fraction", [0.95, 0.9, 0.85, 0.75, 0.65], [0.9, 0.8, 0.7, 0.6, 0.5]),
            ("jpeg_compression", "quality", [80, 65, 58, 50, 40], [65, 58, 50, 40, 25]),
        ],
    )
    def test_are_the_published_ones(
        self, name: str, constant: str, at_32: list[float], at_64: list[float]
    ) -> None:
        assert [strength[constant] for strength in constants(name, 32)] == at_32
        assert [strength[constant] for strength in constants(name, 64)] == at_64

    @pytest.mark.parametrize("size", [32, 64])
    def test_zooms_are_the_published_ones(self, size: int) -> None:
        ends = (1.06, 1.11, 1.16, 1.21, 1.26)
        largest = [np.arange(1, end, 0.01)[-1] for end in ends]
        assert [strength["largest"] for strength in constants("zoom_blur", size)] == pytest.approx(
            largest
        )

    @pytest.mark.parametrize(
        ("size", "published"),
        [
            (
                32,
                [
                    (0, 0, 0.08),
                    (0.05, 0.2, 0.07),
                    (0.08, 0.06, 0.06),
                    (0.1, 0.04, 0.05),
                    (0.1, 0.03, 0.03),
                ],
            ),
            (
                64,
                [
                    (0, 0, 0.08),
                    (0.05, 0.3, 0.06),
                    (0.1, 0.08, 0.06),
                    (0.1, 0.03, 0.03),
                    (0.16, 0.03, 0.02),
                ],
            ),
        ],
    )
    def test_elastic_ones_are_published_as_fractions(self, size: int, published: list[Any]) -> None:
        strengths = [list(strength.values()) for strength in constants("elastic_transform", size)]
        np.testing.assert_allclose(strengths, size * np.array(published), rtol=1e-12)

    @pytest.mark.parametrize("size", [33, 40, 48, 63])
    @EVERY
    def test_between_they_follow_the_logarithm(self, name: str, size: int) -> None:
        columns = zip(constants(name, 32), constants(name, size), constants(name, 64))
        for small, between, large in columns:
            for key, value in between.items():
                expected = np.interp(np.log2(size), [5, 6], [small[key], large[key]])
                assert value == pytest.approx(expected)

    def test_outside_lengths_follow_the_size_and_others_stay(self) -> None:
        assert constants("motion_blur", 8)[4] == {"radius": 9 / 4, "deviation": 2.5 / 4}
        assert constants("motion_blur", 224)[4] == {"radius": 42.0, "deviation": 10.5}
        assert constants("defocus_blur", 16)[0] == {"radius": 0.15, "softness": 0.2}
        assert constants("elastic_transform", 128)[2] == pytest.approx(
            {"amplitude": 12.8, "deviation": 10.24, "jitter": 7.68}
        )
        for name in ("gaussian_noise", "fog", "zoom_blur", "saturate", "pixelate"):
            assert constants(name, 8) == constants(name, 32)
            assert constants(name, 224) == constants(name, 64)

    def test_the_shorter_side_counts(self) -> None:
        images = smooth(1, 1, 64, 32)
        mean = images.mean((2, 3), keepdim=True)
        corrupted = corrupt(images, "contrast", 1)
        torch.testing.assert_close(corrupted, mean + 0.75 * (images - mean))


class TestRefusals:
    IMAGES = torch.full((2, 3, 8, 8), 0.5)

    @pytest.mark.parametrize(
        ("images", "error", "message"),
        [
            ([[0.0]], TypeError, "images must be a torch.Tensor, got list"),
            (IMAGES.long(), TypeError, "images must be float16, .* got int64"),
            (IMAGES[0], ValueError, r"images must have shape \[N, 1 or 3, H, W\], got \[3, 8, 8\]"),
            (IMAGES[:, :2], ValueError, r"got \[2, 2, 8, 8\]"),
            (IMAGES[..., :7], ValueError, "at least 8 pixels high and wide, got 8 x 7"),
            (IMAGES + 0.6, ValueError, "images must be from 0 to 1, got 1.1 to 1.1"),
            (IMAGES - 0.6, ValueError, "images must be from 0 to 1, got -0.1 to -0.1"),
            (torch.nan * IMAGES, ValueError, "images must be from 0 to 1, got nan"),
        ],
    )
    def test_of_images(self, images: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            corrupt(images, "contrast", 1)

    @pytest.mark.parametrize(
        ("name", "error", "message"),
        [
            (3, TypeError, "name must be a str, got int"),
            ("frost", ValueError, "photographs"),
            ("glass_blur", ValueError, "one after another"),
            ("snow", ValueError, "flakes"),
            ("spatter", ValueError, "OpenCV"),
            ("Gausian Noise", ValueError, "did you mean 'gaussian_noise'"),
            ("xyz", ValueError, r"name must be one of \('gaussian_noise', .*, got 'xyz'$"),
        ],
    )
    def test_of_names(self, name: Any, error: type[Exception], message: str) -> None:
        for call in (lambda: corrupt(self.IMAGES, name, 1), lambda: constants(name, 32)):
            with pytest.raises(error, match=message):
                call()

    def test_of_color_for_gray_images(self) -> None:
        assert corruptions_for(3) == CORRUPTIONS
        assert corruptions_for(1) == tuple(name for name in CORRUPTIONS if name != "saturate")
        with pytest.raises(ValueError, match="for gray images, got 'saturate'"):
            corrupt(self.IMAGES[:, :1], "saturate", 1)
        with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
            corruptions_for(2)

    @pytest.mark.parametrize(
        ("severity", "error", "message"),
        [
            (0, ValueError, "severity must be 1 to 5, got 0"),
            (6, ValueError, "severity must be 1 to 5, got 6"),
            (2.0, TypeError, "severity must be an integer, got float"),
            (True, TypeError, "severity must be an integer, got bool"),
        ],
    )
    def test_of_severities(self, severity: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            corrupt(self.IMAGES, "contrast", severity)

    def test_of_sizes_and_generators(self) -> None:
        with pytest.raises(ValueError, match="size must be at least 8 pixels, got 7"):
            constants("fog", 7)
        with pytest.raises(TypeError, match=r"generator must be .* got int"):
            corrupt(self.IMAGES, "fog", 1, generator=1)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("name", "module"),
        [
            ("defocus_blur", "kornia.filters"),
            ("gaussian_blur", "kornia.filters"),
            ("elastic_transform", "kornia.filters"),
            ("brightness", "kornia.color"),
            ("saturate", "kornia.color"),
            ("jpeg_compression", "PIL.Image"),
        ],
    )
    def test_of_missing_packages(
        self, name: str, module: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=r"^[^\n]*$") as refusal:
            corrupt(self.IMAGES, name, 3)
        package = {"kornia": "kornia", "PIL": "Pillow"}[module.partition(".")[0]]
        message = str(refusal.value)
        assert message.startswith(f"{name} needs {package}")
        assert message.endswith(f"pip install {package}")
