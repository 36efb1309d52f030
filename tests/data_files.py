"""Tiny data sets in the formats in which the real ones are published."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CORRUPTIONS = ("gaussian_noise", "fog")
CIFAR10_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
CIFAR10_NAMES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WNIDS = ("n01443537", "n01629819", "n01641577")


def random_pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# MNIST


def idx_bytes(values: NDArray[np.uint8]) -> bytes:
    magic = {3: 0x803, 1: 0x801}[values.ndim]
    return struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.tobytes()


def write_mnist(
    folder: Path, compressed: bool = False, counts: tuple[int, int] = (12, 10)
) -> dict[str, NDArray[np.uint8]]:
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for seed, (part, count) in enumerate(zip(("train", "t10k"), counts)):
        written[f"{part}-images-idx3-ubyte"] = random_pixels(count, 5, 4, seed=seed)
        written[f"{part}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    for name, values in written.items():
        data = idx_bytes(values)
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
        else:
            (folder / name).write_bytes(data)
    return written


# CIFAR-10


def cifar10_batch(images: int = 2, seed: int = 0) -> dict[str, Any]:
    labels = [(seed + row) % 10 for row in range(images)]
    return {
        "batch_label": f"training batch {seed} of 5",
        "labels": labels,
        "data": random_pixels(images, 3072, seed=seed),
        "filenames": [f"{label}_s_{row:06d}.png" for row, label in enumerate(labels)],
    }


def python2_pickle(value: Any) -> bytes:
    """Pickle as Python 2 did with protocol 2: text as byte strings, arrays as NumPy had it."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: Any) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_python2(key) + _python2(item) for key, item in value.items())
        return b"}q\x01(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(_python2(item) for item in value) + b"e"
    if isinstance(value, int):
        return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, np.ndarray):
        return _python2_array(value)
    data = value if isinstance(value, bytes) else value.encode()
    if len(data) < 256:
        return b"U" + bytes([len(data)]) + data
    return b"T" + struct.pack("<i", len(data)) + data


def _python2_array(values: NDArray[Any]) -> bytes:
    name = values.dtype.str[1:].encode()
    start = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nq\x04U" + bytes([len(name)]) + name + b"K\x00K\x01\x87R"
    dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"".join(_python2(length) for length in values.shape)
    return start + b"(K\x01(" + shape + b"t" + dtype + b"\x89" + _python2(values.tobytes()) + b"tb"


def write_cifar10(
    folder: Path, protocol: int | None = None, meta: bool = True, images: int = 2
) -> dict[str, dict[str, Any]]:
    """Write as Python 2 did, or with a protocol of Python 3."""
    folder.mkdir(parents=True, exist_ok=True)
    batches = {name: cifar10_batch(images, seed) for seed, name in enumerate(CIFAR10_BATCHES)}
    written: dict[str, dict[str, Any]] = dict(batches)
    if meta:
        written["batches.meta"] = {"num_cases_per_batch": 2, "label_names": list(CIFAR10_NAMES)}
    for name, content in written.items():
        data = python2_pickle(content) if protocol is None else pickle.dumps(content, protocol)
        (folder / name).write_bytes(data)
    return batches


def write_cifar10_c(
    folder: Path, names: Sequence[str] = CORRUPTIONS, images: int = 4
) -> dict[str, NDArray[np.uint8]]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: random_pixels(5 * images, 32, 32, 3, seed=seed) for seed, name in enumerate(names)
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "labels.npy", np.tile(np.arange(images, dtype=np.uint8), 5))
    return arrays


# Tiny ImageNet


def write_jpeg(path: Path, level: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> None:
    """Write an image of one brightness, which JPEG keeps as it is."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    color = level if mode == "L" else (level,) * len(mode)
    Image.new(mode, size, color).save(path, format="JPEG")


def write_tiny_imagenet(folder: Path, val: str = "published") -> None:
    """Three classes listed out of order, two images each of brightness 10 * label + row."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wnids.txt").write_text("\n".join(WNIDS[::-1]) + "\n")
    annotations = []
    for label, wnid in enumerate(WNIDS):
        for row in range(2):
            mode = "L" if row else "RGB"
            name = f"{wnid}_{row}.JPEG"
            write_jpeg(folder / "train" / wnid / "images" / name, 10 * label + row, mode=mode)
            name = f"val_{2 * label + row}.JPEG"
            inner = {"published": "images", "sorted": wnid, "sorted images": f"{wnid}/images"}
            write_jpeg(folder / "val" / inner[val] / name, 100 + 10 * label + row, mode=mode)
            annotations.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
    if val == "published":
        (folder / "val" / "val_annotations.txt").write_text("".join(annotations[::-1]))


def write_tiny_imagenet_c(folder: Path, names: Sequence[str] = CORRUPTIONS) -> None:
    for number, name in enumerate(names):
        for severity in range(1, 6):
            for label, wnid in enumerate(WNIDS):
                level = 100 * number + 10 * severity + label
                write_jpeg(folder / name / str(severity) / wnid / "test_0.JPEG", level)


# Recordings


def responses(repeats: int = 2, stimuli: int = 4, neurons: int = 3) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    return random.standard_normal((repeats, stimuli, neurons), dtype=np.float32)


def matlab_5_big_endian(name: str, values: NDArray[Any]) -> bytes:
    """Write a float64 variable as MATLAB of version 5 did on big-endian machines."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">2I", kind, len(data)) + data + bytes(-len(data) % 8)

    variable = element(6, struct.pack(">2I", 6, 0))
    variable += element(5, np.array(values.shape, ">i4").tobytes())
    variable += struct.pack(">2H", len(name), 1) + name.encode().ljust(4, b"\0")
    variable += element(9, values.astype(">f8").tobytes(order="F"))
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + element(14, variable)


def write_matlab_73(path: Path, variables: dict[str, Any]) -> None:
    """Write as MATLAB does with -v7.3: HDF5 behind a header of text, axes in opposite order."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in variables.items():
            group = file.create_group(name) if isinstance(values, dict) else file
            if isinstance(values, dict):
                group.attrs["MATLAB_class"] = np.bytes_("struct")
            for field, array in values.items() if isinstance(values, dict) else [(name, values)]:
                dataset = group.create_dataset(field, data=np.asarray(array).T)
                kind = {"float32": "single", "float64": "double"}.get(array.dtype.name)
                dataset.attrs["MATLAB_class"] = np.bytes_(kind or array.dtype.name)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
