"""Files cut short or changed by a byte: read, or refused by their names, and nothing else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import (
    WNIDS,
    responses,
    write_cifar10,
    write_cifar10_c,
    write_matlab_73,
    write_mnist,
    write_tiny_imagenet,
)

from selkern import data

CHANGES = 60
HEADER = 200
MOST_MEMORY = 1 << 24
HDF5 = "mat of 7.3"
# Before it, there is only text.
HDF5_STARTS_AT = 512


def write_npy(folder: Path) -> None:
    np.save(folder / "r.npy", responses())


def write_matlab_5(folder: Path) -> None:
    pytest.importorskip("scipy.io").savemat(folder / "r.mat", {"r": responses()})


def write_struct(folder: Path) -> None:
    struct = {"resp": np.ones((6, 3)), "istim": np.array([1, 2, 1, 2, 3, 3])}
    io = pytest.importorskip("scipy.io")
    io.savemat(folder / "r.mat", {"stim": struct}, do_compression=True)


def write_jpegs(folder: Path) -> None:
    pytest.importorskip("PIL")
    write_tiny_imagenet(folder)


def write_hdf5(folder: Path) -> None:
    pytest.importorskip("h5py")
    write_matlab_73(folder / "r.mat", {"r": responses()})


FORMATS: dict[str, tuple[Callable[[Path], Any], str, Callable[[Path], Any]]] = {
    "idx": (write_mnist, "t10k-images-idx3-ubyte", data.load_mnist),
    "idx.gz": (
        lambda folder: write_mnist(folder, compressed=True),
        "t10k-labels-idx1-ubyte.gz",
        data.load_mnist,
    ),
    "pickle of Python 2": (
        lambda folder: write_cifar10(folder, images=1),
        "test_batch",
        data.load_cifar10,
    ),
    "pickle of Python 3": (
        lambda folder: write_cifar10(folder, protocol=4, images=1),
        "test_batch",
        data.load_cifar10,
    ),
    "npy of images": (
        lambda folder: write_cifar10_c(folder, ["fog"], images=1),
        "fog.npy",
        lambda folder: data.load_cifar10_c(folder).load("fog", 5).tensors(),
    ),
    "npy of responses": (write_npy, "r.npy", lambda folder: data.load_recording(folder / "r.npy")),
    "jpeg": (
        write_jpegs,
        f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG",
        lambda folder: data.load_tiny_imagenet(folder).train[0],
    ),
    "wnids": (write_jpegs, "wnids.txt", data.load_tiny_imagenet),
    "annotations": (write_jpegs, "val/val_annotations.txt", data.load_tiny_imagenet),
    "mat": (write_matlab_5, "r.mat", lambda folder: data.load_recording(folder / "r.mat")),
    "mat, compressed": (
        write_struct,
        "r.mat",
        lambda folder: data.load_recording(folder / "r.mat"),
    ),
    HDF5: (write_hdf5, "r.mat", lambda folder: data.load_recording(folder / "r.mat")),
}
# Of their text, the end says nothing that is read.
READ_WHEN_CUT = ("wnids", "annotations")


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def is_refused(load: Callable[[Path], Any], folder: Path, path: Path) -> bool:
    """Load, which may only fail with one line that names the file, and in little memory."""
    tracemalloc.reset_peak()
    refusal = ""
    try:
        load(folder)
    except (ValueError, FileNotFoundError) as error:
        refusal = str(error)
    assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    assert not refusal or (path.name in refusal and "\n" not in refusal)
    return bool(refusal)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    write, file, load = FORMATS[name]
    write(tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    random = np.random.default_rng(0)
    lengths = {0, len(content) - 1, *random.integers(0, len(content), CHANGES // 2).tolist()}
    if name in READ_WHEN_CUT:
        lengths = {length for length in lengths if length < len(content) - 12}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        assert is_refused(load, tmp_path, path), f"cut to {length} of {len(content)} bytes"


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_with_another_byte_is_read_or_refused(tmp_path: Path, name: str) -> None:
    write, file, load = FORMATS[name]
    write(tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    random = np.random.default_rng(1)
    refused = 0
    start = HDF5_STARTS_AT if name == HDF5 else 0
    for place in random.integers(start, min(len(content), start + HEADER), CHANGES).tolist():
        changed = bytearray(content)
        changed[place] ^= int(random.choice([0x01, 0x80, 0xFF]))
        path.write_bytes(changed)
        refused += is_refused(load, tmp_path, path)
    assert refused > 0
