"""Finding a model's layers and keeping what they put out, or the means of it."""

from __future__ import annotations

import difflib
import fnmatch
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from selkern import _checks
from selkern.pooling import relu_with_mean, relu_with_mean_, spatial_mean

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_TAP = "_selkern_tap"


class Reader(Protocol):
    """What is kept of a layer's output."""

    def check(self, name: str, output: Any) -> None:
        """Refuse an output that the layer ``name`` should not have."""

    def __call__(self, output: Tensor) -> Tensor:
        """Return what is kept."""


class MeanReader:
    """Spatial means ``[N, C]``, by :func:`selkern.spatial_mean` or a function like it."""

    def __init__(self, unit_dim: int, mean: Callable[..., Tensor] = spatial_mean):
        self.unit_dim = unit_dim
        self.mean = mean

    def check(self, name: str, output: Any) -> None:
        """Refuse an output that has no units."""
        _checks.activation(_output_of(name), output)
        _checks.unit_axis(f"unit_dim for layer {name!r}", self.axis(output), output)

    def __call__(self, output: Tensor) -> Tensor:
        """Return the means."""
        return self.mean(output, unit_dim=self.axis(output))

    def axis(self, x: Tensor) -> int:
        """Return the unit axis of ``x``: ``[N, C]`` has but one."""
        return 1 if x.dim() == 2 else self.unit_dim


class WholeReader:
    """The output itself."""

    def check(self, name: str, output: Any) -> None:
        """Refuse an output that is no tensor ``[N, ...]``."""
        _checks.floating(_output_of(name), output)
        if output.dim() < 2:
            shape = tuple(output.shape)
            raise ValueError(f"{_output_of(name)} must have at least 2 axes, got shape {shape}")

    def __call__(self, output: Tensor) -> Tensor:
        """Return the output, or a copy where a change of it would not be noticed."""
        return output.clone() if torch.compiler.is_compiling() else output


def _output_of(name: str) -> str:
    return f"the output of layer {name!r}, unless left out of layers=,"


class Tap:
    """What is kept of one layer's outputs, a tensor for each of its calls in the last forward."""

    def __init__(self, name: str, read: Reader):
        self.name = name
        self.read = read
        self.keeps_without_grad = False
        self.siblings: Sequence[Tap] = (self,)
        self.reset()

    def reset(self) -> None:
        """Forget the last forward."""
        # New objects, because reading the old ones would make torch.compile guard on them.
        self.kept: list[Tensor] = []
        self.versions: list[int] = []
        self.ran_without_grad = False
        self.was_read = False

    def add(self, kept: Tensor) -> None:
        """Keep what is of a call; activation checkpointing's second run of it is none."""
        if _is_in_backward():
            return
        if self.was_read:
            # A forward that did not come through the model's own call.
            for tap in self.siblings:
                tap.reset()
        self.kept.append(kept)
        if not torch.compiler.is_compiling():
            self.versions.append(kept._version)

    def add_output(self, output: Any) -> None:
        """Keep what is of a layer's output, unless gradients are off."""
        if not (torch.is_grad_enabled() or self.keeps_without_grad):
            self.ran_without_grad = True
            return
        self.read.check(self.name, output)
        self.add(self.read(output))

    def refuse_changed(self) -> None:
        """Refuse what an operation in place has changed since it was kept."""
        if any(kept._version != version for kept, version in zip(self.kept, self.versions)):
            raise RuntimeError(
                f"the output of layer {self.name!r} was changed in place after the layer ran: make "
                "the operation after it out of place, or leave the layer out of layers="
            )


