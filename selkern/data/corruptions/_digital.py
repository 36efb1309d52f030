"""Elastic deformation, pixelation and the JPEG codec."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from selkern.data._packages import needed
from selkern.data.corruptions._noise import uniform


def elastic_transform(
    images: Tensor,
    generator: torch.Generator | None,
    amplitude: float,
    deviation: float,
    jitter: float,
) -> Tensor:
    """Move every pixel by a smooth random field, and all of them by a random affine map.

    Images are interpolated once, at the end of both, where the published generator does it twice.
    """
    height, width = images.shape[2:]
    columns, rows = torch.meshgrid(
        torch.arange(width, dtype=images.dtype, device=images.device),
        torch.arange(height, dtype=images.dtype, device=images.device),
        indexing="xy",
    )
    affine = _affine(images, generator, jitter)
    places = torch.stack([columns, rows], -1).expand(len(images), -1, -1, -1)
    if amplitude > 0:
        places = places + amplitude * field(images, generator, deviation).permute(0, 2, 3, 1)
    places = _homogeneous(places.flatten(1, 2)) @ affine
    ends = images.new_tensor([width - 1, height - 1])
    grid = (2 * places / ends - 1).reshape(-1, height, width, 2)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=True)


def _affine(images: Tensor, generator: torch.Generator | None, jitter: float) -> Tensor:
    """Maps ``[N, 3, 2]`` of places with a 1 to where they came from when three points moved."""
    height, width = images.shape[2:]
    side = min(height, width) // 3
    corners = images.new_tensor([[side, side], [side, -side], [-side, -side]])
    points = images.new_tensor([width // 2, height // 2]) + corners
    moved = points + jitter * uniform(images, (len(images), 3, 2), generator, low=-1.0)
    return torch.linalg.solve(_homogeneous(moved), points.expand_as(moved))


def _homogeneous(places: Tensor) -> Tensor:
    return functional.pad(places, (0, 1), value=1.0)


def field(images: Tensor, generator: torch.Generator | None, deviation: float) -> Tensor:
    """Displacements ``[N, 2, H, W]``, uniform from -1 to 1 and then smoothed.

    The Gaussian is cut off at 3 standard deviations, and borders are mirrored, edge pixels too.
    """
    filters = needed("kornia.filters", "elastic_transform")
    height, width = images.shape[2:]
    drawn = uniform(images, (len(images), 2, height, width), generator, low=-1.0)
    reach = int(3 * deviation + 0.5)
    rows, columns = (_mirrored(images, size, reach) for size in (height, width))
    kernel = filters.get_gaussian_kernel1d(
        2 * reach + 1, deviation, dtype=images.dtype, device=images.device
    )
    padded = drawn[:, :, rows][..., columns]
    return filters.filter2d_separable(padded, kernel, kernel, padding="valid")


def _mirrored(like: Tensor, size: int, reach: int) -> Tensor:
    """The pixels of a row and of its mirror images, up to ``reach`` beyond both ends."""
    places = torch.arange(-reach, size + reach, device=like.device) % (2 * size)
    return torch.minimum(places, 2 * size - 1 - places)


def pixelate(images: Tensor, fraction: float) -> Tensor:
    """Make an image of fewer pixels, as Pillow's box filter does, and show it at the old size."""
    height, width = images.shape[2:]
    # A little more than the fraction, so that 0.7 of 10 is 7 whatever the rounding.
    fewer = [int(side * fraction + 1e-6) for side in (height, width)]
    small = _boxes(images, height, fewer[0]) @ images @ _boxes(images, width, fewer[1]).T
    rows, columns = _boxes_of(images, height, fewer[0]), _boxes_of(images, width, fewer[1])
    return small[:, :, rows][..., columns]


def _boxes(like: Tensor, size: int, fewer: int) -> Tensor:
    """Weights ``[fewer, size]`` of the pixels whose centers lie in each of the larger ones."""
    # A center on an edge counts to the box before it.
    box = (_centres(like, size) * fewer - 1) // (2 * size)
    inside = (box == torch.arange(fewer, device=like.device)[:, None]).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def _boxes_of(like: Tensor, size: int, fewer: int) -> Tensor:
    """The larger pixel in which the center of each pixel lies, ``[size]``."""
    return _centres(like, size) * fewer // (2 * size)


def _centres(like: Tensor, size: int) -> Tensor:
    """Centres of pixels in half pixels, whole numbers that round nothing."""
    return 2 * torch.arange(size, device=like.device) + 1


def jpeg_compression(images: Tensor, quality: float) -> Tensor:
    """Write an image of 8 bits as JPEG, with Pillow's subsampling of colour, and read it back."""
    codec = needed("PIL.Image", "jpeg_compression")
    pixels = (255 * images).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    gray = images.shape[1] == 1
    decoded = np.empty_like(pixels)
    for image, into in zip(pixels[..., 0] if gray else pixels, decoded, strict=True):
        file = io.BytesIO()
        codec.fromarray(image).save(file, "JPEG", quality=round(quality))
        into[...] = np.asarray(codec.open(file)).reshape(into.shape)
    return torch.from_numpy(decoded).to(images).permute(0, 3, 1, 2) / 255
