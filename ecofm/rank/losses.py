"""Losses of items' levels given people's answers, or given a table's values.

Pairwise losses take each comparison by itself. Listwise losses take an annotator's whole ordering
where he compared every item with every other, and single comparisons as orderings of two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar, final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Floats = npt.NDArray[np.float64]
SHARPNESS = 30.0
"""Of the reference study's soft ranks."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Where items stand: the mean of their members' scores, and the variance around it."""

    mean: Float[Tensor, " item"]
    variance: Float[Tensor, " item"] | None = None


@dataclass(frozen=True, slots=True)
class Ordering:
    """One annotator's whole order of some items."""

    items: Int[Tensor, " n"]
    """Item numbers."""
    place: Float[Tensor, " n"]
    """Midranks from 1, the lowest; tied items share theirs."""
    weight: float


@dataclass(frozen=True, slots=True)
class Answers:
    """What people said of pairs of items."""

    left: Int[Tensor, " pair"]
    right: Int[Tensor, " pair"]
    counts: Float[Tensor, "pair 3"]
    """Weight of left, right and tie."""
    single: Float[Tensor, "pair 3"]
    """The same without what `orderings` hold."""
    orderings: tuple[Ordering, ...] = ()

    @property
    def total(self) -> float:
        """How many answers there are."""
        return float(self.counts.sum())


@dataclass(frozen=True, slots=True)
class Values:
    """What a table says of items: standardised numbers, or 1 for a class and 0 for the others."""

    value: Float[Tensor, " item"]
    weight: Float[Tensor, " item"]

    @property
    def total(self) -> float:
        """How many values there are."""
        return float(self.weight.sum())


Said = TypeVar("Said", Answers, Values)


class Loss(ABC, Generic[Said]):
    """The mean loss of a unit of weight, for levels in units of the log odds."""

    needs_variance = False

    @abstractmethod
    def __call__(self, levels: Levels, said: Said, own: Tensor) -> Tensor:
        """Return a scalar; `own` is the loss's one parameter.

        For answers it tells how readily people call two items equal, for values it is what an
        item at level 0 has.
        """


def davidson(
    difference: Float[Tensor, " pair"], counts: Float[Tensor, "pair 3"], log_tie: Tensor
) -> Tensor:
    """Return minus the mean log likelihood of comparisons.

    Bradley-Terry with ties (Davidson 1970): P(left) ~ exp(d/2), P(right) ~ exp(-d/2) and
    P(tie) ~ exp(log_tie), where d = level(left) - level(right).
    """
    logits = torch.stack([difference / 2, -difference / 2, log_tie.expand_as(difference)], dim=1)
    return -(counts * F.log_softmax(logits, dim=1)).sum() / counts.sum()


def log_odds(difference: Floats, log_tie: float) -> Floats:
    """Return the log probability of left, right and tie, (..., 3), by Davidson's model."""
    half = difference / 2
    total = np.logaddexp(np.logaddexp(half, -half), log_tie)
    found: Floats = np.stack([half - total, -half - total, log_tie - total], axis=-1)
    return found


def davidson_slopes(
    difference: Floats, counts: Floats, log_tie: float
) -> tuple[float, Floats, float]:
    """Return what `davidson` does, and its gradients in both, for small fits without autograd."""
    likelihood = log_odds(difference, log_tie)
    total = counts.sum()
    slope = (np.exp(likelihood) * counts.sum(axis=1, keepdims=True) - counts) / total
    loss = -float((counts * likelihood).sum() / total)
    return loss, (slope[:, 0] - slope[:, 1]) / 2, float(slope[:, 2].sum())


@final
class Davidson(Loss[Answers]):
    """Bradley-Terry with ties: an item stands at the mean of its members."""

    def __call__(self, levels: Levels, said: Answers, own: Tensor) -> Tensor:
        """See `Loss`."""
        difference = levels.mean[said.left] - levels.mean[said.right]
        return davidson(difference, said.counts, own)


