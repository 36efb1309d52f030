"""Images and neural recordings in the file formats in which they are published.

Every loader reads from a folder or file that the user names; nothing is downloaded. Files are
mapped into memory where their format allows it, and refused, with their name and what was expected
of them, where they are damaged or could run code. :func:`load_digits` needs no files.
"""

from selkern.data.cifar10 import load_cifar10, load_cifar10_c
from selkern.data.corrupted import CorruptedSets
from selkern.data.corruptions import CORRUPTIONS, constants, corrupt, corruptions_for
from selkern.data.digits import load_digits
from selkern.data.folders import load_corrupted, load_images
from selkern.data.images import ImageSet, Splits
from selkern.data.mnist import load_mnist
from selkern.data.recordings import Recording, load_recording
from selkern.data.tiny_imagenet import load_tiny_imagenet, load_tiny_imagenet_c

__all__ = [
    "CORRUPTIONS",
    "CorruptedSets",
    "ImageSet",
    "Recording",
    "Splits",
    "constants",
    "corrupt",
    "corruptions_for",
    "load_cifar10",
    "load_cifar10_c",
    "load_corrupted",
    "load_digits",
    "load_images",
    "load_mnist",
    "load_recording",
    "load_tiny_imagenet",
    "load_tiny_imagenet_c",
]
