"""Responses of neurons to two repeats of the same stimuli."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selkern.data import _files
from selkern.data._matlab import STRUCT, MatlabFile, Variable, open_matlab

__all__ = ["Recording", "load_recording"]

STRINGER_STRUCT = "stim"
STRINGER_FIELDS = ("resp", "istim")


class Recording(NamedTuple):
    """Responses to two repeats of the same stimuli, what :func:`selkern.analysis.cvpca` takes."""

    repeat1: Tensor
    """Responses ``[S, N]`` to the first repeat, stimuli by neurons; float32 or float64."""
    repeat2: Tensor
    """Responses to the second, with the same shape and dtype."""


def load_recording(
    path: str | os.PathLike[str],
    second: str | os.PathLike[str] | None = None,
    *,
    variables: str | tuple[str, str] | None = None,
) -> Recording:
    """Load a recording of the same stimuli shown twice.

    A recording is one of

    - a ``.npy`` file of shape ``[2, S, N]``, repeats by stimuli by neurons;
    - two ``.npy`` files of shape ``[S, N]``, both named, or the only two in a folder, in the order
      of their names;
    - a ``.mat`` file of MATLAB with one variable of size ``[2, S, N]`` or two of size ``[S, N]``;
    - a ``.mat`` file with a struct ``stim`` in the layout that Stringer et al. (Nature 571, 2019)
      published: ``resp`` ``[T, N]``, the responses in ``T`` trials, and ``istim`` ``[T]``, the
      number of the stimulus in each.

    In the last one, the largest number in ``istim`` is taken to be the blank screen and left out,
    and so are stimuli shown fewer than twice; of the others, sorted by number, the first two
    trials count. Responses are given as they were recorded: the authors' own steps before
    the cross-validated spectrum (scaling by, and projecting out, spontaneous activity) are not
    taken.

    Files that MATLAB 5 to 7 saved are read as they stand, those of 7.3 through h5py where it is
    installed. Nothing in a file is run.

    Parameters
    ----------
    path : str or path
        The file, or a folder of two ``.npy`` files.
    second : str or path, optional
        The ``.npy`` file of the second repeat, where ``path`` is that of the first.
    variables : str or (str, str), optional
        Which variables of a ``.mat`` file hold the recording, or which two its repeats. Needed
        only where there is more than one choice.

    Returns
    -------
    Recording
        ``repeat1`` and ``repeat2``, ``[S, N]``; float32 for responses of at most 32 bits and
        integers of at most 16, and float64 otherwise.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged, or of another format, the responses are not numbers or not all
        finite, there are fewer than 2 stimuli, the repeats differ in shape, or the variables of a
        ``.mat`` file leave no choice or more than one.
    ImportError
        If a file is of MATLAB 7.3 and h5py is not installed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "recording.npy")
    ...     np.save(path, np.ones((2, 3, 5), dtype=np.float32))
    ...     repeat1, repeat2 = load_recording(path)
    >>> repeat1.shape
    torch.Size([3, 5])
    """
    where = _files.path_of("path", path)
    if not where.exists():
        raise FileNotFoundError(f"path must be a file or folder, but there is no {where}")
    if second is not None:
        return _from_pair(where, _files.path_of("second", second), variables)
    if where.is_dir():
        return _from_pair(*_two_files(where), variables)
    if where.suffix.lower() == ".mat":
        return _from_matlab(open_matlab(where), _checked_variables(variables))
    _refuse_variables(where, variables)
    repeats = _load_npy(where)
    return _from_stack(f"{where}", repeats)


def _two_files(folder: Path) -> tuple[Path, Path]:
    files = sorted(path for path in folder.glob("*.npy"))
    if len(files) != 2:
        names = ", ".join(path.name for path in files) or "none"
        raise ValueError(f"{folder} must hold two .npy files, got {names}")
    return files[0], files[1]


def _from_pair(first: Path, second: Path, variables: Any) -> Recording:
    _refuse_variables(first, variables)
    return _recording(str(first), _load_npy(first), str(second), _load_npy(second))


def _refuse_variables(path: Path, variables: Any) -> None:
    if variables is not None:
        raise ValueError(f"variables must be None for {path}, which is no .mat file")


def _load_npy(path: Path) -> NDArray[Any]:
    if path.suffix != ".npy":
        raise ValueError(f"{path} must be a .npy or .mat file")
    header = _files.npy_header(path)
    if 0 in header.shape:
        raise ValueError(f"{path} must hold responses, got shape {list(header.shape)}")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _from_stack(where: str, repeats: NDArray[Any]) -> Recording:
    if repeats.ndim != 3 or len(repeats) != 2:
        raise ValueError(
            f"{where} must have shape [2, S, N], repeats by stimuli by neurons, "
            f"got {list(repeats.shape)}"
        )
    return _recording(where, repeats[0], where, repeats[1])


def _recording(where1: str, repeat1: NDArray[Any], where2: str, repeat2: NDArray[Any]) -> Recording:
    for where, repeat in ((where1, repeat1), (where2, repeat2)):
        if repeat.dtype.kind not in "fiu":
            raise ValueError(f"{where} must hold real numbers, got {repeat.dtype.name}")
    if repeat1.ndim != 2 or repeat1.shape[0] < 2 or repeat1.shape[1] < 1:
        raise ValueError(
            f"{where1} must have at least 2 stimuli and a neuron, stimuli by neurons, "
            f"got shape {list(repeat1.shape)}"
        )
    if repeat2.shape != repeat1.shape:
        raise ValueError(
            f"{where2} must have shape {list(repeat1.shape)} like {where1}, "
            f"got {list(repeat2.shape)}"
        )
    bits = np.result_type(repeat1.dtype, repeat2.dtype, np.float32).itemsize
    dtype = np.float32 if bits == 4 else np.float64
    tensors = []
    for where, repeat in ((where1, repeat1), (where2, repeat2)):
        # A copy, because the mapped file is closed, and torch takes no foreign byte order.
        tensor = torch.from_numpy(np.array(repeat, dtype=dtype, order="C"))
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{where} must be finite, got NaN or infinity")
        tensors.append(tensor)
    return Recording(*tensors)


def _checked_variables(variables: Any) -> tuple[str, ...] | None:
    if variables is None:
        return None
    names = (variables,) if isinstance(variables, str) else variables
    if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"variables must be a str or two, got {type(variables).__name__}")
    if len(names) not in (1, 2):
        raise ValueError(f"variables must be one name or two, got {len(names)}")
    return tuple(names)


def _from_matlab(file: MatlabFile, names: tuple[str, ...] | None) -> Recording:
    if names is None:
        names = _only_choice(file)
    for name in names:
        if name not in file.variables:
            raise ValueError(f"{file.path} has no variable {name!r}, but {file.listing()}")
        is_struct = file.variables[name].kind == STRUCT and len(names) == 1
        if not (file.variables[name].is_numeric or is_struct):
            raise ValueError(
                f"{file.path} must hold {name} as real numbers, got {file.variables[name].kind}"
            )
    if len(names) == 2:
        first, second = names
        return _recording(
            f"{first} in {file.path}",
            file.read(first),
            f"{second} in {file.path}",
            file.read(second),
        )
    where = f"{names[0]} in {file.path}"
    if file.variables[names[0]].kind == STRUCT:
        return _from_trials(where, file.read_fields(names[0], STRINGER_FIELDS))
    return _from_stack(where, file.read(names[0]))


def _only_choice(file: MatlabFile) -> tuple[str, ...]:
    """Return the variables that can be a recording, where no others can."""
    if file.variables.get(STRINGER_STRUCT, Variable("", ())).kind == STRUCT:
        return (STRINGER_STRUCT,)
    shapes = {name: v.shape for name, v in file.variables.items() if v.is_numeric}
    stacks = [(name,) for name, shape in shapes.items() if len(shape) == 3 and shape[0] == 2]
    matrices = [name for name, shape in shapes.items() if len(shape) == 2 and min(shape) > 1]
    pairs = itertools.combinations(matrices, 2)
    choices = [*stacks, *((a, b) for a, b in pairs if shapes[a] == shapes[b])]
    if len(choices) != 1:
        raise ValueError(
            f"{file.path} must hold one variable of size [2, S, N], two of size [S, N] or a struct "
            f"stim of resp and istim, or variables must say which to take, got {file.listing()}"
        )
    return choices[0]


def _from_trials(where: str, fields: list[NDArray[Any]] | None) -> Recording:
    """The first two trials of every stimulus but the blank."""
    if fields is None:
        raise ValueError(f"{where} must be one struct with real numbers in resp and istim")
    responses, stimuli = fields
    numbers = stimuli.ravel()
    if responses.ndim != 2 or stimuli.size != max(stimuli.shape, default=0):
        raise ValueError(
            f"{where} must hold resp of size [T, N] and istim of size [T], "
            f"got {list(responses.shape)} and {list(stimuli.shape)}"
        )
    if len(numbers) != len(responses):
        raise ValueError(
            f"{where} must hold an istim for each of the {len(responses)} trials of resp, "
            f"got {len(numbers)}"
        )
    if not (np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()):
        raise ValueError(f"{where} must hold whole numbers in istim")
    order = np.argsort(numbers, kind="stable")
    shown, starts, counts = np.unique(numbers[order], return_index=True, return_counts=True)
    starts = starts[(counts >= 2) & (shown < shown.max(initial=0))]
    if len(starts) < 2:
        raise ValueError(f"{where} must hold at least 2 stimuli shown twice, got {len(starts)}")
    return _recording(where, responses[order[starts]], where, responses[order[starts + 1]])
