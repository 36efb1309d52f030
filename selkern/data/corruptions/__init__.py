"""Corruptions of images of any size, after Hendrycks and Dietterich (arXiv 1903.12261).

The names, the five severities and, at 32 and 64 pixels, the strengths are those of CIFAR-10-C and
Tiny ImageNet-C. Blurs of a fixed shape, elastic transform, brightness and saturate run on kornia,
and JPEG on Pillow, which the extra ``data`` installs.
"""

from selkern.data.corruptions._constants import CORRUPTIONS, constants
from selkern.data.corruptions._corrupt import corrupt, corruptions_for

__all__ = ["CORRUPTIONS", "constants", "corrupt", "corruptions_for"]
