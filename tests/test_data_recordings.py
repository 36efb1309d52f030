"""Two-repeat recordings in NumPy's and MATLAB's files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import matlab_5_big_endian, responses, write_matlab_73

from selkern import data
from selkern.analysis import cvpca

RESPONSES = responses()
TRIALS = np.arange(27, dtype=np.float64).reshape(9, 3)
# Stimulus 1 is shown three times, 4 once, and 5 is the blank.
STIMULI = np.array([2, 1, 5, 3, 1, 2, 4, 5, 1], dtype=np.float64)


def save_matlab_5(path: Path, variables: dict[str, Any]) -> None:
    pytest.importorskip("scipy.io").savemat(path, variables)


def save_compressed(path: Path, variables: dict[str, Any]) -> None:
    pytest.importorskip("scipy.io").savemat(path, variables, do_compression=True)


def save_matlab_73(path: Path, variables: dict[str, Any]) -> None:
    pytest.importorskip("h5py")
    write_matlab_73(path, variables)


@pytest.fixture(params=[save_matlab_5, save_compressed, save_matlab_73], ids=lambda f: f.__name__)
def save(request: pytest.FixtureRequest) -> Any:
    return request.param


def assert_is(recording: data.Recording, expected: Any = RESPONSES) -> None:
    for repeat, array in zip(recording, expected):
        assert torch.equal(repeat, torch.from_numpy(np.array(array, order="C")))


class TestNumPy:
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_one_file_holds_both_repeats(self, tmp_path: Path, order: Any) -> None:
        np.save(tmp_path / "recording.npy", np.asarray(RESPONSES, order=order))
        recording = data.load_recording(tmp_path / "recording.npy")
        assert_is(recording)
        assert torch.isfinite(cvpca(*recording)).all()

    def test_two_files_are_named_or_lie_in_a_folder(self, tmp_path: Path) -> None:
        paths = [tmp_path / name for name in ("repeat1.npy", "repeat2.npy")]
        for path, repeat in zip(paths, RESPONSES):
            np.save(path, repeat)
        assert_is(data.load_recording(*paths))
        assert_is(data.load_recording(*paths[::-1]), RESPONSES[::-1])
        assert_is(data.load_recording(tmp_path))
        np.save(tmp_path / "repeat3.npy", RESPONSES[0])
        with pytest.raises(ValueError, match=r"two .npy files, got repeat1.*repeat3\.npy"):
            data.load_recording(tmp_path)

    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [
            ("<f4", torch.float32),
            (">f4", torch.float32),
            ("f2", torch.float32),
            ("i2", torch.float32),
            ("u1", torch.float32),
            ("i4", torch.float64),
            ("f8", torch.float64),
            (">f8", torch.float64),
        ],
    )
    def test_numbers_of_every_kind_are_kept(
        self, tmp_path: Path, dtype: str, expected: torch.dtype
    ) -> None:
        numbers = np.arange(24).reshape(2, 4, 3).astype(dtype)
        np.save(tmp_path / "recording.npy", numbers)
        recording = data.load_recording(tmp_path / "recording.npy")
        assert recording.repeat1.dtype == recording.repeat2.dtype == expected
        assert torch.stack(list(recording)).flatten().tolist() == list(range(24))

    @pytest.mark.parametrize("dtypes", [("f4", "f8"), ("f8", "f4")], ids=str)
    def test_both_repeats_have_the_dtype_that_keeps_both(
        self, tmp_path: Path, dtypes: tuple[str, str]
    ) -> None:
        repeats = [(RESPONSES[0].astype("f8") / 3).astype(dtype) for dtype in dtypes]
        for number, repeat in enumerate(repeats):
            np.save(tmp_path / f"repeat{number}.npy", repeat)
        assert_is(data.load_recording(tmp_path), [repeat.astype("f8") for repeat in repeats])

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (RESPONSES[0], r"shape \[2, S, N\], .*, got \[4, 3\]"),
            (RESPONSES.transpose(1, 0, 2), r"shape \[2, S, N\], .*, got \[4, 2, 3\]"),
            (RESPONSES[:, :1], r"at least 2 stimuli .*, got shape \[1, 3\]"),
            (RESPONSES[:, :, :0], r"hold responses, got shape \[2, 4, 0\]"),
            (RESPONSES + np.float32("nan"), "be finite, got NaN or infinity"),
            (RESPONSES - np.float32("inf"), "be finite, got NaN or infinity"),
            (RESPONSES > 0, "hold real numbers, got bool"),
            (RESPONSES * 1j, "hold real numbers, got complex64"),
            (RESPONSES.astype("U3"), "hold real numbers, got str"),
            (RESPONSES.astype(object), "hold numbers, got pickled Python objects"),
        ],
        ids=str,
    )
    def test_other_arrays_are_refused(self, tmp_path: Path, array: Any, message: str) -> None:
        np.save(tmp_path / "recording.npy", array)
        with pytest.raises(ValueError, match=rf"recording\.npy must .*{message}"):
            data.load_recording(tmp_path / "recording.npy")

    def test_repeats_must_have_the_same_shape(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", RESPONSES[0])
        np.save(tmp_path / "b.npy", RESPONSES[1, :3])
        with pytest.raises(ValueError, match=r"b\.npy must have shape \[4, 3\] .*, got \[3, 3\]"):
            data.load_recording(tmp_path)


class TestMatlab:
    def test_one_variable_holds_both_repeats(self, tmp_path: Path, save: Any) -> None:
        save(tmp_path / "r.mat", {"r": RESPONSES, "med": np.zeros((4, 3))})
        assert_is(data.load_recording(tmp_path / "r.mat"))

    def test_two_variables_hold_a_repeat_each(self, tmp_path: Path, save: Any) -> None:
        variables = {"first": RESPONSES[0], "count": np.ones((1, 1)), "second": RESPONSES[1]}
        save(tmp_path / "r.mat", variables)
        assert_is(data.load_recording(tmp_path / "r.mat"))
        reverse = data.load_recording(tmp_path / "r.mat", variables=("second", "first"))
        assert_is(reverse, RESPONSES[::-1])

    def test_what_could_be_more_than_one_recording_needs_names(
        self, tmp_path: Path, save: Any
    ) -> None:
        save(tmp_path / "r.mat", {"a": RESPONSES, "b": 2 * RESPONSES})
        listing = r"a \[2 x 4 x 3\] single, b \[2 x 4 x 3\] single"
        with pytest.raises(ValueError, match=rf"r\.mat must hold one variable .*, got {listing}"):
            data.load_recording(tmp_path / "r.mat")
        with pytest.raises(ValueError, match=rf"r\.mat has no variable 'c', but {listing}"):
            data.load_recording(tmp_path / "r.mat", variables="c")
        assert_is(data.load_recording(tmp_path / "r.mat", variables="b"), 2 * RESPONSES)

    def test_the_published_layout_gives_the_first_two_trials_of_each_stimulus(
        self, tmp_path: Path, save: Any
    ) -> None:
        struct = {"resp": TRIALS, "istim": STIMULI[:, None], "spont": np.ones((2, 3))}
        save(tmp_path / "r.mat", {"stim": struct, "med": np.ones((3, 3))})
        expected = TRIALS[[1, 0]], TRIALS[[4, 5]]
        assert_is(data.load_recording(tmp_path / "r.mat"), expected)
        assert_is(data.load_recording(tmp_path / "r.mat", variables="stim"), expected)

    @pytest.mark.parametrize(
        ("struct", "message"),
        [
            ({"resp": TRIALS}, "one struct with real numbers in resp and istim"),
            ({"resp": TRIALS, "istim": STIMULI[1:]}, "each of the 9 trials of resp, got 8"),
            ({"resp": TRIALS, "istim": STIMULI + 0.5}, "whole numbers in istim"),
            ({"resp": TRIALS, "istim": TRIALS}, r"istim of size \[T\], got \[9, 3\] and \[9, 3\]"),
            ({"resp": TRIALS, "istim": np.arange(9.0)}, "2 stimuli shown twice, got 0"),
            ({"resp": TRIALS * np.nan, "istim": STIMULI}, "be finite"),
        ],
    )
    def test_another_struct_is_refused(
        self, tmp_path: Path, save: Any, struct: dict[str, Any], message: str
    ) -> None:
        save(tmp_path / "r.mat", {"stim": struct})
        with pytest.raises(ValueError, match=rf"stim in .*r\.mat must .*{message}"):
            data.load_recording(tmp_path / "r.mat")

    def test_values_are_those_scipy_reads(self, tmp_path: Path) -> None:
        for dtype in ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"):
            numbers = (100 * np.abs(RESPONSES)).astype(dtype)
            save_compressed(tmp_path / "r.mat", {"r": numbers})
            recording = data.load_recording(tmp_path / "r.mat")
            assert torch.stack(list(recording)).tolist() == numbers.tolist()

    def test_files_of_big_endian_machines_are_read(self, tmp_path: Path) -> None:
        content = matlab_5_big_endian("resp", RESPONSES)
        (tmp_path / "r.mat").write_bytes(content)
        assert_is(data.load_recording(tmp_path / "r.mat"), RESPONSES.astype(np.float64))

    @pytest.mark.parametrize(
        ("variable", "kind"),
        [
            (np.array([[None]]), "cell"),
            ("text", "char"),
            (RESPONSES > 0, "logical"),
            (RESPONSES * 1j, "complex single"),
        ],
    )
    def test_other_variables_are_refused(self, tmp_path: Path, variable: Any, kind: str) -> None:
        if kind == "cell":
            variable = np.empty((1, 1), dtype=object)
            variable[0, 0] = "x"
        save_matlab_5(tmp_path / "r.mat", {"r": variable})
        with pytest.raises(ValueError, match=rf"r\.mat must hold r as real numbers, got {kind}"):
            data.load_recording(tmp_path / "r.mat", variables="r")

    def test_values_in_another_file_are_refused(self, tmp_path: Path) -> None:
        h5py = pytest.importorskip("h5py")
        save_matlab_73(tmp_path / "other.mat", {"r": RESPONSES})
        save_matlab_73(tmp_path / "r.mat", {"s": RESPONSES})
        with h5py.File(tmp_path / "r.mat", "a") as file:
            file["link"] = h5py.ExternalLink(str(tmp_path / "other.mat"), "r")
            raw = file.create_dataset("raw", (3, 4, 2), "f8", external=str(tmp_path / "x"))
            huge = file.create_dataset("huge", (9, 9, 1 << 40), "f8", chunks=True)
            for dataset in (raw, huge):
                dataset.attrs["MATLAB_class"] = np.bytes_("double")
        (tmp_path / "x").write_bytes(bytes(3 * 4 * 2 * 8))
        for name in ("link", "raw", "huge"):
            with pytest.raises(ValueError, match=f"{name} is (not stored in it|stored in another)"):
                data.load_recording(tmp_path / "r.mat", variables=name)

    def test_version_73_says_what_to_do_without_h5py(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_matlab_73(tmp_path / "r.mat", {"r": RESPONSES})
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(ImportError, match=r"r\.mat is of .* pip install h5py, or save .*-v7"):
            data.load_recording(tmp_path / "r.mat")

    @pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", bytes(200)], ids=len)
    def test_a_file_of_no_matlab_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "r.mat").write_bytes(content)
        with pytest.raises(ValueError, match=r"r\.mat must be a MATLAB file of version 5 or 7\.3"):
            data.load_recording(tmp_path / "r.mat")


class TestArguments:
    def test_name_what_is_wrong(self, tmp_path: Path) -> None:
        np.save(tmp_path / "r.npy", RESPONSES)
        (tmp_path / "r.txt").write_text("1 2 3")
        save_matlab_5(tmp_path / "r.mat", {"r": RESPONSES})
        load = data.load_recording
        with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere\.npy"):
            load(tmp_path / "nowhere.npy")
        with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere\.npy"):
            load(tmp_path / "r.npy", tmp_path / "nowhere.npy")
        with pytest.raises(ValueError, match=r"r\.txt must be a \.npy or \.mat file"):
            load(tmp_path / "r.txt")
        with pytest.raises(ValueError, match=r"variables must be None for .*r\.npy"):
            load(tmp_path / "r.npy", variables="r")
        with pytest.raises(ValueError, match="variables must be one name or two, got 3"):
            load(tmp_path / "r.mat", variables=("a", "b", "c"))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="variables must be a str or two, got int"):
            load(tmp_path / "r.mat", variables=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="path must be a str or a path, got NoneType"):
            load(None)  # type: ignore[arg-type]
