"""The selectivity regularizer: a penalty on a model's layers, added to its loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from selkern import _checks, reference
from selkern._capture import Capture, MeanReader, find_layers
from selkern._regularizer import BACKENDS, Regularizer, check_strength
from selkern._selectivity_loss import selectivity_of_layers
from selkern.pooling import spatial_mean


class SelectivityRegularizer(Regularizer):
    r"""Adds class selectivity to a training loss (Leavitt & Morcos, arXiv 2007.04440).

    .. math:: \mathrm{loss} = \mathrm{cross\ entropy} - \alpha \cdot \overline{\mathrm{SI}}

    with :math:`\overline{\mathrm{SI}}` the :func:`mean_selectivity` of the chosen layers over the
    minibatch. Negative ``alpha`` lowers selectivity. While it is attached, each ``nn.ReLU`` also
    takes its spatial mean in the same pass over the data; the model computes the same function.

    The activations of the last forward before the call count. Earlier ones, of an attack's inner
    loop or an evaluation, are dropped when the next forward of ``model`` starts; nothing is kept
    under ``torch.no_grad``. A module called twice in a forward is two layers, ``relu`` and
    ``relu_1``. The model stays as it is attached until :meth:`close`, or, where the regularizer is
    forgotten, until another is attached or closed.

    Parameters
    ----------
    model : nn.Module
        The model; compiled and distributed wrappers are looked through. Attach before a compiled
        model runs for the first time.
    num_classes : int
        Number of classes.
    alpha : float
        Strength; a plain attribute that may change between steps.
    layers : str, nn.Module, or iterable of them, optional
        Dotted names, globs or submodules; without it, every ``nn.ReLU``. The index is meant for
        non-negative activations: choose layers after a ReLU.
    unit_dim : int, default 1
        Axis of the units in the layers' outputs; ``-1`` for tokens ``[N, T, C]``.
    eps : float, default 1e-6
        Added to the denominator of the index.
    ignore_index : int, default -100
        Samples with this label take no part.
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
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    >>> x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    >>> with SelectivityRegularizer(model, num_classes=3, alpha=-2.0) as reg:
    ...     loss = nn.functional.cross_entropy(model(x), y) + reg(y)
    ...     loss.backward()
    ...     list(reg.index)
    ['2']
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        alpha: float,
        layers: str | nn.Module | Iterable[str | nn.Module] | None = None,
        unit_dim: int = 1,
        eps: float = 1e-6,
        ignore_index: int = -100,
        backend: str = "selkern",
    ):
        _checks.module("model", model)
        check_strength("alpha", alpha)
        if _checks.integer("unit_dim", unit_dim) == 0:
            raise ValueError("unit_dim must not be 0, the axis of the samples, got 0")
        self.alpha = alpha
        self.num_classes = _checks.num_classes(num_classes)
        self.eps = _checks.epsilon(eps)
        self.ignore_index = _checks.ignore_index(ignore_index)
        self._backend = _checks.one_of("backend", backend, BACKENDS)
        self._capture = Capture(
            model,
            find_layers(model, layers, (nn.ReLU,)),
            MeanReader(
                _checks.integer("unit_dim", unit_dim),
                spatial_mean if backend == "selkern" else reference.spatial_mean,
            ),
            self,
        )
        self._index: dict[str, Tensor] = {}

    def __call__(self, labels: Tensor) -> Tensor:
        """Return ``-alpha`` times the mean selectivity of the last forward.

        Parameters
        ----------
        labels : Tensor
            Class of each sample of that forward, int64 or int32 ``[N]``.

        Returns
        -------
        Tensor
            A scalar to add to the loss.

        Raises
        ------
        RuntimeError
            If nothing was captured.
        TypeError, ValueError
            If ``labels`` does not fit the activations.
        """
        means = self._capture.kept()
        _check_labels(labels, samples=next(iter(means.values())).shape[0])
        of_layers = (
            selectivity_of_layers
            if self.backend == "selkern"
            else reference.mean_selectivity_of_layers
        )
        selectivity, layers = of_layers(
            means,
            labels,
            self.num_classes,
            unit_dim=1,
            eps=self.eps,
            ignore_index=self.ignore_index,
        )
        self._index = dict(zip(means, layers.detach().unbind()))
        return -self.alpha * selectivity

    @property
    def index(self) -> dict[str, Tensor]:
        """Selectivity of each layer in the last call, detached 0-d tensors by layer name."""
        return self._index


def _check_labels(labels: Any, samples: int) -> None:
    """Refuse labels of more or fewer samples than the last forward had."""
    if isinstance(labels, Tensor) and labels.shape != (samples,):
        raise ValueError(
            f"labels must have shape [{samples}], as the last forward had {samples} samples, got "
            f"{list(labels.shape)}: call the regularizer after every forward, each with its labels"
        )


__all__ = ["SelectivityRegularizer"]
