"""Data sets recognised by their files, and arguments that name none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_files import (
    write_cifar10,
    write_cifar10_c,
    write_mnist,
    write_tiny_imagenet,
    write_tiny_imagenet_c,
)

from selkern import data

IMAGES = {
    "mnist": (write_mnist, "MNIST/raw", (1, 5, 4)),
    "cifar10": (write_cifar10, "cifar-10-batches-py", (3, 32, 32)),
    "tiny imagenet": (write_tiny_imagenet, "tiny-imagenet-200", (3, 64, 64)),
}
CORRUPTED = {
    "cifar10-c": (write_cifar10_c, "CIFAR-10-C", True),
    "tiny imagenet-c": (write_tiny_imagenet_c, "Tiny-ImageNet-C", False),
}
LOADERS = (
    data.load_images,
    data.load_corrupted,
    data.load_mnist,
    data.load_cifar10,
    data.load_cifar10_c,
    data.load_tiny_imagenet,
    data.load_tiny_imagenet_c,
)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize("kind", [str, Path])
def test_images_are_recognised(
    tmp_path: Path, name: str, is_inside: bool, kind: Callable[[Path], Any]
) -> None:
    pytest.importorskip("PIL")
    write, inner, shape = IMAGES[name]
    write(tmp_path / inner if is_inside else tmp_path)
    splits = data.load_images(kind(tmp_path))
    assert splits.train.image_shape == splits.test.image_shape == shape


@pytest.mark.parametrize("name", CORRUPTED)
@pytest.mark.parametrize("is_inside", [False, True])
def test_corrupted_images_are_recognised(tmp_path: Path, name: str, is_inside: bool) -> None:
    pytest.importorskip("PIL")
    write, inner, is_paired = CORRUPTED[name]
    write(tmp_path / inner if is_inside else tmp_path)
    assert data.load_corrupted(tmp_path).is_paired is is_paired


def test_the_digits_need_no_folder() -> None:
    pytest.importorskip("sklearn")
    assert data.load_images("digits").train.image_shape == (1, 8, 8)


def test_an_incomplete_data_set_is_recognised_by_what_is_left(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_1").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_1"):
        data.load_images(tmp_path)


@pytest.mark.parametrize("load", [data.load_images, data.load_corrupted])
def test_a_folder_of_no_data_set_is_told_what_was_looked_for(tmp_path: Path, load: Any) -> None:
    with pytest.raises(ValueError, match="must hold the files of one data set") as refusal:
        load(tmp_path)
    looked_for = "data_batch_1" if load is data.load_images else "labels.npy"
    assert looked_for in str(refusal.value)
    assert f"got none of them in {tmp_path}" in str(refusal.value)


def test_a_folder_of_two_data_sets_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    write_cifar10(tmp_path)
    with pytest.raises(ValueError, match="got those of MNIST and CIFAR-10 in"):
        data.load_images(tmp_path)


@pytest.mark.parametrize("load", LOADERS)
def test_every_loader_needs_a_folder(tmp_path: Path, load: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"must be a folder, but there is no .*nowhere"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must be a folder, got the file .*file"):
        load(tmp_path / "file")
    with pytest.raises(TypeError, match="must be a str or a path, got int"):
        load(3)
