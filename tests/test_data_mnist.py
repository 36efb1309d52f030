"""MNIST in the idx files it is published in."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
import torch
from data_files import idx_bytes, random_pixels, write_mnist

from selkern import data

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
DAMAGE = {
    "another magic number": (lambda b: b"\0\0\x08\x01" + b[4:], "magic number 0x803, got 0x801"),
    "no header": (lambda b: b[:15], "header of 16 bytes, got 15 bytes"),
    "a byte missing": (lambda b: b[:-1], "have 256 bytes for 12 x 5 x 4, got 255"),
    "a byte too many": (lambda b: b + b"\0", "have 256 bytes for 12 x 5 x 4, got (257|more)"),
    "no images": (lambda b: b[:4] + bytes(4) + b[8:], "at least 1 of images, got 0"),
    "a promise of 10^28 bytes": (
        lambda b: b[:4] + b"\xff" * 12 + b[16:],
        "have 79228162458924105385300197391 bytes for .*, got 256",
    ),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("inner", [".", "MNIST/raw"])
def test_holds_what_was_written(tmp_path: Path, compressed: bool, inner: str) -> None:
    written = write_mnist(tmp_path / inner, compressed)
    for part, images in zip(("train", "t10k"), data.load_mnist(tmp_path)):
        pixels, labels = images.tensors()
        expected = torch.tensor(written[f"{part}-images-idx3-ubyte"])[:, None]
        assert torch.equal(pixels, expected / 255)
        assert labels.tolist() == written[f"{part}-labels-idx1-ubyte"].tolist()
        assert images.classes == tuple("0123456789")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(tmp_path: Path, compressed: bool, damage: str) -> None:
    damaged, message = DAMAGE[damage]
    images = idx_bytes(write_mnist(tmp_path, compressed)[IMAGES])
    path = tmp_path / (f"{IMAGES}.gz" if compressed else IMAGES)
    path.write_bytes(gzip.compress(damaged(images)) if compressed else damaged(images))
    with pytest.raises(ValueError, match=f"{path.name} must .*{message}"):
        data.load_mnist(tmp_path)


@pytest.mark.parametrize("keep", [5, 30, -9, -1])
def test_an_incomplete_gzip_file_is_refused(tmp_path: Path, keep: int) -> None:
    write_mnist(tmp_path, compressed=True)
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{path.name} must be a whole gzip file"):
        data.load_mnist(tmp_path)


def test_a_file_that_is_no_gzip_file_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, compressed=True)
    (tmp_path / f"{IMAGES}.gz").write_bytes(idx_bytes(random_pixels(12, 5, 4)))
    with pytest.raises(ValueError, match=r"\.gz must be a whole gzip file: Not a gzipped file"):
        data.load_mnist(tmp_path)


@pytest.mark.parametrize("name", [IMAGES, LABELS, "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_mnist(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"must hold {name} or {name}.gz, got neither"):
        data.load_mnist(tmp_path)


def test_labels_must_be_of_a_class_and_as_many_as_images(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / LABELS
    path.write_bytes(struct.pack(">2I", 0x801, 12) + bytes(range(12)))
    with pytest.raises(ValueError, match=f"{LABELS} must hold labels of 0 to 9, got 11"):
        data.load_mnist(tmp_path)
    path.write_bytes(struct.pack(">2I", 0x801, 11) + bytes(11))
    with pytest.raises(ValueError, match=f"{LABELS} must hold 12 labels, .*, got 11"):
        data.load_mnist(tmp_path)


def test_both_parts_must_have_images_of_one_size(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(random_pixels(10, 4, 4)))
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte .* 5 x 4 .*, got 4 x 4"):
        data.load_mnist(tmp_path)