class TappedReLU(nn.ReLU):
    """What an attached ``nn.ReLU`` becomes: the same function, and the mean in the same pass.

    Only ``__class__`` of the module changes, so that hooks, isinstance and state_dict stay, and a
    model that is compiled already compiles again.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply ReLU, and leave the mean with the tap unless gradients are off."""
        tap: Tap = getattr(self, _TAP)
        reader = cast("MeanReader", tap.read)
        axis = reader.axis(x)
        if not torch.is_grad_enabled():
            tap.ran_without_grad = True
            return nn.functional.relu(x, inplace=self.inplace)
        reader.check(tap.name, x)
        if not self.inplace:
            y, mean = relu_with_mean(x, unit_dim=axis)
        elif axis in (1, 1 - x.dim()):
            y, mean = x, relu_with_mean_(x)
        else:
            y = torch.relu_(x)
            mean = spatial_mean(y, unit_dim=axis)
        tap.add(mean)
        return y

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copy and pickle as the plain ``nn.ReLU`` that this module was."""
        state = {key: value for key, value in self.__dict__.items() if key != _TAP}
        return _new_relu, (), state


def _new_relu() -> nn.ReLU:
    return nn.ReLU.__new__(nn.ReLU)


def _do_nothing(*_: Any) -> None:
    """Stand in for a hook in a copy of the model."""


def _inert_hook() -> Callable[..., None]:
    return _do_nothing


class _OutputHook:
    def __init__(self, tap: Tap):
        self.tap = tap

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.tap.add_output(output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _inert_hook, ()


class _NewForwardHook:
    def __init__(self, capture: Capture):
        self.capture = capture
        self.taps = capture.taps

    def __call__(self, module: nn.Module, args: Any) -> None:
        if not _is_in_backward():
            for tap in self.taps:
                tap.reset()

    def __reduce__(self) -> tuple[Any, ...]:
        return _inert_hook, ()


def _is_in_backward() -> bool:
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class Capture:
    """Taps on layers of a model, until :meth:`close`.

    Parameters
    ----------
    model : nn.Module
        The model whose forward starts a new set.
    layers : dict of str to nn.Module
        The layers to tap, by name.
    read : Reader
        What to keep of their outputs. A :class:`MeanReader` by :func:`selkern.spatial_mean` is
        fused into each ``nn.ReLU``.
    owner : object
        Who reads what is kept, and closes this. Where it was forgotten instead, the next capture
        of the model closes this as it is made or closed.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: dict[str, nn.Module],
        read: Reader,
        owner: object,
    ):
        self.taps: list[Tap] = []
        self.is_closed = False
        # Weak, because the model's hooks hold the taps.
        self._root = weakref.ref(_unwrapped(model)[-1])
        self._owner = weakref.ref(owner)
        self._layers = [weakref.ref(module) for module in layers.values()]
        self._fused: list[nn.Module] = []
        self._handles: list[Any] = []
        self._close_forgotten()
        try:
            for name, module in layers.items():
                tap = Tap(name, read)
                self.taps.append(tap)
                self._attach(module, tap)
            for root in _unwrapped(model):
                self._handles.append(root.register_forward_pre_hook(_NewForwardHook(self)))
        except BaseException:
            self.close()
            raise
        for tap in self.taps:
            tap.siblings = self.taps

    def _attach(self, module: nn.Module, tap: Tap) -> None:
        # A hook that is there already may replace the output, and comes first.
        is_fusible = isinstance(tap.read, MeanReader) and tap.read.mean is spatial_mean
        if type(module) is nn.ReLU and is_fusible and not module._forward_hooks:
            setattr(module, _TAP, tap)
            module.__class__ = TappedReLU
            self._fused.append(module)
        else:
            self._handles.append(module.register_forward_hook(_OutputHook(tap)))

    def close(self) -> None:
        """Put every layer back as it was."""
        for module in self._fused:
            if isinstance(module, TappedReLU):
                module.__class__ = nn.ReLU  # type: ignore[assignment]
            module.__dict__.pop(_TAP, None)
        for handle in self._handles:
            handle.remove()
        for tap in self.taps:
            tap.reset()
        self._fused, self._handles = [], []
        self.is_closed = True
        self._close_forgotten()

    def _close_forgotten(self) -> None:
        root = self._root()
        hooks = [] if root is None else list(root._forward_pre_hooks.values())
        for hook in hooks:
            if isinstance(hook, _NewForwardHook) and hook.capture._owner() is None:
                hook.capture.close()

    @contextmanager
    def without_grad(self) -> Iterator[None]:
        """Keep outputs under ``torch.no_grad`` too, and nothing of them afterwards."""
        for tap in self.taps:
            tap.keeps_without_grad = True
        try:
            yield
        finally:
            for tap in self.taps:
                tap.keeps_without_grad = False
                tap.reset()

    def kept(self) -> dict[str, Tensor]:
        """Return what is kept of the last forward; the second call of ``relu`` is ``relu_1``.

        Raises
        ------
        RuntimeError
            If it is closed, or nothing was captured, or only a part because of ``torch.no_grad``,
            or an output has changed since.
        """
        if self.is_closed:
            raise RuntimeError("the regularizer is closed: attach a new one")
        without_grad = [tap.name for tap in self.taps if tap.ran_without_grad]
        found: dict[str, Tensor] = {}
        taken = {tap.name for tap in self.taps}
        for tap in self.taps:
            tap.refuse_changed()
            for call, kept in enumerate(tap.kept):
                found[_call_name(tap.name, call, taken)] = kept
        if not found:
            raise RuntimeError(f"no activation was captured: {self._why_nothing(without_grad)}")
        if without_grad:
            raise RuntimeError(
                f"layers {without_grad} ran without gradients in the last forward while others "
                "had them: leave a part that runs under torch.no_grad out of layers=, and "
                "checkpoint with use_reentrant=False"
            )
        for tap in self.taps:
            tap.was_read = True
        return found

    def _why_nothing(self, without_grad: Sequence[str]) -> str:
        root = self._root()
        present = [] if root is None else [id(module) for module in root.modules()]
        layers = zip(self.taps, self._layers, strict=True)
        gone = [tap.name for tap, layer in layers if id(layer()) not in present]
        if gone and present:
            return (
                f"layers {gone} were replaced in the model, or taken out of it, after the "
                "regularizer was attached: attach a new one"
            )
        if without_grad:
            return (
                "the last forward ran without gradients: call the model before the regularizer, "
                "not under torch.no_grad or inference_mode, and checkpoint with use_reentrant=False"
            )
        return (
            "call the model before the regularizer, itself and not a copy of it, and attach the "
            "regularizer before a model compiled by torch.compile runs for the first time"
        )


