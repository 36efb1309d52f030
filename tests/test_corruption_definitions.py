"""Each corruption against an independent computation of what it is defined to be."""

from __future__ import annotations

import colorsys
import io
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from corruption_cases import as_numpy, generator, gray, point, smooth

from selkern.data.corruptions import constants, corrupt
from selkern.data.corruptions._blur import streak
from selkern.data.corruptions._digital import field

pytest.importorskip("kornia")
Image = pytest.importorskip("PIL.Image")
ndimage = pytest.importorskip("scipy.ndimage")

SIZES = pytest.mark.parametrize("size", [32, 64, 80])
SEVERITIES = pytest.mark.parametrize("severity", [1, 3, 5])


def strength(name: str, size: int, severity: int) -> dict[str, float]:
    return constants(name, size)[severity - 1]


class TestNoise:
    @pytest.mark.parametrize("value", [0.3, 0.6])
    def test_gaussian_and_speckle_have_their_deviation(self, value: float) -> None:
        images = gray(value, 32, images=40)
        for name, deviation in (("gaussian_noise", 0.08), ("speckle_noise", 0.12 * value)):
            noise = corrupt(images, name, 3, generator=generator()) - value
            assert noise.mean().item() == pytest.approx(0, abs=3e-3)
            assert noise.std().item() == pytest.approx(deviation, rel=0.02)

    def test_shot_noise_counts_photons(self) -> None:
        images = gray(0.5, 32, images=40)
        counts = 100 * corrupt(images, "shot_noise", 3, generator=generator())
        torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-9)
        assert counts.mean().item() == pytest.approx(50, rel=0.01)
        assert counts.var().item() == pytest.approx(50, rel=0.03)
        assert not corrupt(gray(0.0, 8), "shot_noise", 5).any()

    def test_impulses_are_black_or_white_in_every_channel_by_itself(self) -> None:
        images = torch.full((200, 3, 32, 32), 0.5)
        corrupted = corrupt(images, "impulse_noise", 5, generator=generator())
        for value in (0.0, 1.0):
            assert (corrupted == value).float().mean().item() == pytest.approx(0.035, rel=0.03)
        assert (corrupted == 0.5).float().mean().item() == pytest.approx(0.93, rel=0.01)
        struck = (corrupted != 0.5).all(1).float().mean().item()
        assert struck == pytest.approx(0.07**3, rel=0.3)


