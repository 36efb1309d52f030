"""The 1/n regularizer: a penalty on the covariance eigenspectra of a model's layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selkern import _checks
from selkern import _spectrum_checks as checks
from selkern._capture import Capture, WholeReader, find_layers
from selkern._layout import result_dtype
from selkern._modes import evaluating, without_inference
from selkern._moments import Moments
from selkern._regularizer import BACKENDS, Regularizer, check_strength
from selkern._spectral_loss import spectral_loss_of_layers
from selkern.reference import _spectrum as plain

_ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid)
_MODES = ("exact", "frozen")


class SpectralRegularizer(Regularizer):
    r"""Pulls covariance eigenspectra towards a power law (Nassar et al., arXiv 2012.04729).

    .. math:: \mathrm{loss} = \mathrm{cross\ entropy} + \beta \cdot \mathrm{penalty}

    with the penalty of :func:`spectral_loss` on the activations of the chosen layers over the
    minibatch, flattened to ``[N, D]``. In mode "exact" the eigenvalues are those of the minibatch's
    own covariance. In mode "frozen", the published method, they are variances along the
    eigenvectors of the whole data set's covariance, which :meth:`refresh` takes, usually once an
    epoch. Feature maps and tokens are flattened too: a layer of 16 channels of 32 by 32 positions
    has 16,384 units. "frozen" is for layers of up to a few thousand.

    The activations of the last forward before the call count, as for
    :class:`SelectivityRegularizer`; nothing is kept under ``torch.no_grad``. A module called twice
    in a forward is two layers, ``tanh`` and ``tanh_1``. The model stays as it is attached until
    :meth:`close`, or, where the regularizer is forgotten, until another is attached or closed.

    Where several processes train one model, spectra are those of a process's own batch. Bases
    should be the same in all of them: let each process refresh from the same data, without a
    DistributedSampler, or broadcast :attr:`bases`.

    Parameters
    ----------
    model : nn.Module
        The model; compiled and distributed wrappers are looked through. Attach before a compiled
        model runs for the first time.
    beta : float
        Strength; like ``exponent`` and ``anchor`` a plain attribute that may change between steps.
    layers : str, nn.Module, or iterable of them, optional
        Dotted names, globs or submodules; without it, every ``nn.ReLU``, ``nn.Tanh``, ``nn.GELU``,
        ``nn.SiLU`` and ``nn.Sigmoid``.
    exponent : float, default 1.0
        Exponent of the power law.
    anchor : int, default 11
        Rank, counted from 1, at which the law meets each spectrum; later ranks are penalised.
    mode : {"exact", "frozen"}
        Where eigenvalues come from; it stays.
    backend : {"selkern", "reference"}
        "reference" runs the same in plain PyTorch; it stays.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If ``layers`` selects nothing or names an unknown layer, or another value does not fit.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 3))
    >>> x, y = torch.randn(32, 4), torch.randint(3, (32,))
    >>> with SpectralRegularizer(model, beta=0.1) as reg:
    ...     loss = nn.functional.cross_entropy(model(x), y) + reg()
    ...     loss.backward()
    ...     reg.spectra["1"].shape
    torch.Size([20])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        beta: float,
        layers: str | nn.Module | Iterable[str | nn.Module] | None = None,
        exponent: float = 1.0,
        anchor: int = 11,
        mode: str = "exact",
        backend: str = "selkern",
    ):
        _checks.module("model", model)
        check_strength("beta", beta)
        self.beta = beta
        self.exponent = checks.exponent(exponent)
        self.anchor = checks.anchor(anchor)
        self._mode = _checks.one_of("mode", mode, _MODES)
        self._backend = _checks.one_of("backend", backend, BACKENDS)
        self._model = model
        selected = find_layers(model, layers, _ACTIVATIONS)
        self._capture = Capture(model, selected, WholeReader(), self)
        self._bases: dict[str, Tensor] = {}
        self._spectra: dict[str, Tensor] = {}

    def __call__(self) -> Tensor:
        """Return ``beta`` times the penalty of the last forward.

        Returns
        -------
        Tensor
            A scalar to add to the loss.

        Raises
        ------
        RuntimeError
            If nothing was captured, an activation was changed in place since, or a frozen
            regularizer has no basis for a layer, or one for another number of units.
        ValueError
            If a layer has no rank after the anchor that can be above 0, as with a short last batch,
            or another value does not fit.
        """
        activations = self._capture.kept()
        of_layers = (
            spectral_loss_of_layers if self.backend == "selkern" else plain.spectral_loss_of_layers
        )
        penalty, spectra = of_layers(
            activations,
            exponent=self.exponent,
            anchor=self.anchor,
            basis=self._bases_of(activations) if self.mode == "frozen" else None,
            kappa=None,
        )
        self._spectra = {
            name: spectrum.detach() for name, spectrum in zip(activations, spectra, strict=True)
        }
        return self.beta * penalty

    def _bases_of(self, activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        missing = [name for name in activations if name not in self._bases]
        if missing:
            raise RuntimeError(
                f"layers {missing} have no basis: call refresh(loader), or set bases, before the "
                "first step and after a change of the model"
            )
        for name, x in activations.items():
            units, rows = math.prod(x.shape[1:]), self._bases[name].shape[0]
            if rows != units:
                raise RuntimeError(
                    f"the basis of layer {name!r} is for {rows} units, and the layer has {units}: "
                    "call refresh(loader) again"
                )
        return {
            name: self._bases[name].to(x.device, result_dtype(x.dtype))
            for name, x in activations.items()
        }

    @property
    def mode(self) -> str:
        """Where eigenvalues come from, "exact" or "frozen"."""
        return self._mode

    @property
    def spectra(self) -> dict[str, Tensor]:
        """Spectrum of each layer in the last call, detached, largest first, by layer name.

        Eigenvalues in mode "exact", variances along the basis in mode "frozen".
        """
        return self._spectra

    @property
    def bases(self) -> dict[str, Tensor]:
        """Basis of each layer in mode "frozen", by layer name.

        Directions ``[D, R]`` in columns; empty before :meth:`refresh`. May be set, so that training
        that goes on where it was left needs no refresh. Saved with
        ``torch.save(reg.bases, path)``, they are set with ``reg.bases = torch.load(path)``.
        """
        return self._bases

    @bases.setter
    def bases(self, bases: Mapping[str, Tensor]) -> None:
        self._check_frozen("bases")
        if not isinstance(bases, Mapping):
            kind = type(bases).__name__
            raise TypeError(f"bases must be a mapping of layer names to tensors, got {kind}")
        for name, basis in bases.items():
            checks.directions(f"bases[{name!r}]", basis)
        self._bases = {name: basis.detach() for name, basis in bases.items()}

    def _check_frozen(self, what: str) -> None:
        if self._mode != "frozen":
            raise RuntimeError(
                f"mode must be 'frozen' for {what}, got {self._mode!r}, which takes eigenvalues of "
                "each batch alone"
            )

    def refresh(self, loader: Iterable[Any]) -> None:
        """Take the eigenvectors of each layer's covariance over a data set, for mode "frozen".

        The model runs over the data once, in evaluation mode and without gradients; every module's
        mode is put back. Covariances are merged batch by batch in float64, and no activation is
        kept. Directions in which the data do not vary, as there are where a layer has more units
        than there are samples, are arbitrary: they are left out beyond the anchor.

        A layer of ``D`` units, for maps and tokens the product of all axes but the first, takes a
        few matrices of ``8 D^2`` bytes, and time that grows with ``D^3``: at 4,096 units 134 MB
        each, and half a minute on a CPU core. Choose ``layers`` where that is too much.

        Parameters
        ----------
        loader : iterable
            Batches: the model's input, or a tuple or list that begins with it. Inputs are moved to
            the device of the model's first parameter.

        Raises
        ------
        RuntimeError
            If the mode is not "frozen".
        TypeError
            If ``loader`` is no iterable of batches, or a batch neither a tensor nor begins with
            one.
        ValueError
            If there are fewer than two samples, an activation is not finite, or a layer has not as
            many units in all batches.
        """
        self._check_frozen("refresh")
        _check_loader(loader)
        # Tensors that inference_mode makes could take no part in a training step.
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            evaluating(self._model),
            self._capture.without_grad(),
        ):
            self._bases = self._eigenvectors(loader)

    def _eigenvectors(self, loader: Iterable[Any]) -> dict[str, Tensor]:
        moments: dict[str, Moments] = {}
        device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        for batch in loader:
            self._model(_input_of(batch).to(device))
            for name, x in self._capture.kept().items():
                moments.setdefault(name, Moments(name)).merge(x.flatten(1))
        if not moments:
            raise ValueError("loader must hold at least one batch, got none")
        return {
            name: of_layer.eigenvectors(at_least=self.anchor + 1)
            for name, of_layer in moments.items()
        }


def _check_loader(loader: Any) -> None:
    if isinstance(loader, Tensor):
        raise TypeError("loader must be an iterable of batches, got Tensor: pass [images]")
    if not isinstance(loader, Iterable):
        kind = type(loader).__name__
        raise TypeError(f"loader must be an iterable of batches, got {kind}")


def _input_of(batch: Any) -> Tensor:
    first = batch[0] if isinstance(batch, Sequence) and batch else batch
    if not isinstance(first, Tensor):
        raise TypeError(
            f"loader must give tensors, or tuples that begin with one, got {type(first).__name__}"
        )
    return without_inference(first)


__all__ = ["SpectralRegularizer"]
