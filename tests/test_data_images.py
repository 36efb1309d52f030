"""Image sets: what is read, when, and in which order."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import random_pixels, write_mnist
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from selkern import data
from selkern.data import ImageSet

ROWS = 7
PIXELS = random_pixels(ROWS, 5, 4, 3)
LABELS = [2, 0, 1, 1, 0, 2, 1]


class Recorder:
    """Pixels that remember which rows were read."""

    image_shape = PIXELS.shape[1:]

    def __init__(self, pixels: NDArray[Any] = PIXELS) -> None:
        self.pixels = pixels
        self.rows: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        self.rows.append(rows.tolist())
        return self.pixels[rows]


def image_set(pixels: Any = PIXELS) -> ImageSet:
    return ImageSet(pixels, LABELS, classes=["cat", "dog", "bird"])


def expected_images(rows: Any) -> torch.Tensor:
    return torch.tensor(PIXELS[rows]).permute(0, 3, 1, 2).to(torch.float32) / 255


class TestPixels:
    @pytest.mark.parametrize(
        "kind", [np.array, torch.tensor, Recorder], ids=("array", "tensor", "reader")
    )
    def test_become_channels_first_and_at_most_one(self, kind: Any) -> None:
        images = image_set(kind(PIXELS))
        pixels, labels = images.tensors()
        torch.testing.assert_close(pixels, expected_images(slice(None)), rtol=0, atol=0)
        assert pixels.is_contiguous()
        assert labels.tolist() == LABELS
        assert (len(images), images.image_shape, images.num_classes) == (ROWS, (3, 5, 4), 3)

    def test_of_gray_images_have_one_channel(self) -> None:
        images = image_set(PIXELS[..., 0])
        assert images.image_shape == (1, 5, 4)
        assert torch.equal(images[0][0][0], torch.tensor(PIXELS[0, ..., 0]) / 255)

    def test_may_have_another_brightest_value(self) -> None:
        pixels = np.array([[[0, 4]], [[8, 16]]], dtype=np.uint8)
        assert ImageSet(pixels, [0, 0], brightest=16).tensors()[0].flatten().tolist() == [
            *(0.0, 0.25),
            *(0.5, 1.0),
        ]
        with pytest.raises(ValueError, match="at most brightest = 15, got 16"):
            ImageSet(pixels, [0, 0], brightest=15).tensors()

    def test_of_an_array_are_not_copied(self) -> None:
        pixels = PIXELS.copy()
        images = image_set(pixels)
        pixels[2] = 51
        assert (images[2][0] == torch.tensor(0.2)).all()

    def test_are_read_only_when_asked_for(self) -> None:
        recorder = Recorder()
        images = image_set(recorder).subset([5, 3, 1, 0])
        iterator = images.subset(slice(1, None)).batches(2)
        assert recorder.rows == []
        next(iterator)
        assert recorder.rows == [[3, 1]]

    def test_of_a_mapped_file_are_read_in_the_order_they_lie_in(self, tmp_path: Path) -> None:
        written = write_mnist(tmp_path)["train-images-idx3-ubyte"]
        rows = [7, 2, 2, 11, 0]
        images, _ = data.load_mnist(tmp_path).train[rows]
        assert torch.equal(
            (images[:, 0] * 255).round().to(torch.uint8), torch.tensor(written[rows])
        )

    def test_of_a_mapped_file_stay_there(self, tmp_path: Path) -> None:
        write_mnist(tmp_path, counts=(2000, 10))
        images = data.load_mnist(tmp_path).train
        sent = pickle.dumps(images.subset([3, 4]))
        assert len(sent) < 30_000 < 2000 * 5 * 4
        assert torch.equal(pickle.loads(sent)[0][0], images[3][0])

    def test_and_labels_that_were_handed_out_may_be_changed(self) -> None:
        given = torch.tensor(LABELS)
        images = ImageSet(PIXELS, given)
        handed_out = (
            images.tensors(),
            images[:],
            next(images.batches(ROWS)),
            (images[0][0], images.subset(slice(None)).labels),
        )
        for pixels, labels in (*handed_out, (torch.empty(0), given)):
            pixels.fill_(0.5)
            labels.fill_(1)
        assert images.labels.tolist() == LABELS
        assert torch.equal(images.tensors()[0], expected_images(slice(None)))

    def test_that_are_not_what_was_promised_are_refused(self) -> None:
        for pixels in (PIXELS.astype(np.float32), PIXELS[..., :2]):
            with pytest.raises(ValueError, match="pixels must be read as uint8 of shape"):
                image_set(Recorder(pixels)).tensors()


class TestIndexing:
    @pytest.mark.parametrize("row", [0, 3, -1, -ROWS, np.int64(2), torch.tensor(4)], ids=str)
    def test_by_a_row(self, row: Any) -> None:
        image, label = image_set()[row]
        assert torch.equal(image, expected_images([int(row)])[0])
        assert type(label) is int
        assert label == LABELS[int(row)]

    @pytest.mark.parametrize(
        "rows",
        [
            slice(None),
            slice(5, 1, -2),
            range(1, 4),
            [],
            [3],
            [6, -1, 0, -7],
            [True, False] * 3 + [True],
            np.array([4, 1]),
            torch.tensor([4, 1, 1], dtype=torch.int32),
            torch.tensor(LABELS) == 1,
        ],
        ids=str,
    )
    def test_by_rows_as_numpy_has_it(self, rows: Any) -> None:
        same = np.arange(ROWS)[rows] if isinstance(rows, slice) else np.asarray(rows)
        same = same if len(same) else same.astype(np.int64)
        images, labels = image_set()[rows]
        assert torch.equal(images, expected_images(same))
        assert labels.tolist() == np.array(LABELS)[same].tolist()
        assert labels.dtype == torch.int64

    @pytest.mark.parametrize(
        "row", [ROWS, -ROWS - 1, [0, ROWS], torch.tensor([-ROWS - 1])], ids=str
    )
    def test_beyond_the_images_is_refused(self, row: Any) -> None:
        with pytest.raises(IndexError, match=f"of {ROWS} images"):
            image_set()[row]

    @pytest.mark.parametrize(
        ("rows", "error"),
        [
            ([True, False], IndexError),
            (torch.zeros(2, 2, dtype=torch.int64), IndexError),
            (torch.zeros(2), TypeError),
            (torch.zeros(2, dtype=torch.uint8), TypeError),
            (1.0, TypeError),
            (True, TypeError),
            ((1, 2), TypeError),
            ("0", TypeError),
        ],
        ids=str,
    )
    def test_by_anything_else_is_refused(self, rows: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="index must"):
            image_set()[rows]

    def test_goes_once_through_the_images(self) -> None:
        assert [label for _, label in image_set()] == LABELS


class TestSubset:
    def test_keeps_classes_and_counts_rows_of_its_own(self) -> None:
        images = image_set().subset([5, 3, 1]).subset(torch.tensor([-1, 0]))
        assert images.classes == ("cat", "dog", "bird")
        assert images.labels.tolist() == [LABELS[1], LABELS[5]]
        assert torch.equal(images.tensors()[0], expected_images([1, 5]))

    def test_of_no_rows_has_no_batches(self) -> None:
        assert list(image_set().subset([]).batches(4)) == []

    def test_of_a_single_row_is_refused(self) -> None:
        with pytest.raises(TypeError, match="rows must be a slice or several rows, got int"):
            image_set().subset(3)  # type: ignore[arg-type]


class TestBatches:
    def test_come_in_the_order_of_the_images(self) -> None:
        batches = list(image_set().batches(3))
        assert [len(labels) for _, labels in batches] == [3, 3, 1]
        assert torch.equal(
            torch.cat([images for images, _ in batches]), expected_images(slice(None))
        )
        assert torch.cat([labels for _, labels in batches]).tolist() == LABELS

    def test_are_shuffled_by_the_generator_alone(self) -> None:
        numbered = ImageSet(np.arange(50, dtype=np.uint8).reshape(50, 1, 1), np.arange(50))

        def order(seed: int) -> list[int]:
            batches = list(numbered.batches(8, generator=torch.Generator().manual_seed(seed)))
            images, labels = (torch.cat(parts) for parts in zip(*batches))
            assert (images.flatten() * 255).round().long().tolist() == labels.tolist()
            return labels.tolist()

        assert sorted(order(0)) == list(range(50))
        assert order(0) == order(0) != order(1) != list(range(50))

    def test_drop_a_short_last_one_if_told_to(self) -> None:
        for size, sizes in ((3, [3, 3]), (7, [7]), (8, [])):
            batches = image_set().batches(size, drop_last=True)
            assert [len(labels) for _, labels in batches] == sizes

    def test_come_on_the_device(self) -> None:
        images, labels = next(image_set().batches(2, device="meta"))
        assert images.device.type == labels.device.type == "meta"
        assert images.dtype == torch.float32

    def test_refuse_their_arguments_at_once(self) -> None:
        with pytest.raises(ValueError, match="size must be at least 1, got 0"):
            image_set().batches(0)
        with pytest.raises(TypeError, match="Generator or None, got int"):
            image_set().batches(1, generator=0)  # type: ignore[arg-type]


class TestDataLoader:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_reads_every_image(self, workers: int, tmp_path: Path) -> None:
        write_mnist(tmp_path)
        images = data.load_mnist(tmp_path).train
        context = "fork" if workers else None
        loader = DataLoader(images, 5, num_workers=workers, multiprocessing_context=context)
        pixels, labels = (torch.cat(parts) for parts in zip(*loader))
        assert torch.equal(pixels, images.tensors()[0])
        assert torch.equal(labels, images.labels)

    def test_reads_a_batch_at_once(self) -> None:
        recorder = Recorder()
        list(DataLoader(image_set(recorder), 4))
        assert recorder.rows == [[0, 1, 2, 3], [4, 5, 6]]


class TestRefusals:
    @pytest.mark.parametrize(
        ("pixels", "labels", "arguments", "error", "message"),
        [
            ("x", [0], {}, TypeError, "pixels must be a numpy.ndarray, .*, got str"),
            (PIXELS * 1.0, LABELS, {}, TypeError, "pixels must be uint8, got float64"),
            (torch.rand(7, 2, 2), LABELS, {}, TypeError, "pixels must be uint8, got float32"),
            (PIXELS[0, 0], [0] * 4, {}, ValueError, r"pixels must have shape .*, got \[4, 3\]"),
            (PIXELS[:, :0], LABELS, {}, ValueError, r"pixel an image, got \[7, 0, 4, 3\]"),
            (PIXELS, LABELS[1:], {}, ValueError, r"labels must have shape \[7\], .*, got \[6\]"),
            (PIXELS, "0123456", {}, TypeError, "labels must be a tensor, .*, got str"),
            (PIXELS, [0.5] * 7, {}, TypeError, "labels must be integers, got float64"),
            (PIXELS, [-1] * 7, {}, ValueError, "labels must be at least 0"),
            (PIXELS, [2**63] * 7, {}, ValueError, "labels must .* fit 64 bits"),
            (PIXELS, LABELS, {"classes": ["a", "b"]}, ValueError, "below 2, .*, got 2"),
            (PIXELS, LABELS, {"classes": "abc"}, TypeError, "classes must be a sequence of str"),
            (PIXELS, LABELS, {"classes": [0, 1, 2]}, TypeError, "classes must hold str, got int"),
            (PIXELS, LABELS, {"brightest": 256}, ValueError, "brightest must be in 1 to 255"),
            (PIXELS, LABELS, {"brightest": 1.0}, TypeError, "brightest must be an integer"),
        ],
    )
    def test_name_the_argument(
        self,
        pixels: Any,
        labels: Any,
        arguments: dict[str, Any],
        error: type[Exception],
        message: str,
    ) -> None:
        with pytest.raises(error, match=message):
            ImageSet(pixels, labels, **arguments)


class TestDigits:
    def test_keep_their_classes_in_proportion(self) -> None:
        pytest.importorskip("sklearn")
        train, test = data.load_digits()
        assert (len(train), len(test), train.image_shape) == (1347, 450, (1, 8, 8))
        assert test.labels.bincount().min() == 43
        images, _ = train.tensors()
        assert (images.min(), images.max()) == (0, 1)

    def test_are_those_of_scikit_learn(self) -> None:
        pixels, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
        loaded = [part.tensors() for part in data.load_digits()]
        images, ours = (torch.cat(parts) for parts in zip(*loaded))
        rows = torch.cat([images.flatten(1) * 16, ours[:, None]], 1)
        theirs = np.column_stack([pixels, labels])
        assert sorted(rows.tolist()) == sorted(theirs.tolist())

    def test_say_which_package_they_need(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(ImportError, match=r"^load_digits needs .* pip install scikit-learn$"):
            data.load_digits()