@final
class SetToSet(Loss[Answers]):
    """Bradley-Terry with ties between distributions: members of one item differ.

    The odds are those of a random member against a random member, by MacKay's (1992)
    approximation of a logistic curve's mean under a normal distribution.
    """

    needs_variance = True

    def __call__(self, levels: Levels, said: Answers, own: Tensor) -> Tensor:
        """See `Loss`."""
        left, right = said.left, said.right
        difference = levels.mean[left] - levels.mean[right]
        if levels.variance is not None:
            spread = levels.variance[left] + levels.variance[right]
            difference = difference / (1 + torch.pi / 8 * spread).sqrt()
        return davidson(difference, said.counts, own)


@final
class RankNet(Loss[Answers]):
    """Logistic loss of the difference; a tie is half a win for either (Burges et al. 2005)."""

    def __call__(self, levels: Levels, said: Answers, own: Tensor) -> Tensor:
        """See `Loss`."""
        difference = levels.mean[said.left] - levels.mean[said.right]
        return _logistic(difference, said.counts) / said.counts.sum()


@final
class PlackettLuce(Loss[Answers]):
    """Likelihood of drawing an ordering from the top; tied items are drawn from the same rest."""

    def __call__(self, levels: Levels, said: Answers, own: Tensor) -> Tensor:
        """See `Loss`."""
        difference = levels.mean[said.left] - levels.mean[said.right]
        total = _logistic(difference, said.single)
        weight = said.single.sum()
        for ordering in said.orderings:
            level = levels.mean[ordering.items]
            above = ordering.place[None] > ordering.place[:, None]
            rest = level.expand(len(level), -1).masked_fill(above, -torch.inf)
            total = total + ordering.weight * (rest.logsumexp(dim=1) - level).sum()
            weight = weight + ordering.weight * (len(level) - 1)
        return total / weight


@final
class SoftRank(Loss[Answers]):
    """Squared difference of soft ranks, rank = sum of sigmoid(30 d), to the places.

    After the reference study; by Spearman's formula it is 1 minus the rank correlation.
    """

    def __call__(self, levels: Levels, said: Answers, own: Tensor) -> Tensor:
        """See `Loss`."""
        difference = levels.mean[said.left] - levels.mean[said.right]
        lead = 2 * torch.sigmoid(SHARPNESS * difference) - 1
        wanted = lead.new_tensor([1.0, -1.0, 0.0])
        total = (said.single * (lead[:, None] - wanted).square()).sum()
        weight = said.single.sum()
        for ordering in said.orderings:
            level = levels.mean[ordering.items]
            n = len(level)
            # The sigmoid of 0 makes half a rank of an item against itself, midranks the other.
            ranks = torch.sigmoid(SHARPNESS * (level[:, None] - level[None])).sum(dim=1) + 0.5
            spearman = 6 * (ranks - ordering.place).square().sum() / (n * (n**2 - 1))
            total = total + ordering.weight * (n - 1) * spearman
            weight = weight + ordering.weight * (n - 1)
        return total / weight


@final
class SquaredError(Loss[Values]):
    """Half the squared difference to a number."""

    def __call__(self, levels: Levels, said: Values, own: Tensor) -> Tensor:
        """See `Loss`."""
        error = levels.mean + own - said.value
        return (said.weight * error.square()).sum() / (2 * said.total)


@final
class Logistic(Loss[Values]):
    """Likelihood of being in a class, for levels that are log odds."""

    def __call__(self, levels: Levels, said: Values, own: Tensor) -> Tensor:
        """See `Loss`."""
        found: Tensor = F.binary_cross_entropy_with_logits(
            levels.mean + own, said.value, said.weight, reduction="sum"
        )
        return found / said.total


def _logistic(difference: Tensor, counts: Tensor) -> Tensor:
    ahead, behind = counts[:, 0] + counts[:, 2] / 2, counts[:, 1] + counts[:, 2] / 2
    return (ahead * F.softplus(-difference) + behind * F.softplus(difference)).sum()


class LossName(Enum):
    """What makes levels agree with answers."""

    davidson = "davidson"
    set_to_set = "set_to_set"
    ranknet = "ranknet"
    plackett_luce = "plackett_luce"
    soft_rank = "soft_rank"


LOSSES: dict[LossName, Loss[Answers]] = {
    LossName.davidson: Davidson(),
    LossName.set_to_set: SetToSet(),
    LossName.ranknet: RankNet(),
    LossName.plackett_luce: PlackettLuce(),
    LossName.soft_rank: SoftRank(),
}
