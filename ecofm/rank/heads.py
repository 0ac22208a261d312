"""Ranking heads: ensembles of small maps from embedding to score, fitted to comparisons.

An item's level is the mean score of its members, since people judge a sheet of exemplars as one.
Comparing random members instead would ask the head to explain answers that nobody gave.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import final

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from ecofm.errors import ArtifactError, UsageError
from ecofm.rank.calibration import Residual
from ecofm.rank.features import Basis, Kernel
from ecofm.rank.items import ItemFeatures, Matrix
from ecofm.rank.losses import Floats, Levels, Loss, LossName, Said
from ecofm.types import require_seed

HIDDEN = 8


class HeadName(Enum):
    """The shape of the map from embedding to score."""

    linear = "linear"
    mlp = "mlp"
    gp = "gp"


class Ensemble(Enum):
    """What the heads of an ensemble differ by."""

    bootstrap = "bootstrap"
    laplace = "laplace"


@dataclass(kw_only=True, slots=True)
class RankConfig:
    """How comparisons become a ranker."""

    seed: int = 0
    """Seed of folds and resampling."""
    head: HeadName = HeadName.linear
    """`linear`; `mlp`: one hidden layer beside it; `gp`: a Gaussian process."""
    loss: LossName = LossName.davidson
    """`davidson`: Bradley-Terry with ties; set_to_set, ranknet, plackett_luce or soft_rank."""
    ensemble: Ensemble = Ensemble.bootstrap
    """`bootstrap`: resampled annotators and members; `laplace`: draws from the posterior."""
    n_heads: int = 10
    """Heads of the ensemble."""
    components: int = 64
    """Directions of the embeddings that the heads see."""
    invariance: float = 0.8
    """How much of what varies between periods of one cell is taken for noise; 0 to 1."""
    decays: list[float] = field(default_factory=lambda: [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1])
    """Ridge penalties that held-out items choose from."""
    folds: int = 5
    """Folds of items for that choice."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        require_seed(self.seed)
        if self.n_heads < 2 or self.components < 1 or not self.decays:
            raise UsageError("n_heads >= 2, components >= 1 and a decay are needed.")
        if not all(0 < decay < float("inf") for decay in self.decays):
            raise UsageError(f"decays {self.decays}: expected positive, finite numbers.")
        if not 0 <= self.invariance <= 1:
            raise UsageError(f"invariance {self.invariance}: expected 0 to 1.")
        if self.ensemble is Ensemble.laplace and self.head is HeadName.mlp:
            raise UsageError("ensemble=laplace needs head=linear or gp; give bootstrap for mlp.")


class Head(ABC):
    """A map from features to score, told by a flat vector of parameters."""

    convex = True
    """Whether a search ends in one place, wherever it starts."""

    @abstractmethod
    def start(self, n_components: int, random: np.random.Generator) -> Floats:
        """Return parameters to start the search from."""

    @abstractmethod
    def scores(self, parameters: Tensor, features: Tensor) -> Tensor:
        """Return scores (..., row) of features (..., row, component)."""

    def levels(
        self, parameters: Tensor, mean: Tensor, sample: Tensor, several: Tensor, spread: bool
    ) -> Levels:
        """Return where items stand; `spread` asks for the variance around it too."""
        level = self.scores(parameters, mean)
        if not spread:
            return Levels(level)
        return Levels(level, _vary(level, self.scores(parameters, sample), several))


@final
class LinearHead(Head):
    """One weight a component."""

    def start(self, n_components: int, random: np.random.Generator) -> Floats:
        """Start where all items are equal."""
        return np.zeros(n_components)

    def scores(self, parameters: Tensor, features: Tensor) -> Tensor:
        """See `Head`."""
        return features @ parameters


@final
class MlpHead(Head):
    """One hidden layer of tanh beside a linear part; an item is the mean over some members."""

    convex = False

    def start(self, n_components: int, random: np.random.Generator) -> Floats:
        """Start with small hidden weights, for zeros would never learn."""
        hidden = random.normal(0, 1, HIDDEN * (n_components + 1))
        return np.concatenate([np.zeros(n_components), hidden, np.zeros(HIDDEN)])

    def scores(self, parameters: Tensor, features: Tensor) -> Tensor:
        """See `Head`."""
        n = features.shape[-1]
        layer = parameters[n:-HIDDEN].view(n + 1, HIDDEN)
        inner = torch.tanh(features @ layer[:n] + layer[n])
        found: Tensor = features @ parameters[:n] + inner @ parameters[-HIDDEN:]
        return found

    def levels(
        self, parameters: Tensor, mean: Tensor, sample: Tensor, several: Tensor, spread: bool
    ) -> Levels:
        """See `Head`."""
        scores = self.scores(parameters, sample)
        level = self.scores(parameters, mean).index_copy(0, several, scores.mean(dim=1))
        if not spread:
            return Levels(level)
        return Levels(level, _vary(level, scores, several))