def _call_name(name: str, call: int, taken: set[str]) -> str:
    if call == 0:
        return name
    while f"{name}_{call}" in taken:
        call += 1
    taken.add(f"{name}_{call}")
    return f"{name}_{call}"


def _unwrapped(model: nn.Module) -> list[nn.Module]:
    """Return ``model`` and what it wraps: compiled, or distributed as ``module``."""
    chain = [model]
    while True:
        children = chain[-1]._modules
        inner = children.get("_orig_mod")
        if inner is None and list(children) == ["module"]:
            inner = children["module"]
        if inner is None:
            return chain
        chain.append(inner)


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return every submodule under every name it has, wrappers left out."""
    root = _unwrapped(model)[-1]
    named = root.named_modules(remove_duplicate=False)
    return {_without_wrappers(name): module for name, module in named if name}


def find_layers(
    model: nn.Module,
    layers: str | nn.Module | Iterable[str | nn.Module] | None,
    default: tuple[type[nn.Module], ...],
) -> dict[str, nn.Module]:
    """Return the layers that ``layers`` selects, by name and each but once.

    Parameters
    ----------
    model : nn.Module
        The model; compiled and distributed wrappers are looked through.
    layers : str, nn.Module, iterable of them, or None
        Dotted names, globs, or submodules. None selects every module of the ``default`` types.
    default : tuple of type
        What None stands for.

    Raises
    ------
    TypeError
        If an entry is neither a string nor a module.
    ValueError
        If a name, glob or module is not in the model, or nothing is selected.
    """
    named = _named_layers(model)
    if layers is None:
        names = [name for name, module in named.items() if isinstance(module, default)]
        if not names:
            kinds = ", ".join(f"nn.{kind.__name__}" for kind in default)
            raise ValueError(
                f"layers=None selects every {kinds}, and the model has none; a functional call "
                "such as F.relu cannot be seen: pass layers= with the modules to regularize"
            )
    else:
        if not isinstance(layers, (str, nn.Module, Iterable)):
            kind = type(layers).__name__
            raise TypeError(f"layers must be names, globs or modules, got {kind}")
        entries = [layers] if isinstance(layers, (str, nn.Module)) else list(layers)
        names = [name for entry in entries for name in _matches(entry, named)]
        if not names:
            raise ValueError("layers must select at least one layer, got none")
    selected: dict[str, nn.Module] = {}
    for name in names:
        if not any(named[name] is module for module in selected.values()):
            selected[name] = named[name]
    return selected


def _matches(entry: Any, named: dict[str, nn.Module]) -> list[str]:
    if isinstance(entry, nn.Module):
        for name, module in named.items():
            if module is entry:
                return [name]
        raise ValueError(f"layers must be submodules of the model, got {type(entry).__name__}")
    if not isinstance(entry, str):
        raise TypeError(
            f"layers must be names, globs or modules, got an entry of {type(entry).__name__}"
        )
    for pattern in (entry, _without_wrappers(entry.removeprefix("module."))):
        if pattern in named:
            return [pattern]
        found = fnmatch.filter(named, pattern)
        if found:
            return found
    close = difflib.get_close_matches(entry, named, n=3)
    hint = f"; did you mean {', '.join(map(repr, close))}?" if close else ""
    raise ValueError(f"layers must name layers of the model, got {entry!r}{hint}")
