"""CIFAR-10 in the pickles it is published in, and CIFAR-10-C in its arrays."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import (
    CIFAR10_BATCHES,
    CIFAR10_NAMES,
    cifar10_batch,
    python2_pickle,
    random_pixels,
    write_cifar10,
    write_cifar10_c,
)

from selkern import data
from selkern.data import ImageSet

TEST = "test_batch"
# None is how Python 2 wrote the published files.
PROTOCOLS = (None, 2, 3, 4, 5)
TWICE = "a tuple that stands in more than one place"


def planes(values: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.tensor(values).reshape(-1, 3, 32, 32) / 255


def with_test_batch(folder: Path, content: bytes) -> Path:
    write_cifar10(folder)
    (folder / TEST).write_bytes(content)
    return folder


class Runs:
    """Runs a command where it is unpickled as a pickle asks for."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


class TestCifar10:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_holds_what_was_written(self, tmp_path: Path, protocol: int | None) -> None:
        written = write_cifar10(tmp_path / "cifar-10-batches-py", protocol)
        train, test = data.load_cifar10(tmp_path)
        for images, names in ((train, CIFAR10_BATCHES[:5]), (test, CIFAR10_BATCHES[5:])):
            pixels, labels = images.tensors()
            assert torch.equal(pixels, torch.cat([planes(written[name]["data"]) for name in names]))
            assert labels.tolist() == [n for name in names for n in written[name]["labels"]]
            assert images.classes == CIFAR10_NAMES

    @pytest.mark.parametrize("protocol", [2, 5])
    def test_arrays_may_be_in_fortran_order(self, tmp_path: Path, protocol: int) -> None:
        pixels = random_pixels(2, 3072)
        batch = {**cifar10_batch(), "data": np.asfortranarray(pixels)}
        folder = with_test_batch(tmp_path, pickle.dumps(batch, protocol))
        assert torch.equal(data.load_cifar10(folder).test.tensors()[0], planes(pixels))

    def test_text_may_be_bytes_that_python_3_wrote_for_python_2(self, tmp_path: Path) -> None:
        batch = {**cifar10_batch(), "filenames": [b"%d.png" % row for row in range(2000)]}
        folder = with_test_batch(tmp_path, pickle.dumps(batch, 2))
        assert len(data.load_cifar10(folder).test) == 2

    def test_pickles_written_as_python_2_did_are_what_they_say(self) -> None:
        batch = cifar10_batch()
        read = pickle.loads(python2_pickle(batch), encoding="latin1")
        assert np.array_equal(read.pop("data"), batch.pop("data"))
        assert read == batch

    def test_has_the_published_classes_without_the_file_that_names_them(
        self, tmp_path: Path
    ) -> None:
        write_cifar10(tmp_path, meta=False)
        assert data.load_cifar10(tmp_path).train.classes[:2] == ("airplane", "automobile")

    @pytest.mark.parametrize("name", ["data_batch_3", TEST])
    def test_a_missing_file_is_named(self, tmp_path: Path, name: str) -> None:
        write_cifar10(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"there is no .*{name}"):
            data.load_cifar10(tmp_path)

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_nothing_in_a_pickle_is_run(self, tmp_path: Path, protocol: int) -> None:
        canary = tmp_path / "canary"
        for runs in (Runs(os.mkdir, str(canary)), Runs(eval, f"open({str(canary)!r}, 'w')")):
            content = pickle.dumps({**cifar10_batch(), "more": runs}, protocol)
            folder = with_test_batch(tmp_path / "files", content)
            with pytest.raises(ValueError, match=rf"{TEST} .*(posix\.mkdir|eval) is not allowed"):
                data.load_cifar10(folder)
            assert not canary.exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"data": random_pixels(2, 3071)}, r"data of shape \[N, 3072\], got \(2, 3071\)"),
            (
                {"data": random_pixels(0, 3072), "labels": []},
                r"(got \(0, 3072\)|not allowed in it)",
            ),
            ({"data": [[0] * 3072] * 2}, "data as an array, got list"),
            ({"data": np.zeros((2, 3072))}, "array is not of uint8"),
            ({"data": np.zeros((2, 3072), np.int8)}, "array is not of uint8"),
            ({"data": np.array([[None] * 3072] * 2)}, "array is not of uint8"),
            ({"labels": [1]}, "2 labels, one for each image, got 1"),
            ({"labels": [3, 10]}, "labels of 0 to 9, got 10"),
            ({"labels": [-1, 3]}, "labels of 0 to 9, got -1"),
            ({"labels": ["3", "4"]}, "labels as a list of int"),
            ({"labels": np.array([3, 4])}, "array is not of uint8"),
            ({"labels": (3, 4)}, "labels as a list of int"),
        ],
    )
    @pytest.mark.parametrize("protocol", [2, 5])
    def test_another_content_is_refused(
        self, tmp_path: Path, change: dict[str, Any], message: str, protocol: int
    ) -> None:
        content = pickle.dumps({**cifar10_batch(), **change}, protocol)
        with pytest.raises(ValueError, match=f"{TEST} must .*{message}"):
            data.load_cifar10(with_test_batch(tmp_path, content))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (python2_pickle([1, 2]), "must hold a dict, got list"),
            (python2_pickle({"data": 1}), "must hold a dict with the key 'labels'"),
            (python2_pickle(cifar10_batch())[:-1], "must be a pickle of plain data"),
            (python2_pickle(cifar10_batch()) + b".", ".* 1 bytes after its end"),
            (b"", "must be a pickle of plain data"),
            (b"\x80\x02]r\xff\xff\xff\x7f.", ".* a memo entry numbered 2147483647"),
            (b"\x80\x02\x8e" + b"\xff" * 7 + b"\x00.", "must be a pickle of plain data"),
        ],
    )
    def test_damage_is_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        with pytest.raises(ValueError, match=f"{TEST} {message}"):
            data.load_cifar10(with_test_batch(tmp_path, content))

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            (b")" + b"\x85" * 5000, "more than 1000 tuples"),
            (b"(" * 5000 + b"t" * 5000, "more than 1000 tuples"),
            (b")" + b"2\x86" * 20, "the opcode DUP"),
            (b")N0q\x00h\x00\x86", "the opcode POP"),
            (b"(K\x01\x91", "the opcode FROZENSET"),
            (b"K\x01\x85" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(20)), TWICE),
            (b"K\x01\x85" + b"".join(b"Nbq%ch%c\x86" % (n, n) for n in range(20)), TWICE),
        ],
        ids=["deep", "deep by marks", "dup", "pop", "sets", "memo", "memo after build"],
    )
    def test_keys_that_take_forever_or_crash_are_refused(
        self, tmp_path: Path, key: bytes, message: str
    ) -> None:
        folder = with_test_batch(tmp_path, b"\x80\x02}" + key + b"Ns.")
        with pytest.raises(ValueError, match=f"{TEST} must be a pickle of plain data.*{message}"):
            data.load_cifar10(folder)

    def test_an_array_must_have_the_bytes_of_its_shape(self, tmp_path: Path) -> None:
        content = python2_pickle(cifar10_batch(1)).replace(
            b"(K\x01J\x00\x0c\x00\x00t", b"(K\xffK\xfft"
        )
        with pytest.raises(ValueError, match=r"array of shape \(255, 255\) has 3072 bytes"):
            data.load_cifar10(with_test_batch(tmp_path, content))

    def test_names_of_classes_must_be_ten(self, tmp_path: Path) -> None:
        write_cifar10(tmp_path)
        for names in (["cat"], list(range(10))):
            (tmp_path / "batches.meta").write_bytes(python2_pickle({"label_names": names}))
            with pytest.raises(ValueError, match=r"batches\.meta must hold .*label_names"):
                data.load_cifar10(tmp_path)


