"""Published sets of corrupted images, at five severities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from selkern import _checks
from selkern.data.images import ImageSet

__all__ = ["CorruptedSets"]

SEVERITIES = (1, 2, 3, 4, 5)
PUBLISHED = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
)


class CorruptedSets:
    """Image sets by corruption and severity, each opened when it is asked for.

    :func:`load_cifar10_c`, :func:`load_tiny_imagenet_c` and :func:`load_corrupted` make them.

    Parameters
    ----------
    names : sequence of str
        Names of the corruptions.
    classes : sequence of str
        Names of the classes, the same in every set.
    opener : callable
        ``opener(name, severity)`` returns the :class:`ImageSet`.
    is_paired : bool
        Whether row ``i`` of every set is a corrupted row ``i`` of the clean test set. Where it is
        not, compare accuracies only: no corrupted image has a clean counterpart.

    Attributes
    ----------
    names, classes : tuple of str
        As given.
    severities : tuple of int
        1 to 5.
    is_paired : bool
        As given.

    Examples
    --------
    >>> def opener(name, severity):
    ...     return ImageSet(torch.full((2, 4, 4), 10 * severity, dtype=torch.uint8), [0, 1])
    >>> corrupted = CorruptedSets(["fog"], ["cat", "dog"], opener, is_paired=True)
    >>> corrupted.load("fog", severity=3)
    ImageSet(2 images of 1 x 4 x 4 in 2 classes)
    """

    def __init__(
        self,
        names: Sequence[str],
        classes: Sequence[str],
        opener: Callable[[str, int], ImageSet],
        *,
        is_paired: bool,
    ) -> None:
        self.names = tuple(names)
        self.classes = tuple(classes)
        self.severities = SEVERITIES
        self.is_paired = is_paired
        self._opener = opener

    def __repr__(self) -> str:
        return f"CorruptedSets({len(self.names)} corruptions at {len(SEVERITIES)} severities)"

    def load(self, name: str, severity: int) -> ImageSet:
        """Return the images under a corruption.

        Parameters
        ----------
        name : str
            One of ``names``.
        severity : int
            1 to 5.

        Returns
        -------
        ImageSet
            The images, none of them read yet.

        Raises
        ------
        TypeError
            If ``severity`` is not an integer.
        ValueError
            If there is no such corruption or severity, or a file is not what it should be.
        """
        _checks.one_of("name", name, self.names)
        severity = _checks.integer("severity", severity)
        if severity not in SEVERITIES:
            raise ValueError(f"severity must be in 1 to 5, got {severity}")
        return self._opener(name, severity)


def in_the_order_of_the_field(names: Iterable[str]) -> tuple[str, ...]:
    """Sort corruptions as they are commonly listed; names that are not published come last."""
    place = {name: index for index, name in enumerate(PUBLISHED)}
    return tuple(sorted(names, key=lambda name: (place.get(name, len(PUBLISHED)), name)))