class TestBlur:
    @SIZES
    @SEVERITIES
    def test_gaussian_blur_equals_scipy(self, size: int, severity: int) -> None:
        images = smooth(2, 3, size, dtype=torch.float64)
        deviation = strength("gaussian_blur", size, severity)["deviation"]
        sigmas = (0, 0, deviation, deviation)
        expected = ndimage.gaussian_filter(as_numpy(images), sigmas, mode="nearest", truncate=4)
        np.testing.assert_allclose(corrupt(images, "gaussian_blur", severity), expected, atol=1e-12)

    @pytest.mark.parametrize("size", [8, 11, 28])
    def test_small_images_are_blurred_between_their_pixels(self, size: int) -> None:
        row = as_numpy(smooth(1, 1, size)[0, 0, 0])
        images = torch.tensor(row).expand(1, 1, size, size)
        taps = np.arange(-4, 5)
        weights = np.exp(-0.5 * taps**2) / np.exp(-0.5 * taps**2).sum()
        places = np.arange(size)[:, None] + taps * size / 32
        expected = np.interp(places, np.arange(size), row) @ weights
        blurred = corrupt(images, "gaussian_blur", 5)
        np.testing.assert_allclose(blurred[0, 0], np.tile(expected, (size, 1)), atol=1e-12)

    @pytest.mark.parametrize(
        ("size", "severity", "points"), [(32, 5, 9), (64, 2, 5), (64, 3, 9), (64, 4, 21)]
    )
    def test_defocus_spreads_a_point_over_a_disk(
        self, size: int, severity: int, points: int
    ) -> None:
        spread = corrupt(point(size), "defocus_blur", severity)
        expected = gray(0.0, size)
        middle, radius = size // 2, strength("defocus_blur", size, severity)["radius"]
        for row in range(size):
            for column in range(size):
                if math.hypot(row - middle, column - middle) <= radius:
                    expected[..., row, column] = 1 / points
        torch.testing.assert_close(spread, expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("size", [8, 20, 32, 45, 64, 96])
    @pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur"])
    def test_kernels_are_even_and_sum_to_one(self, name: str, size: int) -> None:
        size |= 1
        for severity in range(1, 6):
            spread = corrupt(point(size), name, severity)
            assert spread.sum().item() == pytest.approx(1)
            for same in (spread.flip(2), spread.flip(3), spread.transpose(2, 3)):
                torch.testing.assert_close(same, spread, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("size", [11, 33, 65])
    def test_defocus_mirrors_the_border_about_its_pixels(self, size: int) -> None:
        image = smooth(1, 1, size, dtype=torch.float64)
        kernel = as_numpy(corrupt(point(size), "defocus_blur", 5)[0, 0])
        kernel = kernel[size // 2 - 5 : size // 2 + 6, size // 2 - 5 : size // 2 + 6]
        expected = ndimage.convolve(as_numpy(image[0, 0]), kernel, mode="mirror")
        np.testing.assert_allclose(corrupt(image, "defocus_blur", 5)[0, 0], expected, atol=1e-12)

    @pytest.mark.parametrize("radius", [2.0, 5.5, 9.0])
    def test_a_streak_has_its_length_to_one_side(self, radius: float) -> None:
        length = 2 * math.ceil(radius) + 1
        level = streak(point(65), torch.zeros(1, dtype=torch.float64), radius, 1e6)[0, 0]
        expected = torch.zeros_like(level)
        expected[32, 32 - length + 1 : 33] = 1 / length
        torch.testing.assert_close(level, expected, rtol=0, atol=1e-9)

    def test_a_streak_turns_and_fades(self) -> None:
        down = torch.full((1,), math.pi / 2, dtype=torch.float64)
        column = streak(point(41), down, 10, 2.5)[0, 0, :, 20]
        expected = np.exp(-0.5 * (np.arange(14) / 2.5) ** 2)
        np.testing.assert_allclose(column[7:21].flip(0) / column[20], expected, atol=1e-5)
        assert column.sum().item() == pytest.approx(1)

    @pytest.mark.parametrize("size", [8, 32])
    def test_motion_stays_within_45_degrees_of_the_horizontal(self, size: int) -> None:
        corrupted = corrupt(point(size, images=200), "motion_blur", 5, generator=generator())
        torch.testing.assert_close(corrupted.sum((1, 2, 3)), torch.ones(200, dtype=torch.float64))
        away = torch.arange(size, dtype=torch.float64) - size // 2
        across, down = corrupted.sum(2) @ away, corrupted.sum(3) @ away
        slopes = (down / across).flatten()
        assert across.max() < 0
        assert 0.85 < slopes.max() <= 1 + 1e-9
        assert -1 - 1e-9 <= slopes.min() < -0.85

    @pytest.mark.parametrize("size", [8, 33])
    def test_zoom_blur_averages_magnifications(self, size: int) -> None:
        image = smooth(1, 1, size, dtype=torch.float64)
        pixels, middle = as_numpy(image[0, 0]), (size - 1) / 2
        total = pixels.copy()
        for factor in 1 + 0.01 * np.arange(12):
            shift = middle - middle / factor
            total += ndimage.affine_transform(pixels, [1 / factor] * 2, shift, order=1)
        np.testing.assert_allclose(corrupt(image, "zoom_blur", 2)[0, 0], total / 13, atol=1e-12)

    @pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur", "motion_blur", "zoom_blur"])
    @pytest.mark.parametrize("size", [8, 48])
    def test_a_constant_image_stays(self, name: str, size: int) -> None:
        images = gray(0.7, size)
        torch.testing.assert_close(corrupt(images, name, 5), images)


class TestFog:
    def test_spans_its_density_and_keeps_the_brightest_value(self) -> None:
        values = torch.linspace(0.2, 1, 20, dtype=torch.float64)
        images = values[:, None, None, None].expand(-1, 1, 32, 32)
        corrupted = corrupt(images, "fog", 3, generator=generator())
        torch.testing.assert_close(corrupted.amax((1, 2, 3)), values)
        torch.testing.assert_close(corrupted.amin((1, 2, 3)), values * values / (values + 0.75))

    def test_lies_alike_over_all_channels(self) -> None:
        images = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)[:, None, None]
        corrupted = corrupt(images.expand(2, 3, 16, 24), "fog", 1, generator=generator())
        for channel, value in ((0, 0.2), (1, 0.3)):
            difference = corrupted[:, 2] - corrupted[:, channel]
            expected = torch.full_like(difference, (0.5 - value) * 0.5 / 0.7)
            torch.testing.assert_close(difference, expected)

    @SEVERITIES
    def test_varies_less_at_half_the_scale_by_the_square_of_its_decay(self, severity: int) -> None:
        field = corrupt(gray(0.5, 64, images=40), "fog", severity, generator=generator())
        spreads = []
        for stride in (4, 2):
            corners = field[..., ::stride, ::stride]
            beside = corners + corners.roll(-1, 3)
            mean = (beside + beside.roll(-1, 2)) / 4
            middles = field[..., stride // 2 :: stride, stride // 2 :: stride]
            spreads.append((middles - mean).std((1, 2, 3)))
        decay = strength("fog", 64, severity)["decay"]
        assert (spreads[0] / spreads[1]).mean().item() == pytest.approx(decay**2, rel=0.02)


class TestColor:
    @pytest.mark.parametrize(("severity", "factor"), [(1, 0.75), (5, 0.15)])
    def test_contrast_moves_channels_to_their_means(self, severity: int, factor: float) -> None:
        images = smooth(3, 3, 10, dtype=torch.float64)
        pixels = as_numpy(images)
        mean = pixels.mean((2, 3), keepdims=True)
        expected = (pixels - mean) * factor + mean
        np.testing.assert_allclose(corrupt(images, "contrast", severity), expected, atol=1e-12)

    def test_brightness_raises_gray_images(self) -> None:
        images = smooth(3, 1, 10, dtype=torch.float64)
        expected = np.minimum(as_numpy(images) + 0.2, 1)
        np.testing.assert_allclose(corrupt(images, "brightness", 4), expected, atol=1e-12)

    @pytest.mark.parametrize("severity", [1, 2, 4, 5])
    def test_brightness_and_saturate_change_hsv(self, severity: int) -> None:
        images = smooth(2, 3, 8, dtype=torch.float64)
        shift = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
        factor, more = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity - 1]
        brighter, saturated = np.empty((2, *images.shape))
        for image, row, column in np.ndindex(2, 8, 8):
            place = (image, slice(None), row, column)
            hue, saturation, value = colorsys.rgb_to_hsv(*images[place].tolist())
            brighter[place] = colorsys.hsv_to_rgb(hue, saturation, min(value + shift, 1))
            saturated[place] = colorsys.hsv_to_rgb(hue, min(saturation * factor + more, 1), value)
        np.testing.assert_allclose(corrupt(images, "brightness", severity), brighter, atol=1e-6)
        np.testing.assert_allclose(corrupt(images, "saturate", severity), saturated, atol=1e-6)


def columns_and_rows(images: int, size: int) -> torch.Tensor:
    """Images whose first two channels are the places of their pixels, and the third a pattern."""
    ramp = torch.linspace(0, 1, size, dtype=torch.float64).expand(size, size)
    places = torch.stack([ramp, ramp.T]).expand(images, -1, -1, -1)
    return torch.cat([places, smooth(images, 1, size, dtype=torch.float64)], 1)


class TestElastic:
    @pytest.mark.parametrize("size", [32, 64])
    def test_the_first_severity_is_an_affine_map_with_mirrored_borders(self, size: int) -> None:
        images = columns_and_rows(12, size)
        corrupted = as_numpy(corrupt(images, "elastic_transform", 1, generator=generator()))
        rows, columns = np.indices((size, size))
        pixels = np.stack([columns, rows, np.ones_like(rows)], -1)
        inner = slice(size // 2 - 6, size // 2 + 6)
        found = []
        for before, after in zip(as_numpy(images), corrupted):
            moved = (size - 1) * after[:2, inner, inner].reshape(2, -1).T
            affine = np.linalg.lstsq(pixels[inner, inner].reshape(-1, 3), moved)[0]
            places = (pixels @ affine)[..., ::-1].transpose(2, 0, 1)
            for channel, expected in zip(after, before):
                expected = ndimage.map_coordinates(expected, places, order=1, mode="mirror")
                np.testing.assert_allclose(channel, expected, atol=1e-9)
            found.append(affine.ravel())
        assert np.std(found, axis=0).min() > 1e-3

    @pytest.mark.parametrize(("size", "severity"), [(32, 5), (64, 2)])
    def test_the_field_is_smoothed_as_scipy_does(self, size: int, severity: int) -> None:
        deviation = strength("elastic_transform", size, severity)["deviation"]
        images = smooth(2, 3, size, size + 3, dtype=torch.float64)
        shape = (2, 2, size, size + 3)
        drawn = 2 * torch.rand(shape, dtype=torch.float64, generator=generator()) - 1
        sigmas = (0, 0, deviation, deviation)
        expected = ndimage.gaussian_filter(drawn.numpy(), sigmas, mode="reflect", truncate=3)
        np.testing.assert_allclose(field(images, generator(), deviation), expected, atol=1e-12)

    def test_columns_and_rows_move_apart_and_as_far_as_published(self) -> None:
        size = 32
        images = columns_and_rows(200, size)
        moved = corrupt(images, "elastic_transform", 5, generator=generator())
        pixels = as_numpy((size - 1) * (moved - images)[:, :2, 12:20, 12:20])
        across, down = np.diff(pixels, 2).transpose(1, 0, 2, 3)
        draws = 3.2 * (2 * np.random.default_rng(0).random((200, size, size)) - 1)
        smoothed = ndimage.gaussian_filter(draws, (0, 0.96, 0.96), truncate=3)
        expected = np.diff(smoothed[:, 12:20, 12:20], 2).std()
        assert across.std() == pytest.approx(expected, rel=0.1)
        assert down.std() == pytest.approx(expected, rel=0.1)
        for other in (down, np.roll(across, 1, 0)):
            assert np.corrcoef(across.ravel(), other.ravel())[0, 1] == pytest.approx(0, abs=0.1)


class TestDigital:
    # A side of 90 is 63 exactly at 0.7, and less than 63 as computers multiply.
    @pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (64, 90), (90, 90)], ids=str)
    def test_pixelate_equals_pillow(self, size: tuple[int, int]) -> None:
        images = smooth(1, 1, *size)
        height, width = size
        for severity in range(1, 6):
            fraction = Fraction(str(strength("pixelate", min(size), severity)["fraction"]))
            fewer = (int(width * fraction), int(height * fraction))
            image = Image.fromarray(images[0, 0].numpy())
            box = Image.Resampling.BOX
            expected = np.asarray(image.resize(fewer, box).resize((width, height), box))
            np.testing.assert_allclose(
                corrupt(images, "pixelate", severity)[0, 0], expected, atol=1e-6
            )

    def test_pixelate_makes_blocks(self) -> None:
        images = smooth(2, 3, 64)
        blocks = torch.nn.functional.avg_pool2d(images, 2)
        expected = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(corrupt(images, "pixelate", 5), expected)

    @pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
    @pytest.mark.parametrize(
        ("size", "severity", "quality"), [(8, 2, 65), (32, 5, 40), (48, 3, 53)]
    )
    def test_jpeg_equals_pillow(
        self, channels: int, mode: str, size: int, severity: int, quality: int
    ) -> None:
        images = smooth(3, channels, size)
        corrupted = corrupt(images, "jpeg_compression", severity)
        for image, actual in zip(images, corrupted):
            pixels = np.round(255 * as_numpy(image)).astype(np.uint8).transpose(1, 2, 0)
            file = io.BytesIO()
            Image.frombytes(mode, (size, size), pixels.tobytes()).save(
                file, "JPEG", quality=quality
            )
            decoded = np.frombuffer(Image.open(file).tobytes(), np.uint8).reshape(pixels.shape)
            np.testing.assert_allclose(actual, decoded.transpose(2, 0, 1) / 255, atol=1e-6)