class TestCifar10C:
    @pytest.mark.parametrize("inner", [".", "CIFAR-10-C"])
    def test_holds_what_was_written_at_every_severity(self, tmp_path: Path, inner: str) -> None:
        written = write_cifar10_c(tmp_path / inner)
        sets = data.load_cifar10_c(tmp_path)
        assert (sets.names, sets.severities) == (("gaussian_noise", "fog"), (1, 2, 3, 4, 5))
        assert sets.is_paired
        for name in sets.names:
            for severity in sets.severities:
                images = sets.load(name, severity)
                expected = torch.tensor(written[name][4 * severity - 4 : 4 * severity])
                assert torch.equal(images.tensors()[0], expected.permute(0, 3, 1, 2) / 255)
                assert images.labels.tolist() == [0, 1, 2, 3]

    def test_lists_corruptions_in_the_order_of_the_field(self, tmp_path: Path) -> None:
        write_cifar10_c(tmp_path, ["mine", "saturate", "fog", "shot_noise", "its"], images=1)
        names = data.load_cifar10_c(tmp_path).names
        assert names == ("shot_noise", "fog", "saturate", "its", "mine")

    def test_refuses_corruptions_and_severities_it_does_not_have(self, tmp_path: Path) -> None:
        write_cifar10_c(tmp_path)
        sets = data.load_cifar10_c(tmp_path)
        with pytest.raises(
            ValueError, match=r"name must be one of \('gaussian_noise', 'fog'\), got"
        ):
            sets.load("snow", 1)
        for severity in (0, 6):
            with pytest.raises(ValueError, match=f"severity must be in 1 to 5, got {severity}"):
                sets.load("fog", severity)
        with pytest.raises(TypeError, match="severity must be an integer, got str"):
            sets.load("fog", "1")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (random_pixels(16, 32, 32, 3), r"shape \(20, 32, 32, 3\) .*, got uint8 of shape \(16,"),
            (random_pixels(20, 3, 32, 32), r"got uint8 of shape \(20, 3, 32, 32\)"),
            (np.zeros((20, 32, 32, 3)), "got float64 of shape"),
            (np.asfortranarray(random_pixels(20, 32, 32, 3)), "in Fortran order"),
            (np.array([None]), "hold numbers, got pickled Python objects"),
        ],
    )
    def test_another_array_is_refused(self, tmp_path: Path, array: Any, message: str) -> None:
        write_cifar10_c(tmp_path)
        np.save(tmp_path / "fog.npy", array)
        with pytest.raises(ValueError, match=rf"fog\.npy must .*{message}"):
            data.load_cifar10_c(tmp_path)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 1, 2] * 5, r"fog\.npy must be uint8 of shape \(15,"),
            ([0, 1, 2, 3] * 4, "5 severities, got 16 labels"),
            ([0, 1, 2, 3] * 4 + [0, 1, 3, 2], "the same labels at every severity"),
            ([0, 1, 2, 10] * 5, "labels of 0 to 9, got 10"),
            ([], "5 severities, got 0 labels"),
            ([[0]] * 20, r"shape \[5 N\], got uint8 of shape \[20, 1\]"),
        ],
        ids=str,
    )
    def test_other_labels_are_refused(self, tmp_path: Path, labels: Any, message: str) -> None:
        write_cifar10_c(tmp_path, ["fog"])
        np.save(tmp_path / "labels.npy", np.array(labels, dtype=np.uint8))
        with pytest.raises(ValueError, match=message):
            data.load_cifar10_c(tmp_path)

    @pytest.mark.parametrize("change", [-1, 1])
    def test_a_file_of_another_size_is_refused(self, tmp_path: Path, change: int) -> None:
        write_cifar10_c(tmp_path)
        path = tmp_path / "fog.npy"
        size = path.stat().st_size
        os.truncate(path, size + change)
        with pytest.raises(ValueError, match=f"must have {size} bytes .*, got {size + change}"):
            data.load_cifar10_c(tmp_path)

    def test_missing_files_are_named(self, tmp_path: Path) -> None:
        write_cifar10_c(tmp_path, ["fog"])
        (tmp_path / "fog.npy").unlink()
        with pytest.raises(FileNotFoundError, match=r"must hold a <corruption>\.npy, got none"):
            data.load_cifar10_c(tmp_path)
        (tmp_path / "labels.npy").unlink()
        with pytest.raises(FileNotFoundError, match=r"there is no .*labels\.npy"):
            data.load_cifar10_c(tmp_path)


def test_corrupted_sets_open_what_they_are_asked_for() -> None:
    opened = []

    def opener(name: str, severity: int) -> ImageSet:
        opened.append((name, severity))
        return ImageSet(random_pixels(1, 2, 2), [0])

    sets = data.CorruptedSets(["fog"], ["0"], opener, is_paired=False)
    assert opened == []
    sets.load("fog", 3)
    assert opened == [("fog", 3)]
    assert repr(sets) == "CorruptedSets(1 corruptions at 5 severities)"