def _vary(level: Tensor, scores: Tensor, several: Tensor) -> Tensor:
    """Return the variance of members' scores, 0 for items that are one tile."""
    variance = torch.zeros_like(level)
    return variance.index_copy(0, several, scores.var(dim=1)) if len(several) else variance


HEADS: dict[HeadName, Head] = {
    HeadName.linear: LinearHead(),
    HeadName.mlp: MlpHead(),
    HeadName.gp: LinearHead(),
}


@dataclass(frozen=True, slots=True)
class Heads:
    """A fitted ensemble. Over the items that were compared, scores have mean 0 and deviation 1."""

    head: Head
    features: Basis | Kernel
    parameters: Floats
    """Shape (head, parameter)."""
    offset: Floats
    """Shape (head,): taken off before the unit is applied."""
    unit: Floats
    """Shape (head,): the deviation over items that becomes 1."""
    residual: Residual | None
    """How far places stray from what the embedding tells; None: not known."""

    def predict(self, embeddings: Matrix) -> Floats:
        """Return the heads' scores, shape (head, tile), for embeddings (tile, dim).

        Raises ArtifactError for embeddings of another dimension.
        """
        basis = self.features.basis if isinstance(self.features, Kernel) else self.features
        if embeddings.shape[1] != len(basis.mean):
            raise ArtifactError(
                f"the ranker takes embeddings of {len(basis.mean)} dimensions, and these have "
                f"{embeddings.shape[1]}; one of the two is damaged: make it again."
            )
        features = torch.from_numpy(self.features(embeddings))
        raw = [
            self.head.scores(parameters, features).numpy()
            for parameters in torch.from_numpy(self.parameters)
        ]
        found: Floats = (np.array(raw) - self.offset[:, None]) / self.unit[:, None]
        return found

    def spread(self, scores: Floats) -> Floats:
        """Return the deviation of places around the mean of these scores (head, tile): (tile,)."""
        stray = self.residual.at(scores.mean(axis=0)) if self.residual else 0.0
        found: Floats = np.hypot(scores.std(axis=0, ddof=1), stray)
        return found


def fit_head(
    head: Head,
    loss: Loss[Said],
    mean: Floats,
    items: ItemFeatures,
    said: Said,
    decay: float,
    start: Floats,
) -> tuple[Floats, float]:
    """Return the parameters of one head and of its loss, by L-BFGS.

    `mean` (item, component) stands for the items; `items` has samples of their members.
    """
    objective = _objective(head, loss, mean, items, said, decay)

    def value(point: Floats) -> tuple[float, Floats]:
        given = torch.from_numpy(point).requires_grad_()
        found = objective(given)
        (slope,) = torch.autograd.grad(found, given)
        return found.item(), slope.numpy()

    found = minimize(
        value, np.append(start, 0.0), jac=True, method="L-BFGS-B", options={"maxiter": 300}
    )
    return found.x[:-1], float(found.x[-1])


def draw_laplace(
    head: Head,
    loss: Loss[Said],
    items: ItemFeatures,
    said: Said,
    decay: float,
    mode: tuple[Floats, float],
    n: int,
    random: np.random.Generator,
    noise: float = 1.0,
) -> Floats:
    """Return draws (n, parameter) of the normal distribution around the mode of the posterior.

    The loss is a mean, so that the number of answers scales its curvature (MacKay 1992); squared
    errors are a likelihood after division by the variance of the `noise`.
    """
    objective = _objective(head, loss, items.mean, items, said, decay)
    point = torch.from_numpy(np.append(*mode))
    hessian = torch.autograd.functional.hessian(objective, point)  # type: ignore[no-untyped-call]
    curvature = hessian.numpy()
    values, vectors = np.linalg.eigh(curvature * said.total / noise)
    spread = vectors / np.sqrt(values.clip(min=1e-9))
    draws = np.append(*mode) + random.standard_normal((n, len(point))) @ spread.T
    found: Floats = draws[:, :-1]
    return found


def _objective(
    head: Head, loss: Loss[Said], mean: Floats, items: ItemFeatures, said: Said, decay: float
) -> Callable[[Tensor], Tensor]:
    where = torch.from_numpy(mean)
    sample, several = torch.from_numpy(items.sample), torch.from_numpy(items.several)

    def objective(point: Tensor) -> Tensor:
        parameters, own = point[:-1], point[-1]
        levels = head.levels(parameters, where, sample, several, loss.needs_variance)
        # A weak pull on the loss's own parameter keeps it finite when nobody ever said tie.
        pull = decay * parameters.square().sum() / 2 + 1e-3 * own.square()
        return loss(levels, said, own) + pull

    return objective
