"""One call for all corruptions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from selkern.data.corruptions import _blur, _checks, _color, _digital, _noise
from selkern.data.corruptions._constants import CORRUPTIONS, LARGE, SMALL, constants, fraction
from selkern.data.corruptions._fog import fog

_RANDOM: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": _noise.gaussian_noise,
    "shot_noise": _noise.shot_noise,
    "impulse_noise": _noise.impulse_noise,
    "speckle_noise": _noise.speckle_noise,
    "motion_blur": _blur.motion_blur,
    "fog": fog,
    "elastic_transform": _digital.elastic_transform,
}
_FIXED: dict[str, Callable[..., Tensor]] = {
    "defocus_blur": _blur.defocus_blur,
    "gaussian_blur": _blur.gaussian_blur,
    "zoom_blur": _blur.zoom_blur,
    "brightness": _color.brightness,
    "contrast": _color.contrast,
    "saturate": _color.saturate,
    "pixelate": _digital.pixelate,
    "jpeg_compression": _digital.jpeg_compression,
}
_OF_COLOR = ("saturate",)


def corruptions_for(channels: int) -> tuple[str, ...]:
    """Names of the corruptions that images of a number of channels can have.

    Parameters
    ----------
    channels : int
        1 for gray images, which have no colour to ``saturate``, or 3.

    Returns
    -------
    tuple of str
        Those of ``CORRUPTIONS``, in their order.

    Raises
    ------
    TypeError
        If ``channels`` is no integer.
    ValueError
        If it is neither 1 nor 3.

    Examples
    --------
    >>> set(corruptions_for(3)) - set(corruptions_for(1))
    {'saturate'}
    """
    gray = _checks.channels(channels) == 1
    return tuple(name for name in CORRUPTIONS if not (gray and name in _OF_COLOR))


@torch.no_grad()
def corrupt(
    images: Tensor, name: str, severity: int, *, generator: torch.Generator | None = None
) -> Tensor:
    r"""Corrupt images as CIFAR-10-C and Tiny ImageNet-C do, at any size.

    The corruptions and their five severities are those of Hendrycks and Dietterich (arXiv
    1903.12261); :func:`constants` gives their strengths at a size. Every image of a batch has its
    own noise, angle, fog and displacements.

    The same generator in the same state gives the same result for the same batch on the same
    device. Noise, motion blur, fog and elastic transform draw for the whole batch at once, so
    with them an image's result depends on its place in the batch and on the batches before it; the
    others treat every image by itself. No gradient goes through.

    Parameters
    ----------
    images : Tensor
        ``[N, 1, H, W]`` or ``[N, 3, H, W]`` from 0 to 1; float16, bfloat16, float32 or float64. At
        least 8 pixels high and wide.
    name : str
        One of ``CORRUPTIONS``.
    severity : int
        1 to 5.
    generator : torch.Generator, optional
        What draws, on the device of the images; torch's own generator if None.

    Returns
    -------
    Tensor
        Of the shape, dtype and device of ``images``, from 0 to 1, in new memory. Computed in
        float32, or float64 for float64.

    Raises
    ------
    TypeError
        If ``images`` is no dense floating tensor, or another argument is of the wrong kind.
    ValueError
        If the shape of ``images`` is another, a value is NaN or not from 0 to 1 (seen on CUDA only
        with ``SELKERN_CHECK=1`` in the environment), ``name`` is none of the corruptions or
        ``saturate`` for gray images, ``severity`` is not 1 to 5, or ``generator`` is on another
        device.
    ImportError
        If the corruption needs kornia or Pillow, and it is not installed.

    Notes
    -----
    ``glass_blur``, ``frost``, ``snow`` and ``spatter`` are left out. The published images differ
    from these in that

    - they are of 8 bits, and those of Tiny ImageNet-C went through JPEG once more;
    - motion blur is ImageMagick's, which takes the nearest pixels along the streak;
    - zoom blur crops whole pixels before it magnifies, which moves the image by parts of a pixel:
      its first severity changes images of 32 pixels about twice as much as it does here;
    - elastic transform interpolates twice.

    Blurs below 32 pixels are those of 32 on the linearly interpolated image. Fog is cut from a
    field whose side is the next power of two. Brightness raises the HSV value of colour images, and
    gray ones themselves.

    Between 32 and 64 pixels ``defocus_blur`` mixes the images that both sizes' constants give: its
    disk of whole pixels makes steps, and constants between would not lie between in effect.

    Examples
    --------
    >>> images = torch.full((1, 1, 8, 8), 0.5)
    >>> images[..., :4] = 0.9
    >>> corrupt(images, "contrast", 3)[0, 0, 0]
    tensor([0.7800, 0.7800, 0.7800, 0.7800, 0.6200, 0.6200, 0.6200, 0.6200])
    """
    _checks.images(images)
    known = corruptions_for(images.shape[1])
    if name in _OF_COLOR and name not in known:
        raise ValueError(f"name must be one of {known} for gray images, got {name!r}: no colour")
    name, severity = _checks.name(name, known), _checks.severity(severity)
    generator = _checks.generator_for(generator, images)
    if images.numel() == 0:
        return images.clone()
    work = images.to(torch.promote_types(images.dtype, torch.float32)).contiguous().clamp(0, 1)
    # Filters would otherwise run in half precision where autocast is on.
    with torch.autocast(images.device.type, enabled=False):
        corrupted = _at_severity(work, name, severity, generator)
    return corrupted.clamp(0, 1).to(images.dtype).contiguous()


def _at_severity(
    images: Tensor, name: str, severity: int, generator: torch.Generator | None
) -> Tensor:
    size = min(images.shape[2:])
    strengths = constants(name, size)[severity - 1]
    if name in _RANDOM:
        return _RANDOM[name](images, generator, **strengths)
    if name == "defocus_blur" and SMALL < size < LARGE:
        small, large = (constants(name, column)[severity - 1] for column in (SMALL, LARGE))
        blurred = _blur.defocus_blur(images, **small), _blur.defocus_blur(images, **large)
        return torch.lerp(*blurred, fraction(size))
    return _FIXED[name](images, **strengths)
