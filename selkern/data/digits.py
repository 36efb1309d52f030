"""scikit-learn's digits: real images that need no files."""

from __future__ import annotations

import numpy as np

from selkern.data._packages import needed
from selkern.data.images import ImageSet, Splits

__all__ = ["load_digits"]

TEST_IMAGES = 450
BRIGHTEST = 16


def load_digits() -> Splits:
    """Load the 1,797 handwritten digits that come with scikit-learn, in a fixed split.

    The test set has 450 of them and keeps the classes in proportion. Pixels of 0 to 16 become [0,
    1]. It needs scikit-learn, and no files.

    Returns
    -------
    Splits
        ``train`` and ``test``: 1,347 and 450 images ``[1, 8, 8]`` in 10 classes.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.

    Examples
    --------
    >>> load_digits().test
    ImageSet(450 images of 1 x 8 x 8 in 10 classes)
    """
    datasets = needed("sklearn.datasets", "load_digits")
    selection = needed("sklearn.model_selection", "load_digits")
    pixels, labels = datasets.load_digits(return_X_y=True)
    train, test = selection.train_test_split(
        np.arange(len(labels)), test_size=TEST_IMAGES, stratify=labels, random_state=0
    )
    images = ImageSet(
        pixels.astype(np.uint8).reshape(-1, 8, 8),
        labels,
        classes=tuple("0123456789"),
        brightest=BRIGHTEST,
    )
    return Splits(images.subset(train), images.subset(test))
